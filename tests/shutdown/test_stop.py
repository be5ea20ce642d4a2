"""Whom a failed pump asks to stop: tried in real processes, one for each kind of program."""

import os
import signal

import pytest

from tests.support.server import Server

TERM = int(signal.SIGTERM)
LAUNCHER = (
    "import signal, subprocess, sys\n"
    "signal.signal(signal.SIGTERM, lambda *_: print('\\nthe launcher got it'))\n"
    "print('status', subprocess.run([sys.executable, *sys.argv[1:]]).returncode)\n"
)


def run(case: str) -> str:
    """Run a case as the child of another process, and return what both have said."""
    command = ["-c", LAUNCHER, "-m", "tests.shutdown.stopping", case]
    with Server(command, ready=False) as process:
        assert process.wait() == 0
    assert "status 0" in process.log
    return process.log


def test_process_with_a_handler() -> None:
    """A3: A process whose server handles SIGTERM gets it, and nobody else does."""
    log = run("handler_of_python")
    assert f"MainProcess got signal {TERM}\nasked: True" in log
    assert "the launcher got it" not in log


def test_process_with_a_handler_in_its_loop() -> None:
    """A3: A process whose event loop handles SIGTERM gets it, and nobody else does."""
    log = run("handler_of_the_loop")
    assert "asked: True\nthe loop got the signal" in log
    assert "the launcher got it" not in log


def test_child_with_a_server() -> None:
    """A3: A server in a process that a program has started by multiprocessing gets the signal, and
    the program does not (trap: signalling blindly)."""
    log = run("child_with_a_server")
    assert f"child got signal {TERM}\nasked: True" in log
    assert "the child's status is 0" in log
    assert "MainProcess got signal" not in log
    assert "the launcher got it" not in log


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is forked here")
def test_process_that_was_forked_off() -> None:
    """A6: A process that was forked off a server gets its signals as it does without us: no
    shutdown begins in it, at the end of which it would be killed."""
    log = run("forked")
    assert f"MainProcess got signal {TERM}" in log
    assert "told" not in log
    assert "the time counts" not in log


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is forked here")
def test_process_that_was_forked_off_a_worker() -> None:
    """A6: So does one that was forked off a worker of hypercorn's, which takes no SIGTERM itself
    while it ends."""
    assert f"the child's status is {-TERM}" in run("forked_off_a_worker")


NOBODY = ["no_server", "child_without_a_server", "another_thread", "coverage_of_tests"]


@pytest.mark.parametrize("case", NOBODY)
def test_no_server(case: str) -> None:
    """A3: Where there is no server that takes signals, nobody is signalled, neither the process nor
    who launched it, and a critical line tells what to do: in a test, also in a process of its own
    or where its coverage handles the signal, and in a thread of a larger program."""
    log = run(case)
    assert "asked: False" in log
    assert "the server could not be asked to stop" in log
    assert "End it yourself when app_health(app) says" in log
    assert "got signal" not in log
    assert "the launcher got it" not in log
