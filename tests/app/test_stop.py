"""Whom a failed pump asks to stop: tried in real processes, one for each kind of server."""

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
    command = ["-c", LAUNCHER, "-m", "tests.app.stopping", case]
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


@pytest.mark.parametrize("case", ["worker_without_a_handler", "worker_that_ignores_the_signal"])
def test_worker_of_a_server(case: str) -> None:
    """A3: A worker without a handler is not killed: its server, which has spawned it, is asked
    (trap: signalling blindly)."""
    log = run(case)
    assert "asked: True" in log
    assert f"MainProcess got signal {TERM}" in log
    assert "worker got signal" not in log
    assert "the worker's status is 0" in log
    assert "the launcher got it" not in log


def test_no_server() -> None:
    """A3: A process that is no server, such as a test's, is not signalled, nor who launched it."""
    log = run("no_server")
    assert "asked: False" in log
    assert "the launcher got it" not in log
