"""What the tests of `run_in_process` call: functions of a module, in another process."""

from __future__ import annotations

import os
import time
from pathlib import Path


def add(one: int, *, other: int) -> int:
    return one + other


def fail(error: Exception) -> None:
    raise error


def die() -> None:
    os._exit(3)


def compute_for_ever(path: str) -> None:
    """Tell which process it is, and go on until that is ended."""
    Path(path).with_suffix(".new").write_text(str(os.getpid()))
    Path(path).with_suffix(".new").replace(path)
    while True:
        time.sleep(1)
