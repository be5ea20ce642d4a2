"""The end of a request that meets something else: its client, a cancellation, a failure again."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from quattro_web import (
    CancelReason,
    TaskGroupMiddleware,
    cancel_on_disconnect,
    cancel_reason,
    install,
    request_task_group,
    set_deadline,
)
from quattro_web._util.scope import REQUEST
from quattro_web.fastapi import RequestTaskGroup
from tests.request.failing import Teapot, answer
from tests.request.gated import ticks
from tests.support.asgi import Exchange, Socket, get, run

ends = pytest.mark.parametrize("make", [Starlette, FastAPI])


async def forever() -> None:
    await asyncio.Event().wait()


class Scene:
    """A FastAPI app with a handler whose dependency notes what it sees.

    Args:
        scope: When the dependency closes.
    """

    def __init__(self, scope: Any = "request") -> None:
        self.log: list[str] = []
        self.app = FastAPI()
        self.session = Depends(self._session, scope=scope)

    async def _session(self) -> AsyncIterator[None]:
        try:
            yield
        except BaseException as exc:
            self.log.append(type(exc).__name__)
            raise
        finally:
            await asyncio.sleep(1)
            self.log.append("closed")


def test_client_that_leaves_while_its_response_waits() -> None:
    """R7: A client that leaves while the response waits for children cancels them, which is no
    failure: the dependencies are told that the client has left."""
    scene = Scene()

    @scene.app.get("/", dependencies=[scene.session])
    async def handler(request: Request, tg: RequestTaskGroup) -> None:
        cancel_on_disconnect(request)
        tg.create_task(forever())

    install(scene.app)

    async def main() -> Exchange:
        return await Exchange(scene.app).disconnect_after(1).run()

    assert run(main()).error is None
    assert scene.log == [ClientDisconnect.__name__, "closed"]


@pytest.mark.parametrize("fails", [True, False])
def test_request_that_is_cancelled_while_its_dependencies_close(*, fails: bool) -> None:
    """R3, C10: A cancellation from outside that meets the dependencies of a handler as they close
    goes on as what it is, whatever the handler has raised."""
    scene = Scene("function")

    @scene.app.get("/", dependencies=[scene.session])
    async def handler(tg: RequestTaskGroup) -> None:
        tg.create_task(forever())
        if fails:
            raise HTTPException(418)
        tg.cancel()
        await forever()

    install(scene.app)

    async def main() -> None:
        exchange = Exchange(scene.app, log=scene.log)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await exchange.run()

    run(main())
    assert scene.log == ["HTTPException" if fails else "RuntimeError"]


@pytest.mark.parametrize("returns", [True, False])
def test_websocket_that_is_closed_by_a_child_at_a_shutdown(*, returns: bool) -> None:
    """R6, A6: The shutdown cancels the children of a WebSocket that one of them has closed, and the
    handler if it goes on; which is no failure of it."""
    reasons: list[CancelReason | None] = []

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        tg = request_task_group(websocket)
        tg.create_task(websocket.close(4000))
        tg.create_task(forever())
        cut_off_in_a_second(websocket)
        try:
            await (asyncio.sleep(0.5) if returns else forever())
        finally:
            reasons.append(cancel_reason(websocket))

    async def main() -> float:
        await socket.run()
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()
        return asyncio.get_running_loop().time()

    app = Starlette(routes=[WebSocketRoute("/", endpoint)])
    install(app)
    socket = Socket(app)
    assert run(main()) == 1
    assert reasons == [None if returns else CancelReason.SHUTDOWN]
    assert (socket.log, socket.error) == (["accept", "close 4000"], None)


START = {"type": "http.response.start", "status": 200, "headers": []}
PIECE = {"type": "http.response.body", "body": b"piece", "more_body": True}


@pytest.mark.parametrize("again", [START, PIECE])
def test_response_that_goes_on_after_a_failure(again: Message) -> None:
    """R4, R5: A response that goes on to send when a child has failed is cut, its body is closed,
    and then the dependencies see the failure itself."""
    scene = Scene()

    async def body() -> AsyncIterator[Message]:
        try:
            yield PIECE
            raise AssertionError
        finally:
            scene.log.append("body closed")

    class Stubborn(Response):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            self.body_iterator = body()
            await send(START)
            await send(await anext(self.body_iterator))
            try:
                await send({"type": "http.response.body", "body": b""})
            except ZeroDivisionError:
                await send(again)

    async def child() -> None:
        await asyncio.sleep(1)
        raise ZeroDivisionError

    @scene.app.get("/", dependencies=[scene.session])
    async def handler(tg: RequestTaskGroup) -> Response:
        tg.create_task(child())
        return Stubborn()

    install(scene.app)
    exchange = run(get(scene.app, log=scene.log))
    assert scene.log == [
        "start 200",
        "chunk piece",
        "body closed",
        "ZeroDivisionError",
        "closed",
        "raised ZeroDivisionError",
    ]
    assert isinstance(exchange.error, ZeroDivisionError)


@ends
@pytest.mark.parametrize("is_handled", [True, False])
def test_handler_that_raises_what_a_child_has_failed_with(
    make: type[Starlette], errors: list[logging.LogRecord], *, is_handled: bool
) -> None:
    """R4: A handler that raises the very error of a child is one failure, and not two, of which an
    exception handler for groups would be told."""

    async def child() -> None:
        await asyncio.sleep(1)
        raise Teapot

    async def endpoint(request: Request) -> Response:
        task = request_task_group(request).create_task(child())
        try:
            await forever()
        except asyncio.CancelledError:
            error = task.exception()
            assert error is not None
            raise error from None
        raise AssertionError

    handlers = {Teapot: answer("teapot"), ExceptionGroup: answer("group")}
    app = make(exception_handlers=handlers if is_handled else {})
    (app.add_api_route if isinstance(app, FastAPI) else app.add_route)("/", endpoint)
    install(app)
    exchange = run(get(app))
    assert exchange.body == (b"teapot: Teapot()" if is_handled else b"Internal Server Error")
    assert type(exchange.error) is (type(None) if is_handled else Teapot)
    assert errors == []


async def passes(request: Request, call_next: Any) -> Response:
    response: Response = await call_next(request)
    return response


def test_middleware_of_a_route_whose_handler_was_cancelled(errors: list[logging.LogRecord]) -> None:
    """R4: What a BaseHTTPMiddleware says when its handler is cancelled for a child that has failed
    is no other failure."""

    async def child() -> None:
        await asyncio.sleep(1)
        raise HTTPException(418)

    async def endpoint(request: Request) -> Response:
        request_task_group(request).create_task(child())
        await forever()
        raise AssertionError

    middleware = [Middleware(BaseHTTPMiddleware, dispatch=passes)]
    app = Starlette(routes=[Route("/", endpoint, middleware=middleware)])
    install(app)
    exchange = run(get(app))
    assert (exchange.status, exchange.error, errors) == (418, None, [])


@ends
@pytest.mark.parametrize("number", [1, 2])
def test_handler_that_raises_something_else_after_a_failure(
    number: int, make: type[Starlette], errors: list[logging.LogRecord]
) -> None:
    """R4: Of the errors of children, and of what a handler raises when it is cancelled for them,
    the first one is answered, and the others are logged in the order in which they came."""

    async def child(delay: float, status: int) -> None:
        try:
            await asyncio.sleep(delay)
        finally:
            raise HTTPException(status)

    async def endpoint(request: Request) -> Response:
        tg = request_task_group(request)
        tg.create_task(child(1, 404))
        if number == 2:
            tg.create_task(child(2, 405))
            await asyncio.sleep(0)
        try:
            await forever()
        finally:
            await asyncio.sleep(1)
            raise HTTPException(403)

    app = make()
    (app.add_api_route if isinstance(app, FastAPI) else app.add_route)("/", endpoint)
    install(app)
    exchange = run(get(app))
    assert exchange.status == 404
    others = [record.exc_info[1] for record in errors if record.exc_info]
    statuses = [other.status_code for other in others if isinstance(other, HTTPException)]
    assert statuses == [405, 403][-number:]


@ends
def test_handler_that_goes_on_after_it_has_cancelled_its_group(make: type[Starlette]) -> None:
    """C9, R2: A handler that cancels its group, sees that, and answers all the same is answered for
    as any other."""

    async def endpoint(request: Request) -> Response:
        tg = request_task_group(request)
        tg.create_task(forever())
        tg.cancel()
        try:
            await forever()
        except asyncio.CancelledError:
            return PlainTextResponse("answer")
        raise AssertionError

    app = make()
    app.add_route("/", endpoint)
    install(app)
    exchange = run(get(app))
    assert (exchange.status, exchange.body, exchange.error) == (200, b"answer", None)


@ends
@pytest.mark.parametrize("has_child", [True, False])
def test_handler_that_returns_before_it_sees_that_it_was_cancelled(
    make: type[Starlette], *, has_child: bool
) -> None:
    """R4, C9: One that returns without an await in between is answered with a 500, as one that was
    cancelled."""

    async def endpoint(request: Request) -> Response:
        tg = request_task_group(request)
        if has_child:
            tg.create_task(forever())
        tg.cancel()
        return PlainTextResponse("answer")

    app = make()
    app.add_route("/", endpoint)
    install(app)
    exchange = run(get(app))
    assert (exchange.status, type(exchange.error)) == (500, RuntimeError)


def test_dependency_of_a_handler_that_did_not_see_its_cancellation() -> None:
    """R3, C9: The clean-up of a dependency is not cut by that cancellation."""
    scene = Scene()

    @scene.app.get("/", dependencies=[scene.session])
    async def handler(tg: RequestTaskGroup) -> str:
        tg.cancel()
        return "never seen"

    install(scene.app)
    assert run(get(scene.app)).status == 500
    assert scene.log == ["RuntimeError", "closed"]


@ends
def test_child_that_cancels_the_group_while_the_response_waits(make: type[Starlette]) -> None:
    """R2, C9: A child that cancels the group while the response waits for it is no success: the
    answer is a 500, as if the handler had done so."""

    async def endpoint(request: Request) -> Response:
        tg = request_task_group(request)

        async def child() -> None:
            await asyncio.sleep(1)
            tg.cancel()

        tg.create_task(child())
        return PlainTextResponse("answer")

    app = make()
    app.add_route("/", endpoint)
    install(app)
    exchange = run(get(app))
    assert (exchange.status, type(exchange.error)) == (500, RuntimeError)


@ends
def test_handler_that_is_cancelled_after_a_failure_it_has_caught(make: type[Starlette]) -> None:
    """R4, C10: A handler that has caught the failure of a child, and is cancelled from outside as
    it returns, has answered: the cancellation goes on, and is no failure."""

    async def child() -> None:
        await asyncio.sleep(1)
        raise ZeroDivisionError

    async def endpoint(request: Request) -> Response:
        with pytest.raises(ZeroDivisionError):
            await request_task_group(request).gather(child())
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return PlainTextResponse("answer")

    app = make()
    app.add_route("/", endpoint)
    install(app)

    async def main() -> list[str]:
        exchange = Exchange(app)
        with pytest.raises(asyncio.CancelledError):
            await exchange.run()
            await asyncio.sleep(0)
        return exchange.log

    assert run(main()) == ["start 200", "body answer"]


@pytest.mark.parametrize("is_below", [False, True])
@pytest.mark.parametrize("asks", [False, True])
def test_dependency_of_a_handler_whose_deadline_passes(*, asks: bool, is_below: bool) -> None:
    """R4, R8: A dependency sees the deadline itself also below a BaseHTTPMiddleware, and if nobody
    has asked for the group."""
    scene = Scene()

    @scene.app.get("/", dependencies=[scene.session])
    async def handler(request: Request) -> None:
        set_deadline(request, 1)
        if asks:
            request_task_group(request)
        await forever()

    served: ASGIApp = BaseHTTPMiddleware(scene.app, dispatch=passes) if is_below else scene.app
    assert run(get(TaskGroupMiddleware(served))).status == 504
    # The cancel scope of an older BaseHTTPMiddleware cuts what awaits in its clean-up, as always,
    # where no group holds it up.
    assert scene.log[:1] == ["DeadlineExceededError"]
    assert scene.log[1:] == ["closed"] or (is_below and not asks)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="asyncio leaks cancel counts before 3.13")
@pytest.mark.parametrize("turns", range(6))
def test_cancellation_from_outside_just_when_a_child_fails(turns: int) -> None:
    """R4, C10: A request that is cancelled from outside in any turn of the event loop after a child
    has failed is cancelled, and its dependencies see the failure."""
    scene = Scene()

    async def child() -> None:
        await asyncio.sleep(1)
        raise HTTPException(418)

    @scene.app.get("/", dependencies=[scene.session])
    async def handler(request: Request) -> None:
        request_task_group(request).create_task(child())
        await forever()

    install(scene.app)

    async def serve() -> None:
        await get(scene.app)
        await asyncio.sleep(1)

    async def main() -> None:
        serving = asyncio.create_task(serve())
        for _ in range(3):
            await asyncio.sleep(0)  # the child is the first to fall asleep
        await asyncio.sleep(1)
        for _ in range(turns):
            await asyncio.sleep(0)
        serving.cancel()
        await asyncio.wait((serving,))
        assert serving.cancelled()

    run(main())
    assert scene.log[0] == "HTTPException"


def test_failure_while_the_start_of_a_stream_is_on_its_way() -> None:
    """R5: A handler whose child fails while the start of a stream is on its way is cancelled when
    the start has left."""
    log: list[str] = []

    async def child() -> None:
        await asyncio.sleep(1)
        raise ZeroDivisionError

    async def slow(message: Message) -> None:
        await asyncio.sleep(2)
        log.append("taken")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request_task_group(scope).create_task(child())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            await forever()
        finally:
            log.append("handler ends")

    run(get(TaskGroupMiddleware(app), log=log, on_send=slow))
    assert log == ["start 200", "taken", "handler ends", "raised ZeroDivisionError"]


@pytest.mark.parametrize("has_group", [True, False])
def test_deadline_while_a_file_is_on_its_way(*, has_group: bool) -> None:
    """R4, R8: A file that the server sends by its path is decided with its start: a deadline that
    comes in between cuts nothing of it."""

    log: list[str] = []

    async def slow(message: Message) -> None:
        await asyncio.sleep(2)
        log.append("taken")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        set_deadline(scope, 1, stream=1)
        if has_group:
            request_task_group(scope)
        headers = [(b"content-length", b"5")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.pathsend", "path": "/file"})

    exchange = run(get(TaskGroupMiddleware(app), log=log, on_send=slow))
    assert (log, exchange.error) == (["start 200", "taken", "pathsend", "taken"], None)


@pytest.mark.parametrize("has_group", [True, False])
def test_message_of_an_extension_behind_the_start(*, has_group: bool) -> None:
    """R10: A message of an extension that follows the start of a response leaves behind it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if has_group:
            request_task_group(scope)
        headers = [(b"content-length", b"1")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.debug", "info": {}})
        await send({"type": "http.response.body", "body": b"a"})

    assert run(get(TaskGroupMiddleware(app))).log == ["start 200", "debug", "body a"]


@pytest.mark.parametrize("has_group", [True, False])
def test_message_of_an_extension_while_the_start_is_on_its_way(*, has_group: bool) -> None:
    """R10: So does one that comes while a slow client is still taking the start."""
    log: list[str] = []

    async def slow(message: Message) -> None:
        if message["type"] == "http.response.start":
            await asyncio.sleep(10)
            log.append("taken")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if has_group:
            request_task_group(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(1)
        await send({"type": "http.response.debug", "info": {}})
        await send({"type": "http.response.body", "body": b"a"})

    run(get(TaskGroupMiddleware(app), log=log, on_send=slow))
    assert log == ["start 200", "taken", "debug", "body a"]


@ends
@pytest.mark.parametrize("seconds", [0.5, 1.5])
def test_request_that_is_cancelled_while_its_children_end(
    seconds: float, make: type[Starlette]
) -> None:
    """R3, C10: A cancellation from outside that comes while the children of a handler which has
    raised clean up cuts nothing of that, and goes on after it."""
    log: list[str] = []

    async def child() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(2)
            log.append("cleaned up")

    async def endpoint(request: Request) -> Response:
        request_task_group(request).create_task(child())
        await asyncio.sleep(0)
        raise HTTPException(418)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(seconds):
                await get(app, log=log)

    app = make()
    (app.add_api_route if isinstance(app, FastAPI) else app.add_route)("/", endpoint)
    install(app)
    run(main())
    assert log == ["cleaned up"]


@ends
def test_cancellation_that_is_none_of_the_request(make: type[Starlette]) -> None:
    """R10: That a task of somebody else's was cancelled, for which a handler waits, leaves the app
    as it does without a group."""

    async def endpoint(request: Request) -> Response:
        request_task_group(request)
        task = asyncio.create_task(forever())
        asyncio.get_running_loop().call_later(1, task.cancel)
        await task
        raise AssertionError

    async def main() -> None:
        with pytest.raises(asyncio.CancelledError):
            await get(app)

    app = make()
    (app.add_api_route if isinstance(app, FastAPI) else app.add_route)("/", endpoint)
    install(app)
    run(main())


def test_body_that_cleans_up_after_it_was_refused() -> None:
    """R3, C5: A stream that learns of the failure of a child as it sends closes its body, the
    clean-up of which is not cut."""
    log: list[str] = []

    async def child() -> None:
        await asyncio.sleep(1)
        raise ZeroDivisionError

    async def endpoint(request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            try:
                await asyncio.sleep(1)
                for _ in range(10):
                    await asyncio.sleep(0)
                    yield b"piece"
                await forever()
            finally:
                await asyncio.sleep(1)
                log.append("closed")

        request_task_group(request).create_task(child())
        return StreamingResponse(body())

    app = Starlette(routes=[Route("/", endpoint)])
    install(app)
    run(get(app))
    assert log == ["closed"]


def test_denial_of_a_websocket_that_is_closed() -> None:
    """R10: A denial that comes too late, of a WebSocket whose children have ended, is the server's
    to complain about."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request_task_group(scope)
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})
        await send({"type": "websocket.http.response.start", "status": 403, "headers": []})

    assert run(Socket(TaskGroupMiddleware(app)).run()).log == ["accept", "close 1000", "start 403"]


def test_news_that_no_websocket_has_told() -> None:
    """R6: A WebSocketDisconnect that a child raises by itself, while the client is there, is a
    failure like others."""

    async def child() -> None:
        await asyncio.sleep(1)
        raise WebSocketDisconnect

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        request_task_group(websocket).create_task(child())
        await forever()

    app = Starlette(routes=[WebSocketRoute("/", endpoint)])
    install(app)
    socket = run(Socket(app).run())
    assert socket.log == ["accept", "close 1011", "raised WebSocketDisconnect"]


@ends
def test_cancellation_from_outside_after_a_failure_that_was_caught(make: type[Starlette]) -> None:
    """C10: A request that is cancelled from outside just as its handler returns is cancelled, and
    not answered, also if a child has failed before that."""

    async def child() -> None:
        raise ZeroDivisionError

    async def endpoint(request: Request) -> Response:
        with pytest.raises(ZeroDivisionError):
            await request_task_group(request).create_task(child())
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return PlainTextResponse("answer")

    async def main() -> None:
        task = asyncio.create_task(get(app))
        await asyncio.wait([task])
        assert task.cancelled()

    app = make()
    app.add_route("/", endpoint)
    install(app)
    run(main())


# An app's, with the handler in the task of the request or in one below a BaseHTTPMiddleware.
MIDDLEWARE = {
    "same task": [Middleware(TaskGroupMiddleware)],
    "task below": [
        Middleware(TaskGroupMiddleware),
        Middleware(BaseHTTPMiddleware, dispatch=passes),
    ],
}


@ends
@pytest.mark.parametrize("place", MIDDLEWARE)
@pytest.mark.parametrize("way", ["raises", "awaits", "gathers", "is cancelled"])
def test_exception_handler_that_goes_on_at_a_shutdown(
    way: str, place: str, make: type[Starlette], errors: list[logging.LogRecord]
) -> None:
    """A6, R4: The shutdown cancels an exception handler that goes on, once, however its handler has
    failed, and the failure leaves as one that nobody has answered: the shutdown is no other one."""
    log: list[str] = []

    async def child() -> None:
        await asyncio.sleep(1)
        raise Teapot

    async def asks(request: Request) -> None:
        request_task_group(request)

    async def endpoint(request: Request) -> Response:
        await asyncio.create_task(asks(request))
        tg = request_task_group(request)
        if way == "raises":
            await child()
        elif way == "awaits":
            await tg.create_task(child())
        elif way == "gathers":
            await tg.gather(child())
        else:
            tg.create_task(child())
            await forever()
        raise AssertionError

    async def answers_slowly(request: Request, exc: Exception) -> Response:
        cut_off_in_a_second(request)
        try:
            await forever()
        finally:
            await asyncio.sleep(1)
            log.append("cancelled")
        raise AssertionError

    app = make(exception_handlers={Teapot: answers_slowly}, middleware=MIDDLEWARE[place])
    (app.add_api_route if isinstance(app, FastAPI) else app.add_route)("/", endpoint)

    async def main() -> float:
        exchange = await get(app)
        assert (exchange.status, type(exchange.error)) == (500, Teapot)
        return asyncio.get_running_loop().time()

    assert run(main()) == 3
    assert (log, errors) == (["cancelled"], [])


def cut_off_in_a_second(conn: HTTPConnection) -> None:
    end = conn.scope[REQUEST].cut_off
    asyncio.get_running_loop().call_later(1, end, conn)


def test_answer_that_streams_at_a_shutdown() -> None:
    """A6, R5: The shutdown cuts what an exception handler streams."""

    async def body() -> AsyncIterator[bytes]:
        yield b"piece"
        await forever()

    async def answers(request: Request, exc: Exception) -> Response:
        cut_off_in_a_second(request)
        return StreamingResponse(body(), status_code=418)

    async def endpoint(request: Request) -> None:
        request_task_group(request).create_task(fails())
        await forever()

    async def fails() -> None:
        raise Teapot

    app = Starlette(routes=[Route("/", endpoint)], exception_handlers={Teapot: answers})
    install(app)
    exchange = run(get(app))
    assert exchange.log == ["start 418", "chunk piece", "raised Teapot"]


@pytest.mark.parametrize("closes", [True, False])
def test_exception_handler_of_a_websocket_at_a_shutdown(*, closes: bool) -> None:
    """A6, R6: So it is with that of a WebSocket, which is closed."""

    async def answers(websocket: WebSocket, exc: Exception) -> None:
        cut_off_in_a_second(websocket)
        if closes:
            await websocket.close(4000)
        await forever()

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        request_task_group(websocket).create_task(fails())
        await forever()

    async def fails() -> None:
        raise Teapot

    handlers: Any = {Teapot: answers}
    app = Starlette(routes=[WebSocketRoute("/", endpoint)], exception_handlers=handlers)
    install(app)
    socket = run(Socket(app).run())
    assert socket.log == ["accept", "close 4000" if closes else "close 1011", "raised Teapot"]


@ends
def test_handler_that_cancels_its_group_and_raises(make: type[Starlette]) -> None:
    """C9, R4: A handler that cancels its group and raises at once is answered for what it has
    raised."""

    async def endpoint(request: Request) -> Response:
        tg = request_task_group(request)
        tg.create_task(forever())
        await asyncio.sleep(1)
        tg.cancel()
        raise HTTPException(418)

    app = make()
    (app.add_api_route if isinstance(app, FastAPI) else app.add_route)("/", endpoint)
    install(app)
    exchange = run(get(app))
    assert (exchange.status, exchange.error) == (418, None)


@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
def test_background_task_behind_a_stream(spec_version: str) -> None:
    """R2, R10: The BackgroundTasks of a stream run when its children have ended and its end has
    left."""
    log: list[str] = []

    async def child() -> None:
        await asyncio.sleep(1)
        log.append("child ends")

    async def later() -> None:
        log.append("background")

    async def body() -> AsyncIterator[bytes]:
        yield b"piece"

    async def endpoint(request: Request) -> Response:
        request_task_group(request).create_task(child())
        return StreamingResponse(body(), background=BackgroundTask(later))

    app = Starlette(routes=[Route("/", endpoint)])
    install(app)
    run(get(app, log=log, asgi={"version": "3.0", "spec_version": spec_version}))
    assert log == ["start 200", "chunk piece", "child ends", "body", "background"]


def test_nothing_is_done_behind_a_stream_that_was_cut() -> None:
    """R5: Who has run a stream in a task, and waits for that, does not go on to what is behind it
    when the failure of a child has cut it."""
    log: list[str] = []

    async def body() -> AsyncIterator[bytes]:
        yield b"piece"
        await forever()

    async def endpoint(request: Request) -> Response:
        request_task_group(request).create_task(fails())
        return StreamingResponse(body())

    async def fails() -> None:
        await asyncio.sleep(1)
        raise Teapot

    inner = Starlette(routes=[Route("/", endpoint)])

    async def goes_on(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.wait((asyncio.create_task(inner(scope, receive, send)),))
        await ticks(log, "went on", 10)

    asgi = {"version": "3.0", "spec_version": "2.4"}
    run(get(TaskGroupMiddleware(goes_on), log=log, asgi=asgi))
    assert log == ["start 200", "chunk piece", "raised Teapot"]


@pytest.mark.parametrize("place", MIDDLEWARE)
def test_handler_is_cancelled_once(place: str) -> None:
    """C5, C9: The clean-up of a handler is not cut if its group is cancelled twice, in whichever
    task it runs."""
    log: list[str] = []

    async def endpoint(request: Request) -> None:
        tg = request_task_group(request)
        loop = asyncio.get_running_loop()
        loop.call_later(1, tg.cancel)
        loop.call_later(2, tg.cancel)
        try:
            await forever()
        finally:
            await asyncio.sleep(2)
            log.append("cleaned up")

    app = FastAPI(middleware=MIDDLEWARE[place])
    app.add_api_route("/", endpoint)
    run(get(app))
    assert log == ["cleaned up"]


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_child_that_sends_when_the_request_has_failed(kind: str) -> None:
    """C5: A child that sends in its clean-up, when another one has failed, is cancelled no second
    time, nor is what it sends sent."""
    counts: list[int] = []
    client: Exchange | Socket
    start: Message = START
    message: Message = PIECE
    if kind == "websocket":
        start = {"type": "websocket.accept"}
        message = {"type": "websocket.send", "text": "piece"}

    async def child(send: Send) -> None:
        await send(start)
        await send(message)
        try:
            await forever()
        finally:
            with pytest.raises(asyncio.CancelledError):
                await send(message)
            await asyncio.sleep(1)
            task = asyncio.current_task()
            assert task is not None
            counts.append(task.cancelling())

    async def fails() -> None:
        await asyncio.sleep(1)
        raise ZeroDivisionError

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        tg = request_task_group(scope)
        tg.create_task(child(send))
        tg.create_task(fails())
        await forever()

    client = (Exchange if kind == "http" else Socket)(TaskGroupMiddleware(app))
    run(client.run())
    seen = ["start 200", "chunk piece"] if kind == "http" else ["accept", "send piece"]
    closed = [] if kind == "http" else ["close 1011"]
    assert client.log == [*seen, *closed, "raised ZeroDivisionError"]
    assert counts == [1]


@pytest.mark.parametrize("place", MIDDLEWARE)
def test_deadline_of_a_handler_that_goes_on_after_a_failure(place: str) -> None:
    """R8, R4: A handler that has caught what `gather` raises is cancelled by its deadline still."""

    async def fails() -> None:
        await asyncio.sleep(1)
        raise ZeroDivisionError

    async def endpoint(request: Request) -> None:
        set_deadline(request, 2)
        with pytest.raises(ZeroDivisionError):
            await request_task_group(request).gather(forever(), fails())
        await forever()

    async def main() -> tuple[int, float]:
        return (await get(app)).status, asyncio.get_running_loop().time()

    app = FastAPI(middleware=MIDDLEWARE[place])
    app.add_api_route("/", endpoint)
    assert run(main()) == (504, 2)


def test_cancellation_from_outside_of_an_app_in_a_task() -> None:
    """R3, C10: A cancellation from outside that comes while children end is not lost either where
    something in between runs the app in a task of its own."""

    async def child() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(2)

    async def endpoint(request: Request) -> Response:
        tg = request_task_group(request)
        tg.create_task(child())
        asyncio.get_running_loop().call_later(1, tg.cancel)
        await forever()
        raise AssertionError

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2):
                await get(TaskGroupMiddleware(in_a_task(app)))

    app = Starlette(routes=[Route("/", endpoint)])
    run(main())


def in_a_task(app: ASGIApp) -> ASGIApp:
    async def runs(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.create_task(app(scope, receive, send))  # type: ignore[arg-type]

    return runs


@pytest.mark.parametrize("around", [lambda app: app, in_a_task])
def test_websocket_that_is_cancelled_while_it_waits_for_its_children(around: Any) -> None:
    """R3, R6, C10: A cancellation from outside that comes when the handler of a WebSocket has
    returned ends its children, before its dependencies close."""
    scene = Scene()

    async def child() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(1)
            scene.log.append("child ended")

    @scene.app.websocket("/", dependencies=[scene.session])
    async def handler(websocket: WebSocket, tg: RequestTaskGroup) -> None:
        await websocket.accept()
        tg.create_task(child())

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await Socket(TaskGroupMiddleware(around(scene.app))).run()

    run(main())
    assert scene.log == ["child ended", "CancelledError", "closed"]


def test_leaving_that_is_told_in_a_group() -> None:
    """R6: That the client has left, which a child has been told, is no failure either if a task
    group in a dependency wraps it."""
    app = FastAPI()

    async def session() -> AsyncIterator[None]:
        async with asyncio.TaskGroup():
            yield

    async def child(websocket: WebSocket) -> None:
        await websocket.receive_text()

    @app.websocket("/", dependencies=[Depends(session)])
    async def handler(websocket: WebSocket, tg: RequestTaskGroup) -> None:
        await websocket.accept()
        tg.create_task(child(websocket))
        await forever()

    install(app)
    socket = Socket(app)
    socket.leave()
    run(socket.run())
    assert (socket.log, socket.error) == (["accept"], None)


def test_failure_that_meets_the_close_in_a_group() -> None:
    """R4, R6: A dependency sees as itself what a child fails with while the handler closes, though
    a task group of the handler's wraps it."""
    scene = Scene()

    async def child() -> None:
        await asyncio.sleep(1)
        raise Teapot

    @scene.app.websocket("/", dependencies=[scene.session])
    async def handler(websocket: WebSocket, tg: RequestTaskGroup) -> None:
        await websocket.accept()
        tg.create_task(child())
        async with asyncio.TaskGroup():
            await websocket.close()

    install(scene.app)
    socket = run(Socket(scene.app).run())
    assert scene.log == ["Teapot", "closed"]
    assert socket.log == ["accept", "close 1011", "raised Teapot"]


def test_last_piece_that_is_not_taken_at_a_shutdown() -> None:
    """A6, R5: The shutdown cuts a response whose last piece, which has waited for the children, its
    client does not take."""

    async def body() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    async def endpoint(request: Request) -> Response:
        request_task_group(request).create_task(asyncio.sleep(1))
        asyncio.get_running_loop().call_later(2, request.scope[REQUEST].cut_off, request)
        return StreamingResponse(body(), headers={"content-length": "2"})

    async def takes(message: Message) -> None:
        if message.get("body") == b"b":
            await forever()

    async def main() -> float:
        asgi = {"version": "3.0", "spec_version": "2.4"}  # it is sent in the task of the request
        exchange = await Exchange(app, on_send=takes, asgi=asgi).run()
        assert exchange.log == ["start 200", "chunk a", "chunk b"]
        return asyncio.get_running_loop().time()

    app = Starlette(routes=[Route("/", endpoint)])
    install(app)
    assert run(main()) == 2


def test_start_that_can_not_leave() -> None:
    """R10: An app learns by its next `send` that the start of its stream, which has left in the
    meantime, could not be sent."""
    seen: list[Exception] = []

    async def is_gone(message: Message) -> None:
        if message["type"] == "http.response.start":
            raise OSError

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await asyncio.sleep(1)
        try:
            await send({"type": "http.response.body", "body": b"all"})
        except OSError as exc:
            seen.append(exc)

    assert run(get(TaskGroupMiddleware(app), on_send=is_gone)).log == ["start 200"]
    assert len(seen) == 1


def test_end_while_another_task_sends_the_start() -> None:
    """R10: The end of a response waits for its start, which another task is sending."""

    async def slow(message: Message) -> None:
        if message["type"] == "http.response.start":
            await asyncio.sleep(2)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({**START, "headers": [(b"content-length", b"8")]})
        first = asyncio.ensure_future(send(PIECE))
        await asyncio.sleep(1)
        await send({"type": "http.response.body", "body": b"end"})
        await first

    exchange = run(get(TaskGroupMiddleware(app), on_send=slow))
    assert exchange.log == ["start 200", "chunk piece", "body end"]


def test_background_task_at_a_shutdown() -> None:
    """A6: The shutdown cancels at once what runs after a response that has left."""

    async def endpoint(request: Request) -> Response:
        cut_off_in_a_second(request)
        return PlainTextResponse("left", background=BackgroundTask(forever))

    async def main() -> float:
        assert (await get(app)).is_complete
        return asyncio.get_running_loop().time()

    app = Starlette(routes=[Route("/", endpoint)])
    install(app)
    assert run(main()) == 1


@pytest.mark.parametrize("asks", [True, False])
def test_background_task_that_is_cancelled_from_outside(*, asks: bool) -> None:
    """C10: A cancellation from outside of what runs after a response goes on as what it is."""

    async def endpoint(request: Request) -> Response:
        if asks:
            request_task_group(request)
        return PlainTextResponse("left", background=BackgroundTask(forever))

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await get(app)

    app = Starlette(routes=[Route("/", endpoint)])
    install(app)
    run(main())


def test_group_of_a_websocket_that_a_child_has_closed() -> None:
    """R6: Who asks for the group when a child has closed the WebSocket is told that it is over."""

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await request_task_group(websocket).create_task(websocket.close())
        with pytest.raises(RuntimeError, match="its task group has ended with it"):
            request_task_group(websocket)

    app = Starlette(routes=[WebSocketRoute("/", endpoint)])
    install(app)
    assert run(Socket(app).run()).log == ["accept", "close 1000"]
