"""The time that is left until the deadline of a request, for the timeouts of what it calls."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.background import BackgroundTask, BackgroundTasks
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from quattro_web import (
    NoTaskGroupError,
    cancel_on_disconnect,
    install,
    request_task_group,
    set_deadline,
    time_left,
    uninterrupted,
)
from quattro_web._request.watch import time_left_here
from quattro_web.fastapi import Deadline
from tests.request.timed import app_of, timed
from tests.support.asgi import get, run


def test_time_left_runs() -> None:
    """R8: It is the time until the deadline, as it passes; in children as well."""
    seen: list[float | None] = []

    async def child(request: Request) -> None:
        seen.append(time_left(request))

    async def endpoint(request: Request) -> Response:
        seen.append(time_left(request))
        await asyncio.sleep(2)
        seen.append(time_left(request.scope))
        await request_task_group(request).create_task(child(request))
        set_deadline(request, 10)
        seen.append(time_left(request))
        return PlainTextResponse("ok")

    assert run(get(app_of(endpoint, deadline=5))).status == 200
    assert seen == [5, 3, 3, 10]


def test_timeout_of_what_is_called() -> None:
    """R8: A timeout of that length ends what hangs, and the handler may still answer."""

    async def endpoint(request: Request) -> Response:
        left = time_left(request)
        assert left is not None
        try:
            async with asyncio.timeout(left - 1):
                await asyncio.sleep(60)
        except TimeoutError:
            return PlainTextResponse("without it")
        raise AssertionError

    exchange, seconds = run(timed(app_of(endpoint, deadline=5)))
    assert (exchange.body, seconds) == (b"without it", 4)


def test_request_without_a_deadline() -> None:
    """R8: Where there is no deadline, no time is left nor missing: it is None, as for a timeout."""
    seen: list[float | None] = []

    async def endpoint(request: Request) -> Response:
        seen.append(time_left(request))
        cancel_on_disconnect(request)
        seen.append(time_left(request))
        set_deadline(request, 5)
        set_deadline(request, None)
        async with asyncio.timeout(time_left(request)):
            seen.append(time_left(request))
        return PlainTextResponse("ok")

    assert run(get(app_of(endpoint))).status == 200
    assert seen == [None] * 3


def test_deadline_that_has_passed() -> None:
    """R8: It is never negative: the clean-up of what was cancelled has no time left."""
    seen: list[float | None] = []

    async def handler(request: Request, exc: Exception) -> Response:
        seen.append(time_left(request))
        return PlainTextResponse("late", 504)

    async def endpoint(request: Request) -> Response:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(1)
            seen.append(time_left(request))
        raise AssertionError

    assert run(get(app_of(endpoint, deadline=5, handlers={504: handler}))).body == b"late"
    assert seen == [0.0, None]


@pytest.mark.parametrize(("stream", "then"), [(None, [None, None]), (9, [8, 6])])
def test_stream_that_has_begun(stream: float | None, then: list[float | None]) -> None:
    """R8: When a stream has begun, it is the time until the whole stream has to be complete."""
    seen: list[float | None] = []

    async def endpoint(request: Request) -> Response:
        async def chunks() -> AsyncIterator[str]:
            yield "one"
            seen.append(time_left(request))
            await asyncio.sleep(2)
            seen.append(time_left(request))

        set_deadline(request, 2, stream=stream)
        await asyncio.sleep(1)
        seen.append(time_left(request))
        return StreamingResponse(chunks())

    assert run(get(app_of(endpoint))).is_complete
    assert seen == [1, *then]


def test_response_that_is_complete() -> None:
    """R8: BackgroundTasks have no deadline: nothing cancels them; nor does what has ended."""
    seen: list[float | None] = []
    scopes: list[Any] = []

    async def endpoint(request: Request) -> Response:
        async def later() -> None:
            seen.append(time_left(request))

        scopes.append(request.scope)
        tasks = BackgroundTasks()
        tasks.add_task(later)
        return PlainTextResponse("ok", background=tasks)

    run(get(app_of(endpoint, deadline=5, stream_deadline=9)))
    assert [*seen, time_left(scopes[0])] == [None, None]


@pytest.mark.parametrize(("own", "left"), [({}, 5), ({"deadline": 9}, 9), ({"deadline": 3}, 3)])
def test_sub_app(own: dict[str, Any], left: float) -> None:
    """R8: In a sub-app it is that of the app around it, if there is no nearer one."""
    seen: list[float | None] = []

    async def endpoint(request: Request) -> Response:
        cancel_on_disconnect(request)
        seen.append(time_left(request))
        return PlainTextResponse("ok")

    routes = [Mount("/plain", Starlette(routes=[Route("/", endpoint)]))]
    app = Starlette(routes=[*routes, Mount("/own", app_of(endpoint, **own))])
    install(app, deadline=5)
    run(get(app, "/plain/"))
    run(get(app, "/own/"))
    assert seen == [5, left]


def test_thread() -> None:
    """R8, R12: A def handler in a thread may ask as well."""
    seen: list[bool] = []
    app = FastAPI()

    @app.get("/", dependencies=[Deadline(3600)])
    def handler(request: Request) -> None:
        left = time_left(request)
        seen.append(left is not None and 0 < left <= 3600)

    install(app)
    assert asyncio.run(get(app)).status == 200  # a virtual clock would jump while the thread works
    assert seen == [True]


def test_app_that_is_not_installed() -> None:
    """R12: Without the middleware there is an error that names the call, and no endless timeout."""
    with pytest.raises(NoTaskGroupError, match=r"call quattro_web\.install"):
        time_left({"type": "http"})


def test_what_is_called_without_the_request() -> None:
    """D1: What is called in a handler or in a child may take the time that its request has left;
    where the deadline would not end it, there is no such time."""
    seen: list[float | None] = []

    async def child(request: Request) -> None:
        await asyncio.sleep(1)
        seen.append(time_left_here())
        with uninterrupted(request):
            seen.append(time_left_here())
        seen.append(time_left_here())

    async def endpoint(request: Request) -> Response:
        async def later() -> None:
            seen.append(time_left_here())

        seen.append(time_left_here())
        set_deadline(request, 5)
        await request_task_group(request).create_task(child(request))
        set_deadline(request, None)
        seen.append(time_left_here())
        set_deadline(request, 2, stream=9)
        return PlainTextResponse("ok", background=BackgroundTask(later))

    assert run(get(app_of(endpoint))).status == 200
    assert seen == [None, 4, None, 4, None, None]


def test_what_goes_on_after_a_request_that_has_failed() -> None:
    """D1: A task that outlives its request has none of its time left."""
    seen: list[float | None] = []
    ended = asyncio.Event()

    async def outlives() -> None:
        seen.append(time_left_here())
        await ended.wait()
        seen.append(time_left_here())

    async def endpoint(request: Request) -> Response:
        set_deadline(request, 5)
        tasks.append(asyncio.create_task(outlives()))
        await asyncio.sleep(1)
        raise ZeroDivisionError

    tasks: list[asyncio.Task[None]] = []

    async def main() -> BaseException | None:
        error = (await get(app_of(endpoint))).error
        ended.set()
        await asyncio.wait(tasks)
        return error

    assert isinstance(run(main()), ZeroDivisionError)
    assert seen == [5, None]
