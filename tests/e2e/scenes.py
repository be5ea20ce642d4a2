"""What the handlers of both test apps do, whatever the framework they are written for."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse

from quattro_core import TaskGroup

gate = asyncio.Event()
"""Opened by GET /open, and by SIGUSR1 when no connection is taken any more."""
notes: list[str] = []
groups: list[TaskGroup] = []
visitor: ContextVar[str] = ContextVar("visitor", default="nobody")


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[dict[str, str]]:
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, gate.set)
    print("resource opened")
    yield {"resource": "the resource"}
    print("resource closed")


async def pump(state: dict[str, str]) -> None:
    print("pump started with", state["resource"])
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)
        print("pump ended")


async def hold(tg: TaskGroup) -> str:
    async def child() -> None:
        await gate.wait()
        notes.append("child ended")

    tg.create_task(child())
    notes.append("handler returned")
    return "held"


async def refuse(tg: TaskGroup) -> str:
    async def child() -> None:
        raise HTTPException(403, "not yours", headers={"x-why": "the owner"})

    tg.create_task(child())
    return "never seen"


async def blunder(tg: TaskGroup) -> str:
    async def child() -> None:
        raise ZeroDivisionError("a bug in a child")

    tg.create_task(child())
    return "never seen"


def stream(tg: TaskGroup) -> StreamingResponse:
    """Stream what a child makes: the second chunk when the gate is open."""
    queue: asyncio.Queue[str] = asyncio.Queue()

    async def child() -> None:
        queue.put_nowait("one")
        await gate.wait()
        queue.put_nowait("two")

    async def body() -> AsyncIterator[str]:
        for _ in range(2):
            yield await queue.get()

    tg.create_task(child())
    return StreamingResponse(body())


def cut(tg: TaskGroup, length: int | None) -> StreamingResponse:
    """Stream, and let a child fail when the first chunk has left."""
    sent = asyncio.Event()

    async def child() -> None:
        await sent.wait()
        raise ZeroDivisionError("too late for a status")

    async def body() -> AsyncIterator[str]:
        yield "one"
        sent.set()
        yield "two"  # the child may fail now or then, but before the end of the body

    tg.create_task(child())
    headers = {} if length is None else {"content-length": str(length)}
    return StreamingResponse(body(), headers=headers)


async def visit(tg: TaskGroup, name: str | None) -> str:
    """Tell which group this is, by number, and whose visit a child believes it to be."""
    if name is not None:
        visitor.set(name)

    async def child() -> str:
        return visitor.get()

    if not any(each is tg for each in groups):
        groups.append(tg)
    number = [each is tg for each in groups].index(True)
    return f"group {number}, visitor {await tg.create_task(child())}"


async def work() -> None:
    """Work that is handed over."""
    print("work begun")
    await gate.wait()
    await asyncio.sleep(0)
    print("work done")
