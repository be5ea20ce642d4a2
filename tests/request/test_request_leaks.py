"""What a request leaves in memory: nothing that waits for the garbage collector."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from starlette import _exception_handler
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from quattro_core import TaskGroup
from quattro_web import (
    TaskGroupMiddleware,
    cancel_on_disconnect,
    install,
    request_task_group,
    set_deadline,
)
from quattro_web._util.scope import REQUEST
from tests.request.failing import fail
from tests.request.sessions import function_session, request_session
from tests.support.asgi import Exchange, Socket, run

Way = Callable[[HTTPConnection], Awaitable[Response]]


class Stream(Response):
    """A stream that its own task sends: anyio's groups leave cycles when something fails."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        super().__init__()
        self.chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        async for chunk in self.chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def forever() -> Response:
    await asyncio.Event().wait()
    raise AssertionError


# For a WebSocket, what they return says nothing.


async def returns(conn: HTTPConnection) -> Response:
    return PlainTextResponse("done")


async def raises(conn: HTTPConnection) -> Response:
    raise LookupError


async def raises_a_group(conn: HTTPConnection) -> Response:
    async with TaskGroup() as tg:
        tg.create_task(fail(HTTPException(404)))
    raise AssertionError


async def raises_a_group_whose_handler_fails(conn: HTTPConnection) -> Response:
    async with TaskGroup() as tg:
        tg.create_task(fail(IndexError()))
    raise AssertionError


async def raises_a_group_with_no_handler(conn: HTTPConnection) -> Response:
    async with TaskGroup() as tg:
        tg.create_task(fail(LookupError()))
    raise AssertionError


async def has_a_deadline(conn: HTTPConnection) -> Response:
    set_deadline(conn, 1)
    return PlainTextResponse("done")


async def exceeds_its_deadline(conn: HTTPConnection) -> Response:
    set_deadline(conn, 1)
    return await forever()


async def is_left(conn: HTTPConnection) -> Response:
    cancel_on_disconnect(conn)
    return await forever()


async def is_watched(conn: HTTPConnection) -> Response:
    cancel_on_disconnect(conn)
    await asyncio.sleep(1)
    return PlainTextResponse("done")


async def asks(conn: HTTPConnection) -> Response:
    request_task_group(conn)
    return PlainTextResponse("done")


async def has_children(conn: HTTPConnection) -> Response:
    tg = request_task_group(conn)
    tg.create_background_task(forever())
    tg.create_task(asyncio.sleep(1))
    await tg.create_task(asyncio.sleep(0))
    return PlainTextResponse("done")


async def has_children_and_raises(conn: HTTPConnection) -> Response:
    request_task_group(conn).create_task(forever())
    await asyncio.sleep(0)
    raise LookupError


async def has_children_and_refuses(conn: HTTPConnection) -> Response:
    request_task_group(conn).create_task(forever())
    raise HTTPException(403)


async def has_children_and_exceeds_its_deadline(conn: HTTPConnection) -> Response:
    request_task_group(conn).create_task(forever())
    return await exceeds_its_deadline(conn)


async def has_children_and_is_left(conn: HTTPConnection) -> Response:
    request_task_group(conn).create_task(forever())
    return await is_left(conn)


async def has_a_child_that_is_told_of_the_leaving(conn: HTTPConnection) -> Response:
    request_task_group(conn).create_task(fail(WebSocketDisconnect()))
    return PlainTextResponse("done")


async def fails(conn: HTTPConnection) -> Response:
    request_task_group(conn).create_task(fail(LookupError()))
    return PlainTextResponse("never sent")


async def fails_with_a_handler(conn: HTTPConnection) -> Response:
    request_task_group(conn).create_task(fail(HTTPException(404)))
    return PlainTextResponse("never sent")


async def fails_meanwhile(conn: HTTPConnection) -> Response:
    request_task_group(conn).create_task(fail(LookupError()))
    return await forever()


async def fails_meanwhile_with_a_handler(conn: HTTPConnection) -> Response:
    request_task_group(conn).create_task(fail(KeyError()))
    return await forever()


async def fails_awaited(conn: HTTPConnection) -> Response:
    await request_task_group(conn).create_task(fail(LookupError()))
    raise AssertionError


async def fails_several_times(conn: HTTPConnection) -> Response:
    tg = request_task_group(conn)
    tg.create_task(fail(LookupError()))
    tg.create_task(fail(HTTPException(404)))
    return PlainTextResponse("never sent")


async def fails_several_times_with_handlers(conn: HTTPConnection) -> Response:
    tg = request_task_group(conn)
    tg.create_task(fail(KeyError()))
    tg.create_task(fail(HTTPException(404)))
    return PlainTextResponse("never sent")


async def fails_in_its_handler(conn: HTTPConnection) -> Response:
    request_task_group(conn).create_task(fail(IndexError()))
    return PlainTextResponse("never sent")


async def fails_while_it_fails(conn: HTTPConnection) -> Response:
    tg = request_task_group(conn)
    tg.create_task(fail(LookupError()))
    await asyncio.sleep(0)
    raise ValueError


