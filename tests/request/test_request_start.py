"""The end of a response is decided at one moment: nothing of it has left before, nothing cuts it
afterwards."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quattro_web import (
    ShutdownGrace,
    TaskGroupMiddleware,
    cancel_on_disconnect,
    install,
    request_task_group,
    set_deadline,
)
from tests.support.asgi import Exchange, get, run
from tests.support.lifespan import Life
from tests.support.signals import send, server_handlers


class Slow:
    """A middleware that awaits before it hands a message on."""

    def __init__(self, app: ASGIApp, seconds: float = 2) -> None:
        self.app = app
        self.seconds = seconds

    def passing(self, send: Send) -> Send:
        async def slowly(message: Message) -> None:
            await asyncio.sleep(self.seconds)
            await send(message)

        return slowly

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, self.passing(send))


async def passes(request: Request, call_next: Any) -> Response:
    response: Response = await call_next(request)
    return response


async def finished() -> None:
    pass


WHY = ["deadline", "disconnect"]


def app_of(seconds: float, why: str, group: bool, exchange: list[Exchange]) -> Starlette:
    """Return an app that answers after some seconds, and is to be cancelled after one."""

    async def endpoint(request: Request) -> Response:
        if why == "deadline":
            set_deadline(request, 1)
        elif why == "disconnect":
            cancel_on_disconnect(request)
            exchange[0].disconnect_after(1)
        if group:
            request_task_group(request).create_task(finished())
        await asyncio.sleep(seconds)
        return PlainTextResponse("done")

    app = Starlette(routes=[Route("/", endpoint)])
    install(app, shutdown_grace=ShutdownGrace(requests=1, resources=None))
    return app


@pytest.mark.parametrize("above", ["none", "slow", "base", "both"])
@pytest.mark.parametrize("group", [True, False])
@pytest.mark.parametrize("why", WHY)
@pytest.mark.parametrize("seconds", [0.5, 0.999, 1, 1.5])
def test_what_comes_while_a_response_is_on_its_way(
    seconds: float, why: str, group: bool, above: str
) -> None:
    """R7, R8: A deadline, or a client that leaves, while the start of a response is on its way
    through the middlewares around the app: a response whose end is decided is complete; another one
    has not begun. Never a 500."""
    made: list[Exchange] = []
    app: Any = app_of(seconds, why, group, made)
    if above in ("base", "both"):
        app = BaseHTTPMiddleware(app, dispatch=passes)
    if above in ("slow", "both"):
        app = Slow(app)

    async def main() -> None:
        made.append(Exchange(app))
        await made[0].run()

    run(main())
    exchange = made[0]
    late = {"deadline": 504, "disconnect": 499}[why]
    assert exchange.error is None
    assert exchange.status in ([200] if seconds < 1 else [late] if seconds > 1 else [200, late])
    assert exchange.is_complete


@pytest.mark.parametrize("above", ["slow", "base"])
@pytest.mark.parametrize("group", [True, False])
@pytest.mark.parametrize("seconds", [0.999, 1, 1.5])
def test_shutdown_while_a_response_is_on_its_way(seconds: float, group: bool, above: str) -> None:
    """A6: So it is with a shutdown, whose grace is over then: a 503, or the response."""
    app: Any = app_of(seconds, "shutdown", group, [])
    slow = Slow(app, 0.1) if above == "slow" else BaseHTTPMiddleware(app, dispatch=passes)

    async def main() -> Exchange:
        life = Life(app)
        with server_handlers():
            await life.start()
            serving = asyncio.create_task(get(slow, state=life.state))
            await send(signal.SIGTERM)
            exchange = await serving
            assert not serving.cancelling()
            await life.stop()
            return exchange

    exchange = run(main())
    assert exchange.error is None
    assert exchange.status in ([200] if seconds < 1 else [503] if seconds > 1 else [200, 503])
    assert exchange.is_complete


@pytest.mark.parametrize("group", [True, False])
def test_start_of_a_stream_that_is_on_its_way(group: bool) -> None:
    """R5, R8: A deadline that comes while the start of a stream is on its way waits until it has
    left: then the stream is cut, and no second start follows it."""

    async def endpoint(request: Request) -> Response:
        set_deadline(request, 1, stream=1)
        if group:
            request_task_group(request).create_task(finished())

        async def chunks() -> AsyncIterator[str]:
            while True:
                yield "chunk"

        return StreamingResponse(chunks())

    app = Starlette(routes=[Route("/", endpoint)])
    install(app)
    exchange = run(get(Slow(app)))
    assert exchange.log[0] == "start 200"
    assert "start 504" not in exchange.log
    assert not exchange.is_complete


def test_nothing_has_left_of_a_response_that_fails_half_way() -> None:
    """R4: What an app raises between the start of a response and its body is answered instead."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ZeroDivisionError

    exchange = run(get(ServerErrorMiddleware(TaskGroupMiddleware(app))))
    assert exchange.status == 500


