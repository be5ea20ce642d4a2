"""The README's apps, served in process, lifespan included, on a virtual clock."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from starlette.types import ASGIApp, Message

from tests.support.clock import VirtualClockLoop

T = TypeVar("T")


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a test; tasks that are left at its end are cancelled, as a server's last act."""
    with asyncio.Runner(loop_factory=VirtualClockLoop, debug=True) as runner:
        return runner.run(main())


@asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[None]:
    """Start the app up, as a server does, and shut it down after the block."""
    inbox: asyncio.Queue[Message] = asyncio.Queue()
    outbox: asyncio.Queue[Message] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    async with asyncio.TaskGroup() as tg:
        tg.create_task(app(scope, inbox.get, outbox.put))  # type: ignore[arg-type]
        inbox.put_nowait({"type": "lifespan.startup"})
        assert (await outbox.get())["type"] == "lifespan.startup.complete"
        yield
        inbox.put_nowait({"type": "lifespan.shutdown"})
        assert (await outbox.get())["type"] == "lifespan.shutdown.complete"
