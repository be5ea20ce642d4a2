"""The life of a real server with pumps: how it starts, fails and ends."""

import signal

import pytest

from tests.support.server import Server, uvicorn
from tests.support.wire import Wire

STOPS = pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 0)]
)


@STOPS
def test_order_of_a_life(app: str, number: signal.Signals, status: int) -> None:
    """A1: Resources open, pumps start, requests are served; on a signal it is the reverse."""
    with Server(uvicorn(app)) as server:
        server.wait_for("pump started with the resource")
        with Wire(server.port) as wire:
            assert wire.get("/visit").status == 200
        assert server.stop(number) == status
    _assert_order(
        server.log,
        "Waiting for application startup",
        "resource opened",
        "pump started with the resource",
        "GET /visit",
        "Waiting for application shutdown",
        "pump ended",
        "resource closed",
        "Application shutdown complete",
    )
    assert "Traceback" not in server.log


@STOPS
def test_work_handed_over_is_finished(app: str, number: signal.Signals, status: int) -> None:
    """A5: Work handed over survives its response, and the server waits for it before it ends."""
    with Server(uvicorn(app)) as server:
        with Wire(server.port) as wire:
            assert wire.get("/hand-over").text == "accepted"
        server.wait_for("work begun")
        server.send(number)
        server.wait_for("Waiting for application shutdown")
        assert "work done" not in server.log
        server.send(signal.SIGUSR1)
        assert server.wait() == status
    _assert_order(server.log, "work begun", "work done", "pump ended", "resource closed")
    assert "Traceback" not in server.log


def test_failed_pump_ends_the_server() -> None:
    """A3: A pump that fails is logged with its traceback, and the server ends with a failure."""
    with Server(uvicorn("tests.e2e.apps:failing_app")) as server:
        with Wire(server.port) as wire:
            assert wire.get("/fail").text == "as you wish"
        assert server.wait() == -signal.SIGTERM
    _assert_order(
        server.log,
        "pump failing_pump failed: the server must stop",
        "Traceback",
        "ZeroDivisionError: the pump is broken",
        "Shutting down",
        "pump ended",
        "resource closed",
        "pump failing_pump has failed",
    )
    assert server.log.count("ZeroDivisionError: the pump is broken") == 1


def test_requests_are_drained_when_a_pump_fails() -> None:
    """A3: A request in flight gets its answer when a pump fails, while the other pumps go on."""
    with Server(uvicorn("tests.e2e.apps:failing_app")) as server:
        with Wire(server.port) as held, Wire(server.port) as other:
            held.ask("/hold")
            while "handler returned" not in other.get("/notes").text:
                pass
            other.get("/fail")
            server.wait_for("Waiting for connections to close")
            assert not held.has_data()
            assert "pump ended" not in server.log
            server.send(signal.SIGUSR1)
            answer = held.answer()
        assert answer.is_complete
        assert answer.text == "held"
        assert server.wait() == -signal.SIGTERM


def test_nothing_else_is_signalled() -> None:
    """A3: A failing pump stops its own server; who launched it, and others, get no signal."""
    command = ["-m", "tests.e2e.launcher", *uvicorn("tests.e2e.apps:failing_app")]
    with Server(command) as launcher:
        with Wire(launcher.port) as wire:
            wire.get("/fail")
        assert launcher.wait() == 0
    assert f"the server's status is {-signal.SIGTERM}" in launcher.log
    assert "the bystander is alive" in launcher.log
    assert "the launcher got signal" not in launcher.log


def test_pump_that_fails_at_once() -> None:
    """A3: A pump that fails in its first step is a failed start-up, with the status for that."""
    with Server(uvicorn("tests.e2e.apps:stillborn_app"), ready=False) as server:
        assert server.wait() == 3
    _assert_order(
        server.log,
        "resource opened",
        "pump ended",
        "ZeroDivisionError: the pump never worked",
        "raised by pump stillborn_pump, before the app has started",
        "Application startup failed",
    )


def test_pump_that_fails_in_its_clean_up() -> None:
    """A3: A pump that fails while it is ended is logged, and the server tells of it too."""
    with Server(uvicorn("tests.e2e.apps:untidy_app")) as server:
        server.stop()
    _assert_order(
        server.log,
        "pump untidy_pump failed while it was being stopped",
        "ZeroDivisionError: the pump did not clean up",
        "resource closed",
        "Application shutdown failed",
    )


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_both_event_loops(loop: str) -> None:
    """A3: The server ends by itself on the standard library's event loop, and on uvloop."""
    with Server(uvicorn("tests.e2e.apps:failing_app", "--loop", loop)) as server:
        with Wire(server.port) as wire:
            wire.get("/fail")
        assert server.wait() == -signal.SIGTERM
    assert "resource closed" in server.log


def _assert_order(log: str, *parts: str) -> None:
    at = 0
    for part in parts:
        found = log.find(part, at)
        assert found >= 0, f"{part!r} is not in the log, or too early:\n{log}"
        at = found
