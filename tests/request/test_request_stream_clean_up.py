"""The clean-up of the body of a stream that has seen the end of what it waits for."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import anyio
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from quattro_core import TaskGroup
from quattro_web import cancel_on_disconnect, install, request_task_group, set_deadline
from quattro_web._util.scope import REQUEST
from tests.support.asgi import Exchange, run


async def work(_: object = None) -> None:
    await asyncio.sleep(3600)


async def fail() -> None:
    await asyncio.sleep(1)
    raise ZeroDivisionError


async def child(tg: TaskGroup) -> None:
    await tg.create_task(work())


async def gather(tg: TaskGroup) -> None:
    await tg.gather(work(), work())


async def gather_of_asyncio(tg: TaskGroup) -> None:
    await asyncio.gather(tg.create_task(work()), tg.create_task(work()))


async def map_of_group(tg: TaskGroup) -> None:
    async for _ in tg.map(work, range(9), limit=2):
        raise AssertionError


async def wait_for(tg: TaskGroup) -> None:
    await asyncio.wait_for(tg.create_task(work()), 7200)


async def shield(tg: TaskGroup) -> None:
    await asyncio.shield(tg.create_task(work()))


async def wait_for_any(tg: TaskGroup) -> None:
    [task], _ = await asyncio.wait({tg.create_task(work())})
    task.result()


async def wait_with_timeout(tg: TaskGroup) -> None:
    await asyncio.wait({tg.create_task(work())}, timeout=7200)


async def as_completed(tg: TaskGroup) -> None:
    for each in asyncio.as_completed([tg.create_task(work())]):
        await each


async def inner_group(tg: TaskGroup) -> None:
    async with asyncio.TaskGroup() as inner:
        inner.create_task(child(tg))


async def inner_group_of_ours(tg: TaskGroup) -> None:
    async with TaskGroup() as inner:
        inner.create_task(child(tg))


async def inner_group_of_anyio(tg: TaskGroup) -> None:
    async with anyio.create_task_group() as inner:
        inner.start_soon(child, tg)


async def another_task(tg: TaskGroup) -> None:
    await asyncio.create_task(child(tg))


WAYS = [
    child,
    gather,
    gather_of_asyncio,
    map_of_group,
    wait_for,
    shield,
    wait_for_any,
    wait_with_timeout,
    as_completed,
    inner_group,
    inner_group_of_ours,
    inner_group_of_anyio,
    another_task,
]


Wait = Callable[[TaskGroup], Coroutine[Any, Any, None]]


@pytest.mark.parametrize("make", [Starlette, FastAPI])
@pytest.mark.parametrize("is_watched", [False, True])
@pytest.mark.parametrize("why", ["failure", "deadline", "disconnect", "shutdown"])
@pytest.mark.parametrize("wait", WAYS)
def test_body_that_waits_for_children(
    wait: Wait, why: str, is_watched: bool, make: type[Starlette]
) -> None:
    """R3, R7, R8: The body of a stream that sees that the children for which it waits are cancelled
    cleans up, and is not cancelled a second time meanwhile."""
    log: list[str] = []

    async def body(request: Request) -> AsyncIterator[bytes]:
        tg = request_task_group(request)
        yield b"begun"
        if why == "failure":
            tg.create_task(fail())
        elif why == "deadline":
            set_deadline(request, 1, stream=1)
        elif why == "disconnect":
            exchange.disconnect_after(1)
        else:
            end = request.scope[REQUEST].cut_off
            asyncio.get_running_loop().call_later(1, end, request)
        try:
            await wait(tg)
            await work()  # a group does not pass on that a child was cancelled
        finally:
            await asyncio.sleep(0.5)
            log.append("cleaned up")

    async def endpoint(request: Request) -> Response:
        if is_watched:
            cancel_on_disconnect(request)
        return StreamingResponse(body(request))

    app = make()
    app.add_route("/", endpoint)
    if isinstance(app, FastAPI):
        app.get("/fastapi")(endpoint)
    install(app)
    exchange = Exchange(app, "/fastapi" if make is FastAPI else "/")
    run(exchange.run())
    assert log == ["cleaned up"]
    assert not exchange.is_complete
