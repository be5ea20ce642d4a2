"""The tasks of an app that hangs where no request is answered, at a signal."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.support.server import Server, granian, gunicorn, hypercorn, uvicorn
from tests.support.wire import Wire

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX signal")

APP = "tests.tree.hanging_app:app"


@contextmanager
def hanging(where: str, kind: Callable[..., list[str]] = uvicorn) -> Iterator[Server]:
    with Server(kind(APP), env={"HANGS": where}, ready=False) as server:
        yield server
        pid = pid_of(server)
        server.send(signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
        assert server.wait() == -signal.SIGKILL


def pid_of(server: Server) -> int:
    """Wait until it hangs, and return the process that does, which may be a worker."""
    return int(server.wait_for(r"^hangs in (\d+)")[1])


def signal_it(server: Server) -> None:
    os.kill(pid_of(server), signal.SIGUSR1)


@pytest.mark.parametrize("kind", [uvicorn, hypercorn, granian, gunicorn])
def test_resource_that_does_not_open(kind: Callable[..., list[str]]) -> None:
    """O1: At the signal, the log says in which line the start-up of an app hangs, before it has
    served anything."""
    with hanging("opening", kind) as server:
        signal_it(server)
        server.wait_for(
            r"start-up for \d+\.\d s: lifespan \[.*\], at hang, .*hanging_app\.py:\d+, "
            r"awaits asyncio\.locks\.Event\.wait"
        )


def test_start_up_that_blocks() -> None:
    """O1: So it does where the start-up blocks the event loop."""
    with hanging("blocking") as server:
        signal_it(server)
        server.wait_for(r"has not answered for 1 s: it is at lifespan, .*hanging_app\.py:\d+")


def test_pump_that_is_not_ready() -> None:
    """O1: Where the start-up waits for a pump, the log says so, and where that one is."""
    with hanging("pump") as server:
        signal_it(server)
        server.wait_for(r"pump poll: starting since .*\n.*at hang, .*hanging_app\.py:\d+")
        server.wait_for(r"start-up for \d+\.\d s: waiting for its pumps")


def test_resource_that_does_not_close() -> None:
    """O1: At the signal, the log says in which line the shutdown of an app hangs."""
    with hanging("closing") as server:
        server.wait_for("Uvicorn running on")
        server.send(signal.SIGTERM)
        signal_it(server)
        server.wait_for(r"shutdown for \d+\.\d s: lifespan \[.*\], at hang, .*hanging_app\.py:\d+")


def test_handler_of_the_log_that_hangs() -> None:
    """O1: Where the log itself hangs, the tree is written to stderr."""
    with hanging("logging") as server:
        server.port = int(server.wait_for(r"Uvicorn running on http://127\.0\.0\.1:(\d+)")[1])
        with Wire(server.port) as wire:
            wire.ask("/logs")
            written = (
                r"the log is blocked(?s:.*)has not answered for 1 s: it is at Hanging\.emit, "
                r".*hanging_app\.py:\d+(?s:.*)^GET /logs from "
            )
            signal_it(server)
            server.wait_for(written)
            signal_it(server)
            server.wait_for(f"{written}(?s:.*){written}")
