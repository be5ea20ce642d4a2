"""Corners of the request group: who asks, who answers, and what is handled around it."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Message, Receive, Scope, Send

from quattro_web import (
    CancelReason,
    DeadlineExceededError,
    TaskGroupMiddleware,
    cancel_reason,
    install,
    request_task_group,
    set_deadline,
    uninterrupted,
)
from quattro_web.fastapi import RequestTaskGroup
from tests.support.asgi import Exchange, Socket, get, run


def asking(app: Any) -> Any:
    """Middleware that asks for the group before anybody else does."""

    async def ask(scope: Scope, receive: Receive, send: Send) -> None:
        request_task_group(scope)
        await app(scope, receive, send)

    return ask


def test_group_that_a_middleware_has_asked_for() -> None:
    """R3: Children end before the dependencies of a handler also if a middleware had the group."""
    log: list[str] = []

    async def session() -> AsyncIterator[None]:
        yield
        log.append("session closed")

    async def child() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            log.append("child ended")

    app = FastAPI(middleware=[Middleware(TaskGroupMiddleware), Middleware(asking)])

    @app.get("/")
    async def handler(s: Annotated[None, Depends(session)], tg: RequestTaskGroup) -> None:
        tg.create_task(child())
        await asyncio.sleep(0)
        raise ValueError

    run(get(app))
    assert log[:1] == ["child ended"]


def test_app_that_answers_from_an_except_block() -> None:
    """R2: What falls back on another app from an except block is no failure of that other app."""
    log: list[str] = []

    async def child() -> None:
        await asyncio.sleep(1)
        log.append("child")

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        request_task_group(scope).create_task(child())
        await PlainTextResponse("ok")(scope, receive, send)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            raise HTTPException(404)
        except HTTPException:
            await inner(scope, receive, send)

    run(get(TaskGroupMiddleware(app), log=log))
    assert log == ["child", "start 200", "body ok"]


def test_child_that_answers_with_an_error() -> None:
    """R4: A child may run an app that answers a failure of its own: that answer is the answer."""
    inner = Starlette()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request_task_group(scope).create_task(inner(scope, receive, send))

    exchange = run(get(TaskGroupMiddleware(app)))
    assert (exchange.status, exchange.error) == (404, None)


@pytest.mark.parametrize("framework", [FastAPI, Starlette])
@pytest.mark.parametrize("who", ["a middleware", "its child", "its except block"])
def test_handler_is_cancelled_at_once(who: str, framework: type[FastAPI | Starlette]) -> None:
    """R4: Who handles a request is cancelled at once when a child fails, while others clean up,
    whoever else has asked for the group, and where."""

    async def handles() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(asyncio.get_running_loop().time())

    async def cleans_up() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(5)

    async def fails() -> None:
        await asyncio.sleep(2)
        raise HTTPException(418)

    async def asks(scope: Scope) -> None:
        await asyncio.sleep(1)
        request_task_group(scope)

    def begin(scope: Scope) -> None:
        tg = request_task_group(scope)
        tg.create_task(cleans_up())
        tg.create_task(fails())
        if who == "its child":
            tg.create_task(asks(scope))

    def around(app: Any) -> Any:
        async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
            if who != "its except block":
                begin(scope)
            try:
                await app(scope, receive, send)
            except ValueError:
                begin(scope)
                await handles()

        return middleware

    async def endpoint(request: Request) -> Response:
        if who == "its except block":
            raise ValueError
        await handles()
        raise AssertionError

    ended: list[float] = []
    app = framework(middleware=[Middleware(TaskGroupMiddleware), Middleware(around)])
    (app.add_api_route if isinstance(app, FastAPI) else app.add_route)("/", endpoint)
    assert run(get(app)).status == 418
    assert ended == [2]


def test_handler_that_runs_another_app_in_a_task() -> None:
    """R4: It is the handler that is cancelled, and not another app that it runs in a task, with its
    own scope, and that has asked for the group as well."""
    ended: list[str] = []

    async def waits(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    async def fails() -> None:
        await asyncio.sleep(1)
        raise HTTPException(418)

    async def inner(request: Request) -> Response:
        request_task_group(request)
        await waits("other app")
        raise AssertionError

    app, other = FastAPI(), Starlette(routes=[Route("/", inner)])
    install(app)

    @app.get("/")
    async def handler(request: Request, tg: RequestTaskGroup) -> None:
        tg.create_task(fails())
        served = other(request.scope, request.receive, request._send)
        running = asyncio.create_task(served)
        try:
            await waits("handler")
        finally:
            running.cancel()
            await asyncio.wait((running,))

    assert run(get(app)).status == 418
    assert ended == ["handler", "other app"]


def test_read_that_was_given_up_does_not_end_the_watch() -> None:
    """R7: A handler that has given up reading is cancelled when its client leaves."""
    left = asyncio.Event()

    async def receive() -> Message:
        await left.wait()
        return {"type": "http.disconnect"}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        asyncio.get_running_loop().call_later(1, left.set)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(receive(), 0.1)
        await asyncio.sleep(60)

    async def send(message: Message) -> None:
        assert message.get("status") in (499, None)

    async def main() -> float:
        scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        await TaskGroupMiddleware(app, cancel_on_disconnect=True)(scope, receive, send)
        return asyncio.get_running_loop().time()

    assert run(main()) == 1


def sub_app(endpoint: Any, handlers: Any = None) -> Starlette:
    """Return an app with a deadline, and an installed app mounted in it."""
    sub = Starlette(routes=[Route("/", endpoint)], exception_handlers=handlers)
    install(sub)
    app = Starlette(routes=[Mount("/sub", sub)])
    install(app, deadline=5)
    return app


def test_sub_app_keeps_a_section_from_the_outer_deadline() -> None:
    """R8: In an installed sub-app, too, a section is not cut by the deadline of the outer app."""
    seen: list[CancelReason | None] = []

    async def endpoint(request: Request) -> Response:
        with uninterrupted(request):
            await asyncio.sleep(7)
        try:
            await asyncio.sleep(60)
        finally:
            seen.append(cancel_reason(request))
        raise AssertionError

    async def main() -> float:
        assert (await get(sub_app(endpoint), "/sub/")).status == 504
        return asyncio.get_running_loop().time()

    assert run(main()) == 7
    assert seen == [CancelReason.DEADLINE]


def test_sub_app_answers_the_outer_deadline(errors: list[logging.LogRecord]) -> None:
    """R8: An installed sub-app answers the deadline of the outer app with its own exception
    handler, and the log names the children that the sub-app has started."""

    async def endpoint(request: Request) -> Response:
        request_task_group(request).create_task(asyncio.sleep(60), name="the child")
        await asyncio.sleep(60)
        raise AssertionError

    async def handler(request: Request, exc: Exception) -> Response:
        return PlainTextResponse("come back", 504)

    app = sub_app(endpoint, {DeadlineExceededError: handler})
    assert run(get(app, "/sub/")).body == b"come back"
    [record] = errors
    assert "the child (" in record.getMessage()


def test_sub_app_may_lift_the_outer_deadline() -> None:
    """R8: In an installed sub-app, too, a route may have no deadline."""

    async def endpoint(request: Request) -> Response:
        set_deadline(request, None)
        await asyncio.sleep(60)
        return PlainTextResponse("late")

    assert run(get(sub_app(endpoint), "/sub/")).status == 200


def test_exception_handler_that_fails() -> None:
    """R4: What an exception handler raises has the child's error for its context: none is lost."""
    error = ValueError("of the child")

    async def handler(request: Request, exc: Exception) -> Response:
        raise KeyError

    async def child() -> None:
        raise error

    async def endpoint(request: Request) -> Response:
        request_task_group(request).create_task(child())
        return PlainTextResponse("never seen")

    app = Starlette(routes=[Route("/", endpoint)], exception_handlers={ValueError: handler})
    install(app)
    exchange = run(get(app))
    assert isinstance(exchange.error, KeyError)
    assert exchange.error.__context__ is error


