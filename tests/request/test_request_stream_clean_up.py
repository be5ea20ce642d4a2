"""The clean-up of the body of a stream that has seen the end of what it waits for."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from typing import Any

import anyio
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quattro_core import TaskGroup
from quattro_web import (
    DeadlineExceededError,
    TaskGroupMiddleware,
    cancel_on_disconnect,
    install,
    request_task_group,
    set_deadline,
)
from quattro_web._util.scope import REQUEST
from tests.request.failing import fail as fail_soon
from tests.request.gated import ticks
from tests.support.asgi import Exchange, get, run


async def work(_: object = None) -> None:
    await asyncio.sleep(3600)


async def fail() -> None:
    await asyncio.sleep(1)
    raise ZeroDivisionError


async def passes(request: Request, call_next: Any) -> Response:
    response: Response = await call_next(request)
    return response


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


@pytest.mark.parametrize("make", [Starlette, FastAPI])
@pytest.mark.parametrize("is_below", [False, True])
@pytest.mark.parametrize("is_first", [False, True])
@pytest.mark.parametrize("why", ["a child fails", "the client leaves"])
@pytest.mark.parametrize("method", ["create_task", "create_background_task"])
def test_body_that_asks_for_the_group(
    method: str, why: str, *, is_first: bool, is_below: bool, make: type[Starlette]
) -> None:
    """R3, R7: Children of both kinds have ended before the body of a stream is cancelled, also
    where the body asks for the group, first or once more, in the task in which the handler ran."""
    log: list[str] = []

    async def cleans_up() -> None:
        try:
            await work()
        finally:
            await asyncio.sleep(5)
            log.append("child cleaned up")

    async def endpoint(request: Request) -> Response:
        if not is_first:
            request_task_group(request)

        async def body() -> AsyncIterator[bytes]:
            yield b"begun"
            tg = request_task_group(request)
            getattr(tg, method)(cleans_up())
            if why == "a child fails":
                tg.create_task(fail())
            else:
                exchange.disconnect_after(1)
            try:
                await work()
            finally:
                log.append("body ended")

        return StreamingResponse(body())

    app = make()
    (app.add_api_route if isinstance(app, FastAPI) else app.add_route)("/", endpoint)
    served: ASGIApp = BaseHTTPMiddleware(app, dispatch=passes) if is_below else app
    # With the older version Starlette sends a stream in a task of its own, and another one reads.
    asgi = {"version": "3.0", "spec_version": "2.4" if why == "a child fails" else "2.3"}
    exchange = Exchange(TaskGroupMiddleware(served), asgi=asgi)
    run(exchange.run())
    assert log == ["child cleaned up", "body ended"]


def test_task_that_streams_and_reads() -> None:
    """R7, R10: The task that sends a stream, and reads that its client has left, goes on."""
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def streams() -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await receive()
            log.append((await receive())["type"])
            await asyncio.sleep(1)
            log.append("over")

        request_task_group(scope)
        await asyncio.create_task(streams())

    async def main() -> None:
        await Exchange(TaskGroupMiddleware(app)).disconnect_after(1).run()

    run(main())
    assert log == ["http.disconnect", "over"]


@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
@pytest.mark.parametrize("method", ["create_task", "create_background_task"])
@pytest.mark.parametrize("lasts", [0, 5], ids=["has ended", "cleans up"])
def test_body_that_waits_for_a_child_after_its_cancellation(
    lasts: float, method: str, spec_version: str
) -> None:
    """R3, C5: The body of a stream that begins to wait for a child when that was cancelled already,
    or has ended, is not cancelled a second time in its clean-up."""
    log: list[str] = []

    async def cleans_up(seconds: float) -> None:
        try:
            await work()
        finally:
            await asyncio.sleep(seconds)

    async def body(request: Request) -> AsyncIterator[bytes]:
        tg = request_task_group(request)
        yield b"begun"
        task = getattr(tg, method)(cleans_up(lasts))
        tg.create_task(cleans_up(3))
        tg.create_task(fail())
        await asyncio.sleep(2)
        assert task.done() is not bool(lasts)
        try:
            await task
        finally:
            await asyncio.sleep(5)
            log.append("cleaned up")

    async def endpoint(request: Request) -> Response:
        return StreamingResponse(body(request))

    app = Starlette(routes=[Route("/", endpoint)])
    install(app)
    asgi = {"version": "3.0", "spec_version": spec_version}
    exchange = Exchange(app, asgi=asgi)
    run(exchange.run())
    assert log == ["cleaned up"]
    assert isinstance(exchange.error, ZeroDivisionError)
    assert not exchange.is_complete


@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
@pytest.mark.parametrize("wait", [asyncio.wait_for, asyncio.gather])
def test_body_that_sees_the_failure_of_a_child(wait: Any, spec_version: str) -> None:
    """R3, R4: The body of a stream that sees the error of the child for which it waits cleans up
    without being cancelled, also if it was the handler that has asked for the group."""
    log: list[str] = []

    async def body(tg: TaskGroup) -> AsyncIterator[bytes]:
        yield b"begun"
        task = tg.create_task(fail())
        try:
            await (wait(task, None) if wait is asyncio.wait_for else wait(task))
        except ZeroDivisionError:
            await asyncio.sleep(5)
            log.append("cleaned up")
            raise

    async def endpoint(request: Request) -> Response:
        return StreamingResponse(body(request_task_group(request)))

    app = Starlette(routes=[Route("/", endpoint)])
    install(app)
    exchange = Exchange(app, asgi={"version": "3.0", "spec_version": spec_version})
    run(exchange.run())
    assert log == ["cleaned up"]
    assert isinstance(exchange.error, ZeroDivisionError)


def test_body_that_goes_on() -> None:
    """R3: The body of a stream that goes on when it has seen that the child for which it waits was
    cancelled is cancelled itself, ten seconds later."""
    log: list[str] = []

    async def body(request: Request) -> AsyncIterator[bytes]:
        tg = request_task_group(request)
        yield b"begun"
        tg.create_task(fail())
        with suppress(asyncio.CancelledError):
            await child(tg)
        try:
            await work()
        finally:
            log.append(f"cancelled after {asyncio.get_running_loop().time():.0f} s")

    async def endpoint(request: Request) -> Response:
        return StreamingResponse(body(request))

    app = Starlette(routes=[Route("/", endpoint)])
    install(app)
    run(Exchange(app).run())
    assert log == ["cancelled after 11 s"]


@pytest.mark.parametrize("wait", [child, gather])
def test_body_of_known_length_that_asks_first(wait: Wait) -> None:
    """R3: So it is with the body of a stream with a Content-Length, which is the first to ask for
    the group."""
    log: list[str] = []

    async def body(request: Request) -> AsyncIterator[bytes]:
        tg = request_task_group(request)
        yield b"begun"
        tg.create_task(fail())
        try:
            await wait(tg)
        finally:
            await asyncio.sleep(0.5)
            log.append("cleaned up")

    async def endpoint(request: Request) -> Response:
        return StreamingResponse(body(request), headers={"content-length": "10"})

    app = Starlette(routes=[Route("/", endpoint)])
    install(app)
    run(Exchange(app).run())
    assert log == ["cleaned up"]


BEGIN = ["start 200", "chunk one", "chunk two"]


def cut(chunks: AsyncIterator[str], log: list[str], *, around: Any = None) -> str:
    """Cut a stream at its second chunk, and return the last that is logged."""

    class Busy(Exchange):
        async def send(self, message: Message) -> None:
            await super().send(message)
            if message.get("body") == b"two":
                await asyncio.Event().wait()

    async def endpoint(request: Request) -> Response:
        set_deadline(request, 1, stream=1)
        return StreamingResponse(chunks)

    app = Starlette(routes=[Route("/", endpoint)])
    install(app)
    # With this version Starlette sends a stream in the task of the request.
    asgi = {"version": "3.0", "spec_version": "2.4"}
    run(Busy(around(app) if around else app, asgi=asgi, log=log).run())
    return log[-1]


def test_generator_that_is_found_in_a_closure() -> None:
    """R3: A generator from which that of the body takes its chunks is closed with it, though it
    stands in the function around it, with the body itself and what is not set yet."""
    log: list[str] = []

    async def source() -> AsyncIterator[str]:
        try:
            yield "one"
            yield "two"
        finally:
            await asyncio.sleep(1)
            log.append("source closed")

    async def chunks() -> AsyncIterator[str]:
        try:
            yield await anext(pieces)
            yield await anext(pieces)
        finally:
            log.append("body closed")
        raise AssertionError(body, end)

    pieces = source()
    body = chunks()
    end = cut(body, log)
    assert log == [*BEGIN, "body closed", "source closed", "raised DeadlineExceededError"]


def test_body_that_fails_as_it_is_closed(errors: list[logging.LogRecord]) -> None:
    """R3, R5: The body of a stream that fails in its clean-up is logged, and what it takes its
    chunks from is closed all the same."""
    log: list[str] = []

    async def source() -> AsyncIterator[str]:
        try:
            yield "one"
            yield "two"
        finally:
            log.append("source closed")

    async def chunks() -> AsyncIterator[str]:
        try:
            async for chunk in source():
                yield chunk
        finally:
            raise ZeroDivisionError

    cut(chunks(), log)
    assert log == [*BEGIN, "source closed", "raised DeadlineExceededError"]
    closing = [record for record in errors if "failed as it was closed" in record.getMessage()]
    assert [record.exc_info and record.exc_info[0] for record in closing] == [ZeroDivisionError]


@pytest.mark.parametrize("make", [Starlette, FastAPI])
@pytest.mark.parametrize("why", ["disconnect", "deadline", "failure"])
@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
def test_body_that_fails_as_it_is_cancelled(
    spec_version: str, why: str, make: type[Starlette]
) -> None:
    """R5, R7: The error of a body whose clean-up fails is not lost, whatever has cancelled it."""

    async def chunks(request: Request) -> AsyncIterator[str]:
        try:
            yield "one"
            await work()
        finally:
            raise ZeroDivisionError

    async def endpoint(request: Request) -> Response:
        tg = request_task_group(request)
        if why == "disconnect":
            cancel_on_disconnect(request)
            exchange.disconnect_after(1)
        elif why == "deadline":
            set_deadline(request, 1, stream=1)
        else:
            tg.create_task(fail())
        return StreamingResponse(chunks(request))

    app = make()
    app.add_route("/", endpoint)
    if isinstance(app, FastAPI):
        app.get("/fastapi")(endpoint)
    install(app)
    path = "/fastapi" if make is FastAPI else "/"
    exchange = Exchange(app, path, asgi={"version": "3.0", "spec_version": spec_version})
    run(exchange.run())
    error = exchange.error
    found = error.exceptions if isinstance(error, ExceptionGroup) else [error]
    assert ZeroDivisionError in {type(each) for each in found}


def test_body_that_sends_by_itself(errors: list[logging.LogRecord]) -> None:
    """R5: A generator that is running, since it sends by itself, is not closed from outside: it
    sees its cancellation. What it takes its chunks from is closed."""
    log: list[str] = []

    async def source() -> AsyncIterator[bytes]:
        try:
            yield b"one"
        finally:
            log.append("source closed")

    class Sending:
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            set_deadline(scope, 1, stream=1)
            self.body_iterator = self.pieces(send)
            async for _ in self.body_iterator:
                raise AssertionError

        async def pieces(self, send: Send) -> AsyncIterator[None]:
            try:
                await send({"type": "http.response.start", "status": 200, "headers": []})
                async for piece in source():
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                yield
            finally:
                log.append("body ends")

    async def slow(message: Message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    run(Exchange(TaskGroupMiddleware(Sending()), on_send=slow, log=log).run())
    ends = ["source closed", "body ends", "raised DeadlineExceededError"]
    assert log == ["start 200", "chunk one", *ends]
    assert not [record for record in errors if record.exc_info]


def test_body_of_somebody_around_the_app() -> None:
    """R10: A body that an app around this one may send instead is not closed with that of a stream
    that is cut."""
    log: list[str] = []

    class Fallback:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app
            self.body_iterator = self.pieces()

        async def pieces(self) -> AsyncIterator[str]:
            yield "instead"

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            with suppress(DeadlineExceededError):
                await self.app(scope, receive, send)
            async for piece in self.body_iterator:
                log.append(piece)

    async def chunks() -> AsyncIterator[str]:
        yield "one"
        yield "two"

    cut(chunks(), log, around=Fallback)
    assert log == [*BEGIN, "instead"]


@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
def test_body_that_sends_as_a_child_fails(spec_version: str) -> None:
    """R3, R5: A body that is sending in the moment in which a child fails is closed at once, and
    nothing cuts its clean-up."""
    log: list[str] = []

    async def body() -> AsyncIterator[str]:
        try:
            while True:
                yield "piece"
                await asyncio.sleep(0)
        finally:
            await ticks(log, "body cleaned up", 30)

    async def endpoint(request: Request) -> Response:
        request_task_group(request).create_task(fail_soon(ZeroDivisionError()))
        return StreamingResponse(body())

    app = Starlette(routes=[Route("/", endpoint)])
    install(app)
    run(get(app, asgi={"version": "3.0", "spec_version": spec_version}))
    assert log == ["body cleaned up"]


def test_body_that_sends_as_its_client_leaves() -> None:
    """R7: A stream that never waits ends a few pieces after its client has left."""

    async def body() -> AsyncIterator[str]:
        for number in range(100):
            if number == 10:
                exchange.disconnect()
            yield "piece"
            await asyncio.sleep(0)

    async def endpoint(request: Request) -> Response:
        request_task_group(request)
        return StreamingResponse(body())

    app = Starlette(routes=[Route("/", endpoint)])
    install(app)
    exchange = Exchange(app)
    run(exchange.run())
    assert 10 <= exchange.log.count("chunk piece") < 25


def test_stream_that_a_middleware_gives_up_while_its_end_waits() -> None:
    """R2, R3: A stream that somebody gives up whose end waits for a child cancels that child."""

    async def body() -> AsyncIterator[str]:
        yield "piece"

    async def endpoint(request: Request) -> Response:
        request_task_group(request).create_task(work())
        return StreamingResponse(body())

    inner = Starlette(routes=[Route("/", endpoint)])

    async def gives_up(scope: Scope, receive: Receive, send: Send) -> None:
        with anyio.move_on_after(1):
            await inner(scope, receive, send)

    async def main() -> float:
        await get(TaskGroupMiddleware(gives_up))
        return asyncio.get_running_loop().time()

    assert run(main()) == 1
