"""Responses that nobody sends, and what comes after a response."""

import asyncio

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from quattro_web import TaskGroupMiddleware, install, request_task_group
from tests.request.gated import app_of, ticks
from tests.support.asgi import Exchange, get, run


@pytest.mark.parametrize("spawns", [False, True])
def test_error_after_the_response(spawns: bool) -> None:
    """R4, R10: What a BackgroundTask raises leaves the app as Starlette lets it out, whether the
    request had children or not: too late for an answer."""

    async def fail() -> None:
        raise HTTPException(404)

    async def handler(request: Request) -> Response:
        if spawns:
            request_task_group(request).create_task(asyncio.sleep(0))
        return PlainTextResponse("done", background=BackgroundTask(fail))

    async def plain(request: Request) -> Response:
        return PlainTextResponse("done", background=BackgroundTask(fail))

    without = run(get(Starlette(routes=[Route("/", plain)])))
    app = Starlette(routes=[Route("/", handler)])
    install(app)
    exchange = run(get(app))
    assert (exchange.status, exchange.body) == (200, b"done")
    assert exchange.error is not None
    assert type(exchange.error) is type(without.error)
    assert type(exchange.error.__cause__) is type(without.error.__cause__)


def test_group_that_is_cancelled_last() -> None:
    """R2, C9: A BackgroundTask that cancels the group, which has ended, as the last it does takes
    nothing of that to the server."""

    async def handler(request: Request) -> Response:
        tg = request_task_group(request)
        tg.create_task(asyncio.sleep(0))

        async def cancel() -> None:
            tg.cancel()

        return PlainTextResponse("done", background=BackgroundTask(cancel))

    app = Starlette(routes=[Route("/", handler)])
    install(app)

    async def main() -> None:
        assert (await get(app)).body == b"done"
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()
        await asyncio.sleep(0)

    run(main())


def test_handler_that_sends_nothing() -> None:
    """R2, R10: An app that sends no response ends after its children; nothing is made up for it."""
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request_task_group(scope).create_task(ticks(log, "child"))

    exchange = run(get(TaskGroupMiddleware(app), log=log))
    assert log == ["child"]
    assert exchange.error is None


def test_start_without_a_body_reaches_the_server() -> None:
    """R10: A response that was begun and not ended is the server's to complain about."""
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request_task_group(scope).create_task(ticks(log, "child"))
        await send({"type": "http.response.start", "status": 200, "headers": []})

    run(get(TaskGroupMiddleware(app), log=log))
    assert log == ["child", "start 200"]


def test_spawning_after_the_end_is_an_error() -> None:
    """R2: A BackgroundTask runs after the response: asking and spawning are clear errors there."""
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        tg = request_task_group(request)

        async def late() -> None:
            for spawn in (tg.create_task, tg.create_background_task):
                with pytest.raises(RuntimeError, match=r"is finished: .*app_task_group\(conn\)"):
                    spawn(ticks(log, "never"))
            log.append("refused")

        return PlainTextResponse("ok", background=BackgroundTask(late))

    async def other(request: Request) -> Response:
        async def late() -> None:
            with pytest.raises(RuntimeError, match="app_task_group"):
                request_task_group(request)
            log.append("refused")

        return PlainTextResponse("ok", background=BackgroundTask(late))

    for each in (endpoint, other):
        run(get(app_of(each), log=log))
        assert log == ["start 200", "body ok", "refused"]
        log.clear()


def test_group_of_another_request_is_untouched() -> None:
    """R2: Waiting for the children of one request does not hold another one back."""
    log: list[str] = []
    released = asyncio.Event()

    async def endpoint(request: Request) -> Response:
        if request.url.query:
            request_task_group(request).create_task(released.wait())
        return PlainTextResponse(request.url.query or "quick")

    async def main() -> None:
        app = app_of(endpoint)
        slow = asyncio.create_task(Exchange(app, "/?slow", log=log).run())
        await asyncio.sleep(0)
        await get(app, log=log)
        released.set()
        await slow

    run(main())
    assert log == ["start 200", "body quick", "start 200", "body slow"]
