"""Clean-up is never cut, and what streams is closed in time."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextvars import ContextVar
from typing import Annotated, Any

import anyio
import pytest
from fastapi import Depends, FastAPI
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from quattro_web import (
    TaskGroupMiddleware,
    cancel_on_disconnect,
    install,
    request_task_group,
    set_deadline,
    uninterrupted,
)
from quattro_web.fastapi import RequestTaskGroup
from tests.request.gated import ticks
from tests.support.asgi import Exchange, Socket, get, run

log: list[str] = []


@pytest.fixture(autouse=True)
def empty_log() -> Iterator[None]:
    log.clear()
    yield
    log.clear()


async def forever() -> None:
    await asyncio.Event().wait()


async def query() -> str:
    """Be a child whose clean-up awaits."""
    try:
        await forever()
    finally:
        for _ in range(3):
            await asyncio.sleep(0.1)
        log.append("child cleaned up")
    return ""


async def passes(request: Request, call_next: Any) -> Response:
    response: Response = await call_next(request)
    return response


ENDS = ["the client leaves", "the deadline passes", "a sibling fails"]
WAYS = ["await", "gather", "anyio"]


async def fails() -> None:
    await asyncio.sleep(1)
    raise ZeroDivisionError


def begin(request: Request, why: str, exchange: Exchange) -> None:
    """See to it that the request ends in a second."""
    if why == "the client leaves":
        exchange.disconnect_after(1)
    elif why == "the deadline passes":
        set_deadline(request, 1, stream=1)
    else:
        request_task_group(request).create_task(fails())


@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
@pytest.mark.parametrize("response", [StreamingResponse, EventSourceResponse])
@pytest.mark.parametrize("middleware", ["none", "below", "above"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("why", ENDS)
def test_child_that_the_body_of_a_response_awaits(
    why: str, way: str, middleware: str, response: Any, spec_version: str
) -> None:
    """C5, R3, R7, R8: A child for which the body of a response waits cleans up before any cancel
    scope around the body opens, in whatever way the response ends."""
    if why == "the client leaves" and spec_version == "2.4" and response is StreamingResponse:
        return  # Starlette leaves it to the server to say so, at the next send

    async def endpoint(request: Request) -> Response:
        tg = request_task_group(request)
        begin(request, why, exchange)

        async def chunks() -> AsyncIterator[str]:
            try:
                yield "begin"
                if way == "await":
                    yield await tg.create_task(query())
                elif way == "gather":
                    yield (await tg.gather(query()))[0]
                else:
                    task = tg.create_task(query())
                    with anyio.fail_after(100):
                        yield await task
            finally:
                if middleware != "below":  # see the page of promises
                    for _ in range(3):
                        await asyncio.sleep(0.1)
                log.append("body ended")

        return response(chunks())  # type: ignore[no-any-return]

    base = Middleware(BaseHTTPMiddleware, dispatch=passes)
    app = Starlette(
        routes=[Route("/", endpoint, middleware=[base] if middleware == "below" else [])]
    )
    install(app)
    served = BaseHTTPMiddleware(app, dispatch=passes) if middleware == "above" else app
    exchange = Exchange(served)
    exchange.scope["asgi"]["spec_version"] = spec_version
    run(exchange.run(), stray="_shutdown_watcher")
    assert log == ["child cleaned up", "body ended"]
    if why != "the client leaves":  # who is sent what comes from a middleware, and reads nothing
        assert not exchange.is_complete


@pytest.mark.parametrize("make", [Starlette, FastAPI])
def test_child_of_a_task_of_the_handler(make: type[Starlette]) -> None:
    """R3, R4: A child cleans up for which a handler waits below a middleware that cancels it again
    and again, though it is a task of the handler that has asked for the group; the dependencies of
    the handler see what has failed."""

    async def session() -> AsyncIterator[None]:
        try:
            yield
        except ZeroDivisionError:
            log.append("session saw it")
            raise

    async def asks(request: Request) -> asyncio.Task[str]:
        tg = request_task_group(request)
        tg.create_task(fails())
        return tg.create_task(query())

    async def endpoint(request: Request) -> Response:
        child = await asyncio.create_task(asks(request))
        return Response(await child)

    app = make()
    if isinstance(app, FastAPI):
        app.get("/", dependencies=[Depends(session)])(endpoint)
    else:
        app.add_route("/", endpoint)
    run(Exchange(TaskGroupMiddleware(BaseHTTPMiddleware(app, dispatch=passes))).run())
    assert log == ["child cleaned up", "session saw it"][: 2 if make is FastAPI else 1]


@pytest.mark.parametrize("group", ["in use", "not in use"])
@pytest.mark.parametrize("why", ["the deadline passes", "a sibling fails"])
@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
def test_generator_whose_client_does_not_read(why: str, spec_version: str, group: str) -> None:
    """C5, R5, A6: The generator of a body that is cut while its client does not read is closed, in
    its own task and context, before the dependencies are."""
    if why == "a sibling fails" and group == "not in use":
        return
    app = FastAPI()
    context = ContextVar[str]("context")

    async def inner() -> AsyncIterator[str]:
        context.set("body")
        task = asyncio.current_task()
        try:
            while True:
                yield "chunk"
        finally:
            await asyncio.sleep(0.1)
            assert asyncio.current_task() is task
            log.append(f"inner closed in the context of the {context.get()}")

    async def chunks() -> AsyncIterator[str]:
        try:
            async for chunk in inner():
                yield chunk
        finally:
            log.append("body closed")

    @app.get("/")
    async def handler(request: Request, a: Annotated[None, Depends(closes)]) -> StreamingResponse:
        if group == "in use":
            request_task_group(request)
        begin(request, why, exchange)
        return StreamingResponse(chunks())

    install(app)

    async def does_not_read(message: Message) -> None:
        if message.get("more_body"):
            await forever()

    exchange = Exchange(app, on_send=does_not_read)
    exchange.scope["asgi"]["spec_version"] = spec_version
    run(exchange.run(), stray="_shutdown_watcher")
    assert log == [
        "body closed",
        "inner closed in the context of the body",
        "session closed",
    ]


@pytest.mark.parametrize("group", ["in use", "not in use"])
@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
def test_generator_that_the_server_does_not_send(spec_version: str, group: str) -> None:
    """R3: The generator of a body is closed before the dependencies are, and in its own task, also
    if the server raises an error of its own instead of sending a piece."""
    app = FastAPI()

    async def chunks() -> AsyncIterator[str]:
        task = asyncio.current_task()
        try:
            yield "first"
            yield "second"
        finally:
            await asyncio.sleep(0.1)
            assert asyncio.current_task() is task
            log.append("body closed")

    @app.get("/")
    async def handler(request: Request, a: Annotated[None, Depends(closes)]) -> StreamingResponse:
        if group == "in use":
            request_task_group(request)
        return StreamingResponse(chunks())

    install(app)

    async def has_left(message: Message) -> None:
        if message.get("body"):
            raise OSError

    exchange = Exchange(app, on_send=has_left)
    exchange.scope["asgi"]["spec_version"] = spec_version
    run(exchange.run())
    assert log == ["body closed", "session closed"]


async def closes() -> AsyncIterator[None]:
    try:
        yield
    finally:
        log.append("session closed")


@pytest.mark.parametrize("response", [StreamingResponse, EventSourceResponse])
@pytest.mark.parametrize("middleware", ["none", "below", "above"])
@pytest.mark.parametrize("group", ["in use", "not in use"])
@pytest.mark.parametrize("where", ["body", "finally"])
def test_uninterrupted_section_of_a_stream(
    where: str, group: str, middleware: str, response: Any
) -> None:
    """R7: A section that must not be cut holds in the body of a response, and in its clean-up."""

    async def endpoint(request: Request) -> Response:
        if group == "in use":
            request_task_group(request)
        exchange.disconnect_after(1)

        async def chunks() -> AsyncIterator[str]:
            yield "begin"
            try:
                if where == "body":
                    with uninterrupted(request):
                        await stores()
                await forever()
            finally:
                if where == "finally":
                    with uninterrupted(request):
                        await stores()

        return response(chunks())  # type: ignore[no-any-return]

    async def stores() -> None:
        for _ in range(20):
            await asyncio.sleep(0.1)
        log.append("stored")

    base = Middleware(BaseHTTPMiddleware, dispatch=passes)
    app = Starlette(
        routes=[Route("/", endpoint, middleware=[base] if middleware == "below" else [])]
    )
    install(app)
    exchange = Exchange(BaseHTTPMiddleware(app, dispatch=passes) if middleware == "above" else app)
    run(exchange.run(), stray="_shutdown_watcher")
    assert log == ["stored"]


# WebSockets


@pytest.mark.parametrize("make", ["starlette", "fastapi"])
def test_foreground_children_finish_before_a_close(make: str) -> None:
    """R6: A handler that closes lets its foreground children finish, and send, before the close
    takes effect; a background task that sends meanwhile fails for nothing."""

    async def talks(websocket: WebSocket) -> None:
        while True:
            await asyncio.sleep(1)
            await websocket.send_text("tick")

    async def stores(websocket: WebSocket) -> None:
        await asyncio.sleep(2.5)
        await websocket.send_text("stored")

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        tg = request_task_group(websocket)
        tg.create_background_task(talks(websocket))
        tg.create_task(stores(websocket))
        await websocket.close(1000)
        with pytest.raises(RuntimeError):
            await websocket.send_text("too late")

    app: Any = websocket_app(make, endpoint)
    socket = run(Socket(app).run())
    assert (socket.log, socket.error) == (
        ["accept", "send tick", "send tick", "send stored", "close 1000"],
        None,
    )


def websocket_app(make: str, endpoint: Callable[[WebSocket], Awaitable[None]]) -> Any:
    if make == "starlette":
        app: Any = Starlette()
        app.router.add_websocket_route("/", endpoint)
    else:
        app = fastapi = FastAPI()

        @fastapi.websocket("/")
        async def handler(websocket: WebSocket, tg: RequestTaskGroup) -> None:
            await endpoint(websocket)

    install(app)
    return app


def test_no_cancellation_is_left_of_a_client_that_has_left() -> None:
    """R6, R7: The task of a request whose client has left is not cancelled any more when the app
    has returned."""

    async def endpoint(websocket: WebSocket) -> None:
        cancel_on_disconnect(websocket)
        await websocket.accept()
        request_task_group(websocket).create_background_task(forever())
        async for _ in websocket.iter_text():
            pass

    app = websocket_app("starlette", endpoint)

    async def main(seconds: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        socket = Socket(app)
        asyncio.get_running_loop().call_later(seconds, socket.leave)
        await socket.run()
        assert task.cancelling() == 0
        await asyncio.sleep(0)
        assert socket.error is None

    for seconds in (0, 0.04, 0.05, 0.06, 1):
        run(main(seconds))


@pytest.mark.parametrize("kind", ["stream", "websocket"])
def test_uninterrupted_section_of_a_child(kind: str) -> None:
    """R7: It holds in a child too, and for a child that is awaited in it."""

    async def charges(conn: Any) -> None:
        with uninterrupted(conn):
            await asyncio.sleep(5)
        log.append("charged")

    async def awaits(conn: Any) -> None:
        with uninterrupted(conn):
            await request_task_group(conn).gather(asyncio.sleep(5))
        log.append("gathered")

    async def endpoint(request: Request) -> Response:
        tg = request_task_group(request)
        exchange.disconnect_after(1)
        tg.create_task(charges(request))
        tg.create_task(awaits(request))

        async def chunks() -> AsyncIterator[str]:
            yield "begin"
            await forever()

        return StreamingResponse(chunks())

    async def session(websocket: WebSocket) -> None:
        await websocket.accept()
        tg = request_task_group(websocket)
        tg.create_task(charges(websocket))
        tg.create_task(awaits(websocket))
        async for _ in websocket.iter_text():
            pass

    if kind == "websocket":
        socket = Socket(websocket_app("starlette", session))

        async def main() -> None:
            asyncio.get_running_loop().call_later(1, socket.leave)
            await socket.run()

        run(main())
        assert socket.error is None
    else:
        app = Starlette(routes=[Route("/", endpoint)])
        install(app)
        exchange = Exchange(app)
        run(exchange.run())
    assert sorted(log) == ["charged", "gathered"]


def test_thread_of_a_child_that_is_awaited() -> None:
    """R3: A child that waits for a thread is not cancelled by way of who awaits it, before the
    thread has ended: dependencies are open until then."""
    app = FastAPI()

    def works() -> None:
        has_begun.set()
        has_failed.wait()
        log.append("thread ends")

    async def fails_then() -> None:
        await asyncio.to_thread(has_begun.wait)
        asyncio.get_running_loop().call_soon(has_failed.set)
        raise ZeroDivisionError

    @app.get("/")
    async def handler(tg: RequestTaskGroup, a: Annotated[None, Depends(closes)]) -> None:
        task = tg.create_task(run_in_threadpool(works))
        tg.create_task(fails_then())
        await task

    has_begun, has_failed = threading.Event(), threading.Event()
    install(app)
    exchange = run(Exchange(app).run())
    assert exchange.status == 500
    assert log == ["thread ends", "session closed"]


def test_generator_that_yields_once_more() -> None:
    """R5: A body that yields once more when its feeder has ended, as the request has failed, is
    closed before the dependencies are."""
    app = FastAPI()

    @app.get("/")
    async def handler(
        tg: RequestTaskGroup, a: Annotated[None, Depends(closes)]
    ) -> StreamingResponse:
        ended = asyncio.Event()

        async def feeds() -> None:
            try:
                await forever()
            finally:
                ended.set()

        async def chunks() -> AsyncIterator[str]:
            try:
                yield "begin"
                await ended.wait()
                yield "once more"
            finally:
                await asyncio.sleep(0)
                log.append("body closed")

        tg.create_background_task(feeds())
        tg.create_task(fails())
        return StreamingResponse(chunks())

    install(app)
    exchange = run(Exchange(app).run())
    assert not exchange.is_complete
    assert log == ["body closed", "session closed"]


@pytest.mark.parametrize("way", ["await", "body alone"])
@pytest.mark.parametrize("response", [StreamingResponse, EventSourceResponse])
def test_client_that_has_left_before_the_response(response: Any, way: str) -> None:
    """C5, R7: So it is if the client has left before the handler returns its stream."""

    async def endpoint(request: Request) -> Response:
        tg = request_task_group(request)
        await asyncio.sleep(2)

        async def chunks() -> AsyncIterator[str]:
            try:
                yield "begin"
                await (tg.create_task(query()) if way == "await" else forever())
            finally:
                for _ in range(3):
                    await asyncio.sleep(0.1)
                log.append("body ended")

        return response(chunks())  # type: ignore[no-any-return]

    app = Starlette(routes=[Route("/", endpoint)])
    install(app)

    async def main() -> None:
        exchange.disconnect_after(1)
        await exchange.run()

    exchange = Exchange(app)
    run(main(), stray="_shutdown_watcher")
    assert log[-1:] == ["body ended"]
    assert exchange.error is None


@pytest.mark.parametrize("make", ["starlette", "fastapi"])
@pytest.mark.parametrize("where", ["route", "app"])
@pytest.mark.parametrize("why", ["the deadline passes", "the client leaves"])
def test_handler_below_a_middleware_cleans_up(why: str, where: str, make: str) -> None:
    """R7, R8: A handler that has asked for its group cleans up below a BaseHTTPMiddleware too, and
    the answer is what it is elsewhere."""

    async def endpoint(request: Request) -> Response:
        tg = request_task_group(request)
        if why == "the deadline passes":
            set_deadline(request, 1)
        else:
            cancel_on_disconnect(request)
            exchange.disconnect_after(1)
        try:
            await tg.create_task(query())
        finally:
            for _ in range(3):
                await asyncio.sleep(0.1)
            log.append("handler cleaned up")
        return Response()

    base = Middleware(BaseHTTPMiddleware, dispatch=passes)
    if make == "fastapi":
        app: Any = FastAPI()
        app.get("/")(endpoint)
    else:
        app = Starlette(
            routes=[Route("/", endpoint, middleware=[base] if where == "route" else [])]
        )
    served = TaskGroupMiddleware(BaseHTTPMiddleware(app, dispatch=passes))
    exchange = Exchange(served)
    run(exchange.run())
    assert (exchange.status, exchange.error) == (
        504 if why == "the deadline passes" else 499,
        None,
    )
    assert log == ["child cleaned up", "handler cleaned up"]


def test_client_leave_is_no_bug_of_a_mounted_app() -> None:
    """R7: A client that leaves a handler of a mounted app of FastAPI's is no failure of that app:
    its handler for errors is not called."""
    sub, app = FastAPI(), FastAPI()

    @sub.exception_handler(Exception)
    async def bug(request: Request, exc: Exception) -> Response:
        raise AssertionError

    @sub.get("/")
    async def handler(
        request: Request, tg: RequestTaskGroup, a: Annotated[None, Depends(closes)]
    ) -> None:
        cancel_on_disconnect(request)
        exchange.disconnect_after(1)
        await tg.create_task(query())

    app.mount("/sub", sub)
    install(app)
    exchange = Exchange(app, "/sub/")
    run(exchange.run())
    assert (exchange.status, exchange.error) == (499, None)
    assert log == ["child cleaned up", "session closed"]


async def waits_by_a_group(task: asyncio.Task[str]) -> None:
    async def waits() -> None:
        await task

    async with asyncio.TaskGroup() as inner:
        inner.create_task(waits())


async def waits_with_a_timeout(task: asyncio.Task[str]) -> None:
    await asyncio.wait_for(task, 3600)


@pytest.mark.parametrize("make", ["starlette", "fastapi"])
@pytest.mark.parametrize("who", ["the handler", "a child", "a child that is awaited"])
@pytest.mark.parametrize("why", ENDS)
@pytest.mark.parametrize("waits", [waits_by_a_group, waits_with_a_timeout])
def test_child_for_which_others_wait_cleans_up(
    waits: Callable[[asyncio.Task[str]], Awaitable[None]], why: str, who: str, make: str
) -> None:
    """R3, C5: The clean-up of a child for which the handler waits, or another child, by a group or
    with a timeout, is not cut, nor is theirs."""

    async def waits_and_cleans_up(request: Request) -> None:
        task = request_task_group(request).create_task(query())
        try:
            await waits(task)
            await forever()
        finally:
            await asyncio.sleep(1)
            log.append("cleaned up")

    async def endpoint(request: Request) -> None:
        cancel_on_disconnect(request)
        begin(request, why, exchange)
        if who == "the handler":
            await waits_and_cleans_up(request)
        task = request_task_group(request).create_task(waits_and_cleans_up(request))
        await (task if who == "a child that is awaited" else forever())

    app = Starlette(routes=[Route("/", endpoint)])
    if make == "fastapi":
        app = FastAPI()

        @app.get("/")
        async def handler(request: Request) -> None:
            await endpoint(request)

    install(app)
    exchange = Exchange(app)
    run(exchange.run())
    assert log == ["child cleaned up", "cleaned up"]
    assert exchange.status == {ENDS[0]: 499, ENDS[1]: 504, ENDS[2]: 500}[why]


def test_child_that_cleans_up_when_a_thread_has_ended() -> None:
    """R3: The handler that waits for a thread is cancelled when that has ended, and the clean-up of
    a child for which it waits as well is not cut then."""
    release = threading.Event()

    async def waits_for(thread: asyncio.Task[object]) -> None:
        try:
            await forever()
        finally:
            release.set()
            await asyncio.wait({thread})
            for _ in range(3):
                await asyncio.sleep(0.1)
            log.append("child cleaned up")

    async def endpoint(request: Request) -> None:
        tg = request_task_group(request)
        thread = asyncio.create_task(run_in_threadpool(release.wait))
        tg.create_task(fails())
        await asyncio.gather(tg.create_task(waits_for(thread)), thread)

    app = Starlette(routes=[Route("/", endpoint)])
    install(app)
    assert run(Exchange(app).run()).status == 500
    assert log == ["child cleaned up"]


def test_host_that_goes_on_after_its_stream() -> None:
    """R4: Who runs the app in a task is cancelled when that has ended by itself, as a child for
    which it waited was cancelled, and not only when its time for that is over."""

    async def endpoint(request: Request) -> Response:
        tg = request_task_group(request)
        tg.create_task(fails())

        async def chunks() -> AsyncIterator[str]:
            yield "begin"
            try:
                yield await tg.create_task(query())
            finally:
                await asyncio.sleep(0.1)

        return StreamingResponse(chunks())

    inner, tasks = Starlette(routes=[Route("/", endpoint)]), list[asyncio.Task[None]]()

    async def goes_on(scope: Scope, receive: Receive, send: Send) -> None:
        tasks.append(asyncio.create_task(inner(scope, receive, send)))
        await forever()

    async def main() -> float:
        asgi = {"version": "3.0", "spec_version": "2.4"}
        exchange = await get(TaskGroupMiddleware(goes_on), asgi=asgi)
        assert isinstance(exchange.error, ZeroDivisionError)
        return asyncio.get_running_loop().time()

    assert run(main()) == pytest.approx(1.4)
    assert log == ["child cleaned up"]


def test_child_of_a_websocket_handler_in_a_cancel_scope() -> None:
    """R3: Children for which a handler that has returned waits clean up before its dependencies
    close, also if a cancel scope of anyio's cancels it again and again."""

    async def session() -> AsyncIterator[None]:
        try:
            yield
        finally:
            log.append("dependency closed")

    inner = FastAPI()

    @inner.websocket("/", dependencies=[Depends(session, scope="function")])
    async def handler(websocket: WebSocket, tg: RequestTaskGroup) -> None:
        tg.create_task(child())

    async def child() -> None:
        try:
            await forever()
        finally:
            await ticks(log, "child cleaned up")

    async def in_a_scope(scope: Scope, receive: Receive, send: Send) -> None:
        with anyio.move_on_after(1):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(inner, scope, receive, send)

    run(Socket(TaskGroupMiddleware(in_a_scope)).run())
    assert log == ["child cleaned up", "dependency closed"]


def test_child_that_a_response_awaits_before_it_begins() -> None:
    """R3: A child that a response awaits before its start cleans up below a BaseHTTPMiddleware as
    well, when another one fails."""

    class Waits(Response):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await request_task_group(scope).create_task(query())

    app = FastAPI(
        middleware=[
            Middleware(TaskGroupMiddleware),
            Middleware(BaseHTTPMiddleware, dispatch=passes),
        ]
    )

    @app.get("/")
    async def handler(tg: RequestTaskGroup) -> Response:
        tg.create_task(fails())
        return Waits()

    run(get(app))
    assert log == ["child cleaned up"]
