"""Requests whose handler has had a cancellation before, which was taken back or is to come out."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated

import pytest
from anyio import from_thread
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from quattro_core import TaskGroup
from quattro_web import cancel_on_disconnect, install, request_task_group, set_deadline
from quattro_web._util.scope import REQUEST
from tests.support.asgi import Exchange, run

Leave = Callable[[], Awaitable[None]]


async def fail() -> None:
    await asyncio.sleep(1)
    raise HTTPException(418)


async def by_group_of_asyncio() -> None:
    """Catch the failure of a child: before 3.13 the group leaves its cancellation uncounted."""

    async def child() -> None:
        await asyncio.sleep(0)
        raise ValueError

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(child())
    except* ValueError:
        pass


async def by_swallowing() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        pass


async def handle(request: Request, leave: Leave, what: str, *, awaits: bool) -> None:
    """Be a handler that leaves such a cancellation, before it ends in a second."""
    group = request_task_group(request)
    cancel_on_disconnect(request)
    await leave()
    if what == "failure":
        group.create_task(fail())
    elif what == "failure in a group":
        async with TaskGroup() as inner:
            inner.create_task(fail())
    elif what == "deadline":
        set_deadline(request, 1)
    elif what == "disconnect":
        request.scope["exchange"].disconnect_after(1)
    else:
        end = request.scope[REQUEST].cut_off
        asyncio.get_running_loop().call_later(1, end, request)
    await (group.create_task(asyncio.sleep(3600)) if awaits else asyncio.sleep(3600))


STATUS = {
    "failure": 418,
    "failure in a group": 418,
    "deadline": 504,
    "disconnect": 499,
    "shutdown": 503,
}


@pytest.mark.parametrize("kind", ["fastapi", "starlette"])
@pytest.mark.parametrize("awaits", [False, True])
@pytest.mark.parametrize("leave", [by_group_of_asyncio, by_swallowing])
@pytest.mark.parametrize("what", STATUS)
def test_cancellation_that_was_seen_before(
    what: str, leave: Leave, awaits: bool, kind: str
) -> None:
    """R4, R7, R8: A cancellation that the handler has had and answered for, as `asyncio.TaskGroup`
    leaves one on 3.11 and 3.12, keeps no request from its answer."""
    if what == "failure in a group" and leave is by_swallowing:
        pytest.skip("asyncio.TaskGroup passes it on as well")

    async def session() -> AsyncIterator[None]:
        yield
        await asyncio.sleep(0.1)
        log.append("closed")

    async def endpoint(request: Request) -> Response:
        await handle(request, leave, what, awaits=awaits)
        return PlainTextResponse("not reached")

    async def answer(request: Request, exc: Exception) -> Response:
        await asyncio.sleep(0.1)
        assert isinstance(exc, HTTPException)
        return PlainTextResponse(status_code=exc.status_code)

    log: list[str] = []
    app = Starlette(routes=[Route("/", endpoint)], exception_handlers={HTTPException: answer})
    if kind == "fastapi":
        app = FastAPI(exception_handlers={HTTPException: answer})

        @app.get("/")
        async def _(request: Request, _: Annotated[None, Depends(session)]) -> None:
            try:
                await handle(request, leave, what, awaits=awaits)
            finally:
                log.append("handled")

    install(app)
    exchange = Exchange(app)
    exchange.scope["exchange"] = exchange
    run(exchange.run())
    assert (exchange.status, exchange.error) == (STATUS[what], None)
    assert log in ([], ["handled"], ["handled", "closed"])


async def cleans_up(tg: TaskGroup) -> None:
    tg.create_task(fails_after_turns())
    try:
        await asyncio.sleep(3600)
    finally:
        for _ in range(10):
            await asyncio.sleep(0)


async def gathers(tg: TaskGroup) -> None:
    await tg.gather(fails_after_turns(), asyncio.sleep(3600))


async def fails_after_turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)
    raise HTTPException(418)


@pytest.mark.parametrize("turns", range(15))
@pytest.mark.parametrize("way", [cleans_up, gathers])
@pytest.mark.parametrize("make", [Starlette, FastAPI])
def test_cancellation_that_has_not_come_out(
    make: type[Starlette], way: Callable[[TaskGroup], Awaitable[None]], turns: int
) -> None:
    """C10, R4: A cancellation from outside is not lost if a child fails in the same turn, or while
    the handler cleans up: if the failure is answered, the next await raises the cancellation."""

    async def endpoint(request: Request) -> Response:
        await way(request_task_group(request))
        raise AssertionError

    app = make()
    (app.add_api_route if isinstance(app, FastAPI) else app.add_route)("/", endpoint)
    install(app)

    async def serve() -> None:
        await Exchange(app).run()
        await asyncio.sleep(1)

    async def main() -> None:
        task = asyncio.create_task(serve())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())


def test_group_that_is_cancelled_after_its_end() -> None:
    """R3, R4: `cancel` does nothing when the children have ended: it does not cut the answer."""

    async def endpoint(request: Request) -> Response:
        group = request_task_group(request)
        asyncio.get_running_loop().call_later(1.5, group.cancel)
        await group.create_task(fail())
        raise AssertionError

    async def answer(request: Request, exc: Exception) -> Response:
        await asyncio.sleep(1)
        return PlainTextResponse(status_code=418)

    app = Starlette(routes=[Route("/", endpoint)], exception_handlers={HTTPException: answer})
    install(app)
    exchange = Exchange(app)
    run(exchange.run())
    assert (exchange.status, exchange.error) == (418, None)


def test_group_that_is_cancelled_while_a_thread_works() -> None:
    """R4, C9: A handler that waits for a child in a thread, when the app cancels the group, is
    answered with a 500 like any other."""

    async def endpoint(request: Request) -> Response:
        group = request_task_group(request)
        call = run_in_threadpool(lambda: from_thread.run_sync(group.cancel))
        await group.create_task(call)
        raise AssertionError

    app = Starlette(routes=[Route("/", endpoint)])
    install(app)
    exchange = Exchange(app)
    run(exchange.run())
    assert exchange.status == 500
    assert "the request's task group was cancelled" in str(exchange.error)
