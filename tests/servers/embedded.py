"""Servers that a program runs, and stops without a signal: at a SIGUSR1, which none of them knows.

`python -m tests.servers.embedded NAME` runs one.
"""

import asyncio
import signal
import sys
import threading
from collections.abc import Callable

import uvicorn

from quattro_web import begin_shutdown
from tests.servers.lifetime import app, say
from tests.support.server import free_port


def stop_with(stop: Callable[[], object]) -> None:
    signal.signal(signal.SIGUSR1, lambda *_: stop())


def uvicorn_server() -> uvicorn.Server:
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0))
    stop_with(lambda: setattr(server, "should_exit", True))
    return server


def in_main_thread() -> None:
    """As behind a button that restarts the server."""
    uvicorn_server().run()


def in_thread() -> None:
    """As in a larger program, or in tests of one."""
    thread = threading.Thread(target=uvicorn_server().run)
    thread.start()
    thread.join()


def announced() -> None:
    """A program that says that its server will stop, in a signal handler, and forgets to do it."""
    server = uvicorn_server()
    stop_with(lambda: begin_shutdown(app))
    server.run()


async def with_a_trigger() -> None:
    """hypercorn, with an event of the program's."""
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    config = Config.from_mapping(bind=["127.0.0.1:0"])
    stopped, loop = asyncio.Event(), asyncio.get_running_loop()
    stop_with(lambda: loop.call_soon_threadsafe(stopped.set))
    await serve(app, config, shutdown_trigger=stopped.wait)  # type: ignore[arg-type]


async def with_a_method() -> None:
    """granian, by a method of its server."""
    from granian.constants import Interfaces
    from granian.server.embed import Server

    server = Server(app, port=free_port(), interface=Interfaces.ASGI)
    loop = asyncio.get_running_loop()
    stop_with(lambda: loop.call_soon_threadsafe(server.stop))
    await server.serve()


PROGRAMS: dict[str, Callable[[], object]] = {
    "uvicorn": in_main_thread,
    "uvicorn-thread": in_thread,
    "hypercorn": lambda: asyncio.run(with_a_trigger()),
    "granian": lambda: asyncio.run(with_a_method()),
}
ANNOUNCED = {**PROGRAMS, "uvicorn-announced": announced}

if __name__ == "__main__":
    ANNOUNCED[sys.argv[1]]()
    say("program goes on")