def test_failure_that_two_children_share() -> None:
    """R4: A child that awaits another one fails with the same error: that is one failure."""

    async def refuse() -> None:
        raise HTTPException(404)

    async def endpoint(request: Request) -> Response:
        tg = request_task_group(request)

        async def both() -> None:
            await asyncio.gather(tg.create_task(refuse()))

        tg.create_task(both())
        return PlainTextResponse("never seen")

    app = Starlette(routes=[Route("/", endpoint)])
    install(app)
    exchange = run(get(app))
    assert (exchange.status, exchange.error) == (404, None)


def test_sub_app_that_is_reached_late_is_watched() -> None:
    """R7: An installed sub-app that is reached after the watch has begun is watched all the same,
    and no watcher is left."""

    async def endpoint(request: Request) -> Response:
        await asyncio.sleep(60)
        raise AssertionError

    sub = Starlette(routes=[Route("/", endpoint)])
    install(sub)

    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(1)
        await sub(scope, receive, send)

    async def main() -> float:
        app = TaskGroupMiddleware(late, cancel_on_disconnect=True)
        await Exchange(app).disconnect_after(3).run()
        return asyncio.get_running_loop().time()

    assert run(main()) == 3


async def swallow_a_cancel(scope: Scope) -> None:
    request_task_group(scope).cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(1)


@pytest.mark.parametrize("has_started", [False, True])
def test_app_that_swallows_its_own_cancellation(has_started: bool) -> None:
    """R10: An app that cancels its group, and sends no whole response then, is told so by an error:
    its client is not left without an answer."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await swallow_a_cancel(scope)
        if has_started:
            await send({"type": "http.response.start", "status": 200, "headers": []})

    exchange = run(get(TaskGroupMiddleware(app)))
    assert "cancelled before the response was complete" in str(exchange.error)
    assert not exchange.is_complete


def test_group_that_is_cancelled_behind_the_response() -> None:
    """R10: An app that cancels its group when its response is complete has done nothing wrong."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        tg = request_task_group(scope)
        await PlainTextResponse("fine")(scope, receive, send)
        tg.cancel()
        await asyncio.sleep(1)

    exchange = run(get(TaskGroupMiddleware(app)))
    assert (exchange.log, exchange.error) == (["start 200", "body fine"], None)


def test_websocket_whose_client_leaves_before_it_is_accepted() -> None:
    """R6: No HTTP response is sent to a WebSocket whose client has left."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request_task_group(scope).create_task(asyncio.sleep(60))
        await receive()
        await asyncio.sleep(60)

    async def main() -> Socket:
        socket = Socket(TaskGroupMiddleware(app, cancel_on_disconnect=True))
        asyncio.get_running_loop().call_later(1, socket.leave)
        async with asyncio.timeout(30):
            return await socket.run()

    assert run(main()).log == []
