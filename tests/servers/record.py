"""What the app under test writes down, for the test that reads the server's log."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

WATCHER = "quattro_web disconnect watcher"

gates: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(0))
"""What a request waits for, by its key; each GET /open/<key> lets one wait end."""
notices: dict[str, float] = {}


def note(key: str, text: str) -> None:
    """Write a line that tells the request by its key, the last part of its path."""
    print(f"[{key}] {text}", flush=True)


async def wait(key: str) -> None:
    """Wait until a test opens the gate."""
    await gates[key].acquire()


async def hang(key: str, name: str) -> None:
    """Wait for ever, and tell what ended that, and how long after the server's notice."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError as exc:
        note(key, f"{name} cancelled: {exc}")
        if key in notices:
            note(key, f"{name} cancelled {(time.monotonic() - notices[key]) * 1000:.0f} ms late")
        raise
    finally:
        await asyncio.sleep(0)  # a clean-up that a second cancellation would cut
        note(key, f"{name} ended")


async def until_watched() -> None:
    """Wait until the client of this request, the only one at this time, is watched."""
    while all(task.get_name() != WATCHER for task in asyncio.all_tasks()):
        await asyncio.sleep(0.01)


class Record:
    """An ASGI app that notes when a response begins to leave, and how the app below ends.

    The server's `receive` and what its `send` returns reach the app below as they are.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        key = key_of(scope["path"])

        def noting(message: Message) -> Awaitable[None]:
            kind = message["type"]
            if kind in ("http.response.start", "websocket.close"):
                note(key, f"{kind} leaves")
            return send(message)

        try:
            await self.app(scope, receive, noting)
        except BaseException as exc:
            note(key, f"the app raised {type(exc).__name__}")
            raise
        note(key, "the app returned")


class Notices(logging.Handler):
    """Remembers when the package was told that a client has left."""

    def emit(self, record: logging.LogRecord) -> None:
        if "the client has left" in record.getMessage():
            key = key_of(record.getMessage().partition(":")[0])
            notices[key] = time.monotonic()
            note(key, "noticed")


def key_of(path: str) -> str:
    return path.rpartition("/")[2]


def set_up_logging() -> None:
    """Let the log have what the package tells, and the times of its notices."""
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    logging.getLogger("quattro_web").addHandler(Notices())
