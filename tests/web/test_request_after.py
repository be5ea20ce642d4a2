"""Responses that a child sends, that nobody sends, and what comes after them."""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from quattro_web import TaskGroupMiddleware, install, request_task_group
from tests.support.asgi import Exchange, get, run
from tests.web.gated import app_of, ticks


def test_child_that_sends_the_response() -> None:
    """R2: A child may send the response itself: its end waits for the child and the others."""
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def respond() -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"ok"})
            await ticks(log, "response sent")

        tg = request_task_group(scope)
        tg.create_task(respond())
        tg.create_task(ticks(log, "other", 9))

    run(get(TaskGroupMiddleware(app), log=log))
    assert log == ["response sent", "other", "start 200", "body ok"]


def test_app_that_answers_for_another_one() -> None:
    """R2, R4: An app that answers for the failed one around it is not done for by that:
    its own children are awaited, though an exception is being handled as it sends its response."""
    log: list[str] = []

    async def handler(request: Request) -> Response:
        request_task_group(request).create_task(ticks(log, "child"))
        return PlainTextResponse("instead")

    fallback = TaskGroupMiddleware(Starlette(routes=[Route("/", handler)]))

    async def answer(_: Request, __: Exception) -> ASGIApp:
        return fallback

    handlers: Any = {404: answer}
    run(get(Starlette(exception_handlers=handlers), log=log))
    assert log == ["child", "start 200", "body instead"]


@pytest.mark.parametrize("delay", [0, 5])
def test_child_whose_tasks_send_the_response(delay: float) -> None:
    """R2: A child may send a StreamingResponse, which sends it in a task of its own: its end waits
    for the child, and the child does not wait for it, whichever of handler and stream ends first.
    """
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def pieces() -> AsyncIterator[str]:
            yield "one"
            await asyncio.sleep(1)
            yield "two"

        async def respond() -> None:
            await StreamingResponse(pieces())(scope, receive, send)
            await ticks(log, "child")

        request_task_group(scope).create_task(respond())
        await asyncio.sleep(delay)
        log.append("handler")

    run(get(TaskGroupMiddleware(app), log=log))
    log.remove("handler")
    assert log == ["start 200", "chunk one", "chunk two", "child", "body"]


def test_answer_that_is_cancelled_from_outside() -> None:
    """R4: A server that cancels a request while its failure is answered cancels it."""

    async def answer(request: Request, exc: Exception) -> Response:
        return await asyncio.sleep(3600, PlainTextResponse("never seen"))

    async def endpoint(request: Request) -> Response:
        async def fail() -> None:
            raise ZeroDivisionError

        request_task_group(request).create_task(fail())
        return PlainTextResponse("never seen")

    app = app_of(endpoint)
    app.add_exception_handler(ZeroDivisionError, answer)

    async def main() -> Exchange:
        exchange = Exchange(app)
        serving = asyncio.create_task(exchange.run())
        await asyncio.sleep(1)
        serving.cancel("the server")
        with pytest.raises(asyncio.CancelledError, match="the server"):
            await serving
        return exchange

    assert run(main()).sent == []


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_eager_child_that_sends_the_response() -> None:
    """R2, C10: So may an eager one, in its first step."""
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def respond() -> None:
            await PlainTextResponse("ok")(scope, receive, send)
            log.append("response sent")

        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
        tg = request_task_group(scope)
        tg.create_task(ticks(log, "other", 9))
        await tg.create_task(respond())

    run(get(TaskGroupMiddleware(app), log=log))
    assert log == ["response sent", "other", "start 200", "body ok"]


def test_app_that_answers_for_a_handler() -> None:
    """R3, R4: A handler that has raised does not wait for its children, also where an app with a
    middleware of its own answers for it."""
    log: list[str] = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            log.append("child")

    async def handler(request: Request) -> Response:
        request_task_group(request).create_task(forever())
        await asyncio.sleep(0)
        raise HTTPException(404)

    async def answer(_: Request, __: Exception) -> ASGIApp:
        return TaskGroupMiddleware(PlainTextResponse("instead", 404))

    handlers: Any = {404: answer}
    app = Starlette(routes=[Route("/", handler)], exception_handlers=handlers)
    install(app)
    run(get(app, log=log))
    assert log == ["child", "start 404", "body instead"]


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

    app = Starlette(routes=[Route("/", handler)])
    install(app)
    exchange = run(get(app))
    assert (exchange.status, exchange.body) == (200, b"done")
    assert isinstance(exchange.error, RuntimeError)
    assert isinstance(exchange.error.__cause__, HTTPException)


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
