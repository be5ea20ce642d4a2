"""Runs of pytest, each in a process of its own, with the plugin as it is installed."""

import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

INI = f"""
[pytest]
asyncio_default_fixture_loop_scope = function
filterwarnings = error
pythonpath = {ROOT}
addopts = --import-mode=importlib --strict-markers -p no:cacheprovider
"""


@dataclass
class Outcome:
    """What pytest says of each test: nothing, or what went wrong."""

    status: int
    said: dict[str, str]
    output: str


def run_pytest(where: Path, tests: Path, *options: str, environ: Sequence[str] = ()) -> Outcome:
    """Run the tests of a file, and return how each came out."""
    ini, report = where / "pytest.ini", where / "report.xml"
    ini.write_text(INI)
    command = [sys.executable, "-m", "pytest", "-c", str(ini), f"--junitxml={report}", str(tests)]
    command += ["-o", f"python_files={tests.name}", *options]
    done = subprocess.run(command, cwd=where, capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    assert report.exists(), output
    said: dict[str, str] = {}
    for case in ET.parse(report).iter("testcase"):
        found = [child for child in case if child.tag in ("error", "failure", "skipped")]
        text = "\n".join(f"{child.tag}: {child.text}" for child in found)
        said[str(case.get("name"))] = text
    return Outcome(done.returncode, said, output)
