"""Requests in process: the ASGI app called directly, one request after the other."""

from __future__ import annotations

import asyncio
import gc
import importlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.types import ASGIApp, Message

from benchmarks.measure import Samples, turn
from benchmarks.size import Size
from benchmarks.web_variants import all_variants

SCOPE = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "path": "/",
    "raw_path": b"/",
    "root_path": "",
    "query_string": b"",
    "client": ("127.0.0.1", 40000),
    "server": ("127.0.0.1", 8000),
}
HEADERS = [(b"host", b"127.0.0.1:8000"), (b"user-agent", b"benchmark"), (b"accept", b"*/*")]


class Exchange:
    """What a server hands to an app for one request after the other."""

    def __init__(self, path: str = "/", query: bytes = b"") -> None:
        self._scope = {**SCOPE, "path": path, "raw_path": path.encode(), "query_string": query}
        self._unread = True
        self.sent: list[Message] = []

    async def run(self, app: ASGIApp) -> None:
        """Make a request, and see that it is answered."""
        self._unread = True
        self.sent.clear()
        scope = {**self._scope, "headers": list(HEADERS), "state": {}}
        await app(scope, self._receive, self._send)
        if self.sent[0]["status"] != 200 or self.sent[-1].get("more_body"):
            msg = f"not a complete answer: {self.sent}"
            raise AssertionError(msg)

    async def _receive(self) -> Message:
        # As in a server: the body comes once, and then nothing does before the response has ended.
        if self._unread:
            self._unread = False
            return {"type": "http.request", "body": b"", "more_body": False}
        await asyncio.Event().wait()
        raise AssertionError

    async def _send(self, message: Message) -> None:
        self.sent.append(message)


async def requests(app: ASGIApp, count: int) -> None:
    """Make *count* requests, one after the other."""
    exchange = Exchange()
    for _ in range(count):
        await exchange.run(app)


@asynccontextmanager
async def started(app: ASGIApp) -> AsyncIterator[None]:
    """Run the lifespan of *app* around the block, as a server does."""
    inbox: asyncio.Queue[Message] = asyncio.Queue()
    outbox: asyncio.Queue[Message] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": SCOPE["asgi"], "state": {}}

    async def run() -> None:
        await app(scope, inbox.get, outbox.put)

    lifespan = asyncio.create_task(run())
    for half in ("startup", "shutdown"):
        inbox.put_nowait({"type": f"lifespan.{half}"})
        message = await outbox.get()
        assert message["type"] == f"lifespan.{half}.complete", message
        if half == "startup":
            yield
    await lifespan


def loop_factory(*, uvloop: bool) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if not uvloop:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop]
    factory = importlib.import_module("uvloop").new_event_loop
    return factory


def timed(size: Size) -> Samples:
    """Return microseconds of CPU for a request, one of each variant per round."""
    apps = {variant.name: variant.make() for variant in all_variants()}
    samples: Samples = {name: [] for name in apps}

    async def warm(app: ASGIApp) -> None:
        async with started(app):
            await requests(app, size.warm_up)

    async def measured(name: str) -> None:
        app = apps[name]
        async with started(app):
            begin = time.process_time()
            await requests(app, size.timed)
            samples[name].append((time.process_time() - begin) / size.timed * 1e6)

    with asyncio.Runner(loop_factory=loop_factory(uvloop=size.uvloop)) as runner:
        for app in apps.values():
            runner.run(warm(app))
        gc.collect()
        gc.freeze()
        try:
            for number in size.rounds(70):
                for name in turn(list(apps), number):
                    runner.run(measured(name))
        finally:
            gc.unfreeze()
    return samples
