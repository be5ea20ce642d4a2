"""The standard library's own tests, run with our class in the place of its."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from quattro_core import TaskGroup

ROOT = Path(__file__).parents[2]
SUITE = "test.test_asyncio.test_taskgroups"
RUNNER = """
import asyncio, importlib, sys, unittest
from asyncio import taskgroups
from quattro_core import TaskGroup

taskgroups.TaskGroup = asyncio.TaskGroup = TaskGroup
suite = importlib.import_module(sys.argv[1])
if sys.argv[2] == "eager":
    make = asyncio.events.new_event_loop  # what asyncio.Runner calls

    def new_event_loop():
        loop = make()
        loop.set_task_factory(asyncio.eager_task_factory)
        return loop

    asyncio.events.new_event_loop = new_event_loop
unittest.main(module=suite, argv=["suite"])
"""


def has_suite() -> bool:
    """Tell whether this Python came with its test package; many distributions leave it out."""
    try:
        return importlib.util.find_spec(SUITE) is not None
    except ModuleNotFoundError:
        return False


LOOPS = ["plain", *(["eager"] if sys.version_info >= (3, 12) else [])]


@pytest.fixture(scope="module")
def suites() -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Start the suite for all kinds of loops at once: most of its 6 s it sleeps."""
    processes = {
        loop: subprocess.Popen(
            [sys.executable, "-c", RUNNER, SUITE, loop],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for loop in LOOPS
    }
    yield processes
    for process in processes.values():
        process.kill()
        process.communicate()


@pytest.mark.skipif(
    not has_suite(),
    reason="this Python came without its own tests; Debian: apt-get install libpython3-testsuite",
)
@pytest.mark.parametrize("loop", LOOPS)
def test_suite_of_the_standard_library(suites: dict[str, subprocess.Popen[str]], loop: str) -> None:
    """C1: CPython's own TaskGroup suite passes with ours in its place.

    Takes 6 s of real time, since some of its tests wait for a second: that can't be helped.
    """
    _, errors = suites[loop].communicate(timeout=50)
    assert suites[loop].returncode == 0, errors
    assert errors.rstrip().endswith("OK")


def test_is_a_subclass() -> None:
    """C1: TaskGroup is a subclass of asyncio.TaskGroup."""
    assert issubclass(TaskGroup, asyncio.TaskGroup)