@pytest.mark.parametrize("has_group", [False, True])
def test_start_leaves_when_the_app_reads_on(*, has_group: bool) -> None:
    """R10: A client may wait for the start of a response before it sends more of its request: the
    start leaves when the app reads on, and soon in any case if it is that of a stream."""

    async def echoes(scope: Scope, receive: Receive, send: Send) -> None:
        if has_group:
            request_task_group(scope).create_task(finished())
        headers = [(b"content-length", b"1")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        message = await receive()
        await send({"type": "http.response.body", "body": message["body"]})

    async def main() -> Exchange:
        async def on_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.upload(b"a", more=False)

        exchange = Exchange(TaskGroupMiddleware(echoes), body=[], on_send=on_send)
        async with asyncio.timeout(60):
            return await exchange.run()

    exchange = run(main())
    assert (exchange.log, exchange.error) == (["start 200", "body a"], None)


def test_child_that_reads_does_not_send_the_start() -> None:
    """R4: The start does not leave since a child reads, which may fail still."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def child() -> None:
            await receive()
            await asyncio.sleep(0.01)
            raise ZeroDivisionError

        request_task_group(scope).create_task(child())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.Event().wait()

    assert run(get(TaskGroupMiddleware(app))).log == ["raised ZeroDivisionError"]


def test_stream_that_listens_does_not_send_the_start() -> None:
    """R4: Nor since a response listens for its client's leaving, as one of Starlette's that streams
    does: its body may fail still before it begins."""

    async def endpoint(request: Request) -> Response:
        async def chunks() -> AsyncIterator[str]:
            await asyncio.sleep(0.01)
            raise HTTPException(404)
            yield "never"

        request_task_group(request)
        return StreamingResponse(chunks())

    app = Starlette(routes=[Route("/", endpoint, methods=["POST"])])
    install(app)

    async def main() -> Exchange:
        exchange = Exchange(app, method="POST", body=[b"a"], unfinished=True)
        asyncio.get_running_loop().call_later(0.005, exchange.upload, b"b")
        return await exchange.run()

    assert run(main()).log == ["start 404", "body Not Found"]


def test_app_that_reads_after_a_failure_does_not_send_the_start() -> None:
    """R4: Nor since the app reads, which goes on although it was cancelled when a child failed."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def child() -> None:
            raise ZeroDivisionError

        request_task_group(scope).create_task(child())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await receive()

    assert run(get(TaskGroupMiddleware(app))).log == ["raised ZeroDivisionError"]


@pytest.mark.parametrize("headers", [[], [(b"content-type", b"text/plain")]])
def test_start_of_a_silent_stream_leaves_without_a_group(headers: Any) -> None:
    """R2, R10: The headers of a stream that is silent at first are there soon."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await asyncio.sleep(1)
        log.append("chunk is made")
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    log: list[str] = []
    run(get(TaskGroupMiddleware(app), log=log))
    assert log == ["start 200", "chunk is made", "chunk a", "body"]


LENGTH = [(b"content-length", b"1")]


@pytest.mark.parametrize("fails", [True, False])
def test_group_that_is_asked_for_between_start_and_end(*, fails: bool) -> None:
    """R1, R5, R10: The start of a response whose request has asked for nothing leaves at once. A
    group that is asked for then is as any other: its children end before the response does."""
    log: list[str] = []

    async def child() -> None:
        await asyncio.sleep(1)
        log.append("child")
        if fails:
            raise ZeroDivisionError

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": LENGTH})
        log.append("asks")
        request_task_group(scope).create_task(child())
        await send({"type": "http.response.body", "body": b"a"})

    exchange = run(get(TaskGroupMiddleware(app), log=log))
    end = "raised ZeroDivisionError" if fails else "body a"
    assert exchange.log == ["start 200", "asks", "child", end]


@pytest.mark.parametrize("awaitable", ["coroutine", "future"])
def test_group_that_is_asked_for_while_the_start_leaves(awaitable: str) -> None:
    """R1: What is on its way as a whole is complete: no group of it can be had any more."""
    seen: list[str] = []

    async def asks(scope: Scope) -> None:
        await asyncio.sleep(1)
        with pytest.raises(RuntimeError, match="is complete"):
            request_task_group(scope)
        seen.append("refused")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        asking = asyncio.create_task(asks(scope))
        await send({"type": "http.response.start", "status": 200, "headers": LENGTH})
        await send({"type": "http.response.body", "body": b"a"})
        await asking

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        def soon(message: Message) -> Any:
            sending = Slow(app).passing(send)(message)
            return sending if awaitable == "coroutine" else asyncio.ensure_future(sending)

        await TaskGroupMiddleware(app)(scope, receive, soon)

    exchange = run(get(served))
    assert (exchange.log, seen) == (["start 200", "body a"], ["refused"])