async def cancels_its_group(conn: HTTPConnection) -> Response:
    request_task_group(conn).cancel()
    return await forever()


async def exits(conn: HTTPConnection) -> Response:
    raise SystemExit(3)


async def has_a_child_that_exits(conn: HTTPConnection) -> Response:
    request_task_group(conn).create_task(fail(SystemExit(3)))
    return PlainTextResponse("never sent")


async def streams(conn: HTTPConnection) -> Response:
    tg = request_task_group(conn)

    async def chunks() -> AsyncIterator[bytes]:
        await asyncio.sleep(1)  # its start leaves before
        yield b"a"
        tg.create_task(asyncio.sleep(1))

    return Stream(chunks())


async def streams_at_once(conn: HTTPConnection) -> Response:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"a"

    request_task_group(conn)
    return Stream(chunks())


async def streams_and_raises_at_once(conn: HTTPConnection) -> Response:
    async def chunks() -> AsyncIterator[bytes]:
        raise LookupError
        yield b"a"

    request_task_group(conn)
    return Stream(chunks())


async def streams_and_raises(conn: HTTPConnection) -> Response:
    request_task_group(conn)

    async def chunks() -> AsyncIterator[bytes]:
        yield b"a"
        raise LookupError

    return Stream(chunks())


async def streams_and_fails(conn: HTTPConnection) -> Response:
    tg = request_task_group(conn)

    async def chunks() -> AsyncIterator[bytes]:
        yield b"a"
        tg.create_task(fail(LookupError()))
        await forever()

    return Stream(chunks())


async def streams_and_is_cut(conn: HTTPConnection) -> Response:
    set_deadline(conn, 1, stream=1)

    async def chunks() -> AsyncIterator[bytes]:
        yield b"a"
        await forever()

    return Stream(chunks())


async def streams_and_is_left(conn: HTTPConnection) -> Response:
    cancel_on_disconnect(conn)

    async def chunks() -> AsyncIterator[bytes]:
        yield b"a"
        await forever()

    return Stream(chunks())


async def is_cancelled_by_its_server(conn: HTTPConnection) -> Response:
    request_task_group(conn).create_task(forever())
    asyncio.get_running_loop().call_soon(conn.scope["serving"]().cancel)
    return await forever()


async def raises_and_is_cancelled_by_its_server(conn: HTTPConnection) -> Response:
    async def child() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0.01)

    request_task_group(conn).create_task(child())
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(conn.scope["serving"]().cancel)
    raise LookupError


async def is_cut_in_its_handler(conn: HTTPConnection) -> Response:
    request_task_group(conn)
    raise InterruptedError


async def fails_and_is_cut_in_its_handler(conn: HTTPConnection) -> Response:
    request_task_group(conn).create_task(fail(InterruptedError()))
    return await forever()


WAYS: list[Way] = [
    returns,
    raises,
    raises_a_group,
    raises_a_group_whose_handler_fails,
    raises_a_group_with_no_handler,
    has_a_deadline,
    exceeds_its_deadline,
    is_left,
    is_watched,
    asks,
    has_children,
    has_children_and_raises,
    has_children_and_refuses,
    has_children_and_exceeds_its_deadline,
    has_children_and_is_left,
    has_a_child_that_is_told_of_the_leaving,
    fails,
    fails_with_a_handler,
    fails_meanwhile,
    fails_meanwhile_with_a_handler,
    fails_awaited,
    fails_several_times,
    fails_several_times_with_handlers,
    fails_in_its_handler,
    fails_while_it_fails,
    cancels_its_group,
    exits,
    has_a_child_that_exits,
    is_cancelled_by_its_server,
    raises_and_is_cancelled_by_its_server,
    is_cut_in_its_handler,
    fails_and_is_cut_in_its_handler,
]
STREAMS: list[Way] = [
    streams,
    streams_at_once,
    streams_and_raises_at_once,
    streams_and_raises,
    streams_and_fails,
    streams_and_is_cut,
    streams_and_is_left,
]

# An exit stack of contextlib's leaves a cycle if a callback raises something else than it was told:
# FastAPI has one around its handlers, and they are told a cancellation here.
OF_CONTEXTLIB: set[Way] = {
    exceeds_its_deadline,
    is_left,
    has_children_and_exceeds_its_deadline,
    has_children_and_is_left,
    fails_meanwhile,
    fails_meanwhile_with_a_handler,
    fails_and_is_cut_in_its_handler,
    raises_and_is_cancelled_by_its_server,
    cancels_its_group,
}


async def respond(conn: Any, exc: Exception) -> Response | None:
    if isinstance(exc, IndexError):
        request_task_group(conn)
        raise ValueError from exc
    if isinstance(exc, InterruptedError):
        asyncio.get_running_loop().call_soon(conn.scope[REQUEST].cut_off, conn)
        await forever()
    if isinstance(conn, WebSocket):
        await conn.close(4000)
        return None
    return PlainTextResponse("failed", 409)


