"""The tasks of an app in the log, at a signal."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest
from starlette.applications import Starlette

from quattro_web import Pump, TaskGroupMiddleware, install
from quattro_web.testing import AppClient
from tests.support.apps import settle
from tests.support.server import Server, granian, gunicorn, hypercorn, uvicorn
from tests.support.wire import Wire

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX signal")

APP = "tests.tree.app:app"
SERVERS = {"uvicorn": uvicorn, "hypercorn": hypercorn, "granian": granian, "gunicorn": gunicorn}
CHILD = r"stuck_child \[ada\], at stuck_child, .*app\.py:\d+, awaits asyncio\.locks\.Event\.wait"


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def pid_of(server: Server) -> int:
    """Return the process that runs the app, which may be a worker."""
    with Wire(server.port) as wire:
        answer = wire.get("/tasks")
    return int(re.findall(r'"pid":(\d+)', answer.text)[0])


@pytest.mark.parametrize("kind", SERVERS)
def test_signal(kind: str) -> None:
    """O1: At the signal, the log tells of all requests, children, pumps and handed-over work, and
    the app goes on."""
    with Server(SERVERS[kind](APP)) as server:
        pid = pid_of(server)
        with Wire(server.port) as stuck, Wire(server.port) as wire:
            stuck.ask("/users/ada")
            server.wait_for("is stuck")
            assert wire.get("/sign-up").status == 200
            os.kill(pid, signal.SIGUSR1)
            server.wait_for(rf"(?s)GET /users/ada .*{CHILD}")
            os.kill(pid, signal.SIGUSR1)
            server.wait_for(rf"(?s)GET /users/ada .*{CHILD}.*GET /users/ada .*{CHILD}")
            for line in (
                rf"process {pid} \(.*\): 1 open requests, \d+ tasks, at ",
                r"pump poll: running since ",
                r"poll \[pump poll\] in the background, at poll, .*app\.py:\d+, awaits asyncio",
                r"handed over by GET /sign-up \d+\.\d s ago: mail, at mail, .*app\.py:\d+",
                r"GET /users/ada \(/users/\{name\}\) from 127\.0\.0\.1:\d+: handling, arrived \d",
                r"[├└]─ ticking_child \[<b>ticks</b>\]",
            ):
                server.wait_for(line)
            assert wire.get("/sign-up").status == 200


@pytest.mark.parametrize("path", ["/blocks", "/blocks-in-c"])
def test_signal_while_the_loop_is_blocked(path: str) -> None:
    """O1: If the event loop does not answer, the log says where it is, and what there is besides,
    also where no handler of Python's would run."""
    server = Server(uvicorn(APP))
    with server, Wire(server.port) as stuck, Wire(server.port) as wire:
        stuck.ask("/users/ada")
        server.wait_for("is stuck")
        wire.ask(path)
        server.wait_for("^blocks")
        server.send(signal.SIGUSR1)
        function = "blocks_in_c" if path.endswith("c") else "blocks_loop"
        server.wait_for(rf"has not answered for 1 s: it is at {function}, .*app\.py:\d+")
        server.wait_for(CHILD)
        server.send(signal.SIGKILL)
        assert server.wait() == -signal.SIGKILL


def test_app_that_has_ended() -> None:
    """O1: The signal means nothing of ours when the app has ended, and what it was before."""
    seen = []
    app = Starlette()
    install(app, dump_signal=signal.SIGUSR1)

    async def main() -> None:
        async with AppClient(app):
            await settle()

    before = signal.signal(signal.SIGUSR1, lambda *_: seen.append("the app's own"))
    try:
        asyncio.run(main())
        signal.raise_signal(signal.SIGUSR1)
        assert seen == ["the app's own"]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_handler_of_the_apps_own(caplog: pytest.LogCaptureFixture) -> None:
    """O1: A handler that the app has for the signal is called as well."""
    seen: list[str] = []
    app = Starlette()
    install(app, dump_signal=signal.SIGUSR1)

    async def main() -> None:
        async with AppClient(app):
            signal.raise_signal(signal.SIGUSR1)
            await until(lambda: bool(seen) and "process" in caplog.text)

    before = signal.signal(signal.SIGUSR1, lambda *_: seen.append("the app's own"))
    try:
        asyncio.run(main())
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == ["the app's own"]


def test_real_time_signal(caplog: pytest.LogCaptureFixture) -> None:
    """O1: A real-time signal, which has no name of its own, is one as well."""
    number = signal.SIGRTMIN + 3
    app = Starlette()
    install(app, dump_signal=number)

    async def main() -> None:
        async with AppClient(app):
            signal.raise_signal(number)
            await until(lambda: "open requests" in caplog.text)

    asyncio.run(main())


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_process_that_was_forked() -> None:
    """O1: The signal tells of the process that gets it: one that was forked off a server has
    nothing to tell, and the signal means to it what it meant before."""
    app = Starlette()
    install(app, dump_signal=signal.SIGUSR1)

    async def main() -> None:
        async with AppClient(app):
            pid = os.fork()
            if pid == 0:  # pragma: no cover - in the child
                signal.raise_signal(signal.SIGUSR1)
                os._exit(0)
            _, status = await asyncio.to_thread(os.waitpid, pid, 0)
            assert os.WTERMSIG(status) == signal.SIGUSR1

    asyncio.run(main())


def test_two_apps(caplog: pytest.LogCaptureFixture) -> None:
    """O1: Two apps in one process both tell of themselves."""

    async def one() -> None:
        await asyncio.Event().wait()

    async def two() -> None:
        await asyncio.Event().wait()

    first, second = Starlette(), Starlette()
    install(first, pumps=[Pump(one, name="one")], dump_signal=signal.SIGUSR1)
    install(second, pumps=[Pump(two, name="two")], dump_signal=signal.SIGUSR1)

    async def main() -> None:
        async with AppClient(first):
            async with AppClient(second):
                pass
            async with AppClient(second):
                signal.raise_signal(signal.SIGUSR1)
                await until(lambda: "pump one" in caplog.text and "pump two" in caplog.text)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("number", "error", "message"),
    [
        ("SIGUSR1", TypeError, "such as signal.SIGUSR1 or None, got 'SIGUSR1'"),
        (True, TypeError, "such as signal.SIGUSR1 or None, got True"),
        (0, ValueError, "with no other meaning, such as SIGUSR1, got 0"),
        (
            signal.SIGSEGV,
            ValueError,
            "with no other meaning, such as SIGUSR1, got <Signals.SIGSEGV",
        ),
        (
            signal.SIGTERM,
            ValueError,
            "with no other meaning, such as SIGUSR1, got <Signals.SIGTERM",
        ),
        (
            signal.SIGKILL,
            ValueError,
            "with no other meaning, such as SIGUSR1, got <Signals.SIGKILL",
        ),
    ],
)
def test_bad_signal(number: Any, error: type[Exception], message: str) -> None:
    """O1: A signal that is none, or has another meaning, is an error that names it."""
    with pytest.raises(error, match=f"dump_signal must be a signal.*{re.escape(message)}"):
        install(Starlette(), dump_signal=number)
    with pytest.raises(error, match="dump_signal"):
        TaskGroupMiddleware(Starlette(), dump_signal=number)
