"""The system's own chromium, which tests drive through playwright."""

import shutil
from importlib.util import find_spec

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MISSING = "needs chromium (apt-get install chromium) and playwright (pip install playwright)"


def missing() -> str:
    """Return what has to be installed for it; empty if all is there."""
    return "" if CHROMIUM and find_spec("playwright") else MISSING