HANDLERS: Any = {KeyError: respond, IndexError: respond, InterruptedError: respond}


def starlette(way: Way, seen: list[weakref.ref[object]]) -> Starlette:
    async def endpoint(request: Request) -> Response:
        note(request, seen)
        return await way(request)

    async def socket(websocket: WebSocket) -> None:
        note(websocket, seen)
        await websocket.accept()
        await way(websocket)
        await websocket.close()

    routes = [Route("/", endpoint), WebSocketRoute("/", socket)]
    app = Starlette(routes=routes, exception_handlers=HANDLERS)
    install(app)
    return app


def fastapi(way: Way, seen: list[weakref.ref[object]]) -> FastAPI:
    app = FastAPI(exception_handlers=HANDLERS)
    sessions = [Depends(request_session), Depends(function_session, scope="function")]

    @app.get("/", dependencies=[] if way in STREAMS else sessions)
    async def handler(request: Request) -> Response:
        note(request, seen)
        return await way(request)

    @app.websocket("/", dependencies=sessions)
    async def socket(websocket: WebSocket) -> None:
        note(websocket, seen)
        await websocket.accept()
        await way(websocket)
        await websocket.close()

    install(app)
    return app


def sub_app(way: Way, seen: list[weakref.ref[object]]) -> Starlette:
    app = Starlette(routes=[Mount("/", starlette(way, seen))])
    install(app)
    return app


def watched_sub_app(way: Way, seen: list[weakref.ref[object]]) -> Starlette:
    sub = starlette(way, seen)

    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        cancel_on_disconnect(scope)
        await sub(scope, receive, send)

    app = Starlette(routes=[Mount("/", watched)])
    install(app)
    return app


def asgi(way: Way, seen: list[weakref.ref[object]]) -> TaskGroupMiddleware:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            request = Request(scope, receive, send)
            note(request, seen)
            await (await way(request))(scope, receive, send)
        else:
            websocket = WebSocket(scope, receive, send)
            note(websocket, seen)
            await websocket.accept()
            await way(websocket)
            await websocket.close()

    return TaskGroupMiddleware(app)


class Marker:
    """An object that lives as long as the scope that holds it."""


def note(conn: HTTPConnection, seen: list[weakref.ref[object]]) -> None:
    conn.scope["marker"] = Marker()
    seen += map(weakref.ref, (conn.scope["marker"], conn.scope[REQUEST]))


async def serve(app: ASGIApp, kind: str, way: Way) -> None:
    client: Exchange | Socket = Exchange(app) if kind == "http" else Socket(app)
    serving = asyncio.create_task(_serve(client))
    client.scope["serving"] = weakref.ref(serving)
    if "left" in way.__name__:
        await asyncio.sleep(0.1)
        client.disconnect() if isinstance(client, Exchange) else client.leave()
    await asyncio.wait((serving,))


async def _serve(client: Exchange | Socket) -> None:
    receive = client.receive if isinstance(client, Exchange) else client.inbox.get
    try:
        await client.app(client.scope, receive, client.send)
    except BaseException as exc:  # as servers do
        client.log.append(repr(exc))


@pytest.fixture
def no_garbage_collector() -> Iterator[None]:
    """Keep that from running, and pytest from keeping what has failed with the log entries."""
    logger = logging.getLogger("quattro_web")
    logger.disabled = True
    gc.disable()
    yield
    gc.enable()
    logger.disabled = False


@pytest.mark.skipif(
    "__traceback__" not in inspect.getsource(_exception_handler),
    reason="this Starlette keeps where the errors were raised that it has answered",
)
@pytest.mark.usefixtures("no_garbage_collector")
@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("make", [starlette, fastapi, sub_app, watched_sub_app, asgi])
def test_nothing_is_left_of_a_request(make: Callable[..., ASGIApp], kind: str) -> None:
    """R9: However a request ends, it leaves no cycle of references: its scope is freed at once."""

    async def leaves(way: Way) -> bool:
        seen: list[weakref.ref[object]] = []
        app = make(way, seen)
        await asyncio.create_task(serve(app, kind, way))
        await asyncio.sleep(0)
        assert len(seen) == 2
        return [each() for each in seen] != [None, None]

    async def main() -> list[str]:
        ways = [*WAYS, *STREAMS] if kind == "http" else WAYS
        ways = [way for way in ways if make is not fastapi or way not in OF_CONTEXTLIB]
        return [way.__name__ for way in ways if await leaves(way)]

    assert run(main()) == []


def test_who_asks_again_is_kept_once() -> None:
    """R9: A connection that asks for its group with each message keeps no more for that."""

    async def endpoint(websocket: WebSocket) -> None:
        for _ in range(3):
            request_task_group(websocket)
        assert websocket.scope[REQUEST].group.askers == (asyncio.current_task(),)
        await websocket.accept()

    app = Starlette(routes=[WebSocketRoute("/", endpoint)])
    install(app)
    assert run(Socket(app).run()).error is None
