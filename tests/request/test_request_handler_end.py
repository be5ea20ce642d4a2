"""The moment at which a handler ends: what it has started ends then, whoever stands around it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from io import BytesIO
from typing import Any

import pytest
from fastapi import FastAPI, UploadFile, WebSocket
from fastapi.exceptions import WebSocketException
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from quattro_web import (
    TaskGroupMiddleware,
    cancel_on_disconnect,
    install,
    request_task_group,
    set_deadline,
)
from quattro_web.fastapi import RequestTaskGroup
from tests.request.failing import Teapot
from tests.support.asgi import Exchange, Socket, get, run

Endpoint = Callable[[Any], Awaitable[Any]]


async def cleans_up(log: list[str]) -> None:
    """Be a child that has no end of its own, and takes its time to clean up."""
    try:
        await asyncio.Event().wait()
    finally:
        for _ in range(3):
            await asyncio.sleep(0.01)
        log.append("child ended")


async def fails_later(error: Exception) -> None:
    await asyncio.sleep(3)
    raise error


def starlette_app(endpoint: Endpoint, **options: Any) -> Starlette:
    return Starlette(routes=[Route("/", endpoint), WebSocketRoute("/ws", endpoint)], **options)


def fastapi_app(endpoint: Endpoint, **options: Any) -> FastAPI:
    """Return an app of FastAPI's with the same routes: the group is asked for in the handler."""
    app = FastAPI(**options)

    @app.get("/")
    async def handler(request: Request) -> Any:
        return await endpoint(request)

    @app.websocket("/ws")
    async def session(websocket: WebSocket) -> None:
        await endpoint(websocket)

    return app


def injected_app(endpoint: Endpoint, **options: Any) -> FastAPI:
    """Return one whose group is a dependency."""
    app = FastAPI(**options)

    @app.get("/")
    async def handler(request: Request, tg: RequestTaskGroup) -> Any:
        return await endpoint(request)

    @app.websocket("/ws")
    async def session(websocket: WebSocket, tg: RequestTaskGroup) -> None:
        await endpoint(websocket)

    return app


def installed(app: Any) -> ASGIApp:
    install(app)
    return app  # type: ignore[no-any-return]


def mounted(app: Any) -> ASGIApp:
    outer = Starlette(routes=[Mount("/sub", app)])
    install(outer)

    async def at_its_path(scope: Scope, receive: Receive, send: Send) -> None:
        await outer({**scope, "path": "/sub" + scope["path"]}, receive, send)

    return at_its_path


def by_hand(app: Any) -> ASGIApp:
    return TaskGroupMiddleware(app)


async def passes(request: Request, call_next: Any) -> Response:
    response: Response = await call_next(request)
    await asyncio.sleep(0)
    return response


def below(app: Any) -> ASGIApp:
    """Put the app below a middleware that runs it in a task of its own, and that below ours."""
    return by_hand(BaseHTTPMiddleware(app, dispatch=passes))


def above(app: Any) -> ASGIApp:
    return BaseHTTPMiddleware(by_hand(app), dispatch=passes)


APPS = [starlette_app, fastapi_app, injected_app]
PLACES = [installed, mounted, by_hand, below, above]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("make", APPS)
def test_children_end_before_an_exception_handler_runs(make: Any, place: Any) -> None:
    """R3: A handler that raises has its children cancelled then: they have cleaned up before an
    exception handler runs, and none of them holds up the answer or is answered instead."""
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        tg = request_task_group(request)
        tg.create_task(cleans_up(log))
        tg.create_background_task(fails_later(HTTPException(404)))
        await asyncio.sleep(0)
        raise Teapot

    async def answers(request: Request, exc: Exception) -> Response:
        log.append(type(exc).__name__)
        await asyncio.sleep(10)  # nothing cuts it
        log.append("answers")
        return PlainTextResponse("teapot", 418)

    app = place(make(endpoint, exception_handlers={Teapot: answers}))
    exchange = run(get(app))
    assert (exchange.status, exchange.body, exchange.error) == (418, b"teapot", None)
    assert log == ["child ended", "Teapot", "answers"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("make", APPS)
def test_bug_is_not_hidden_by_a_child(make: Any, place: Any) -> None:
    """R3, R4: A bug of the handler is a 500 at once, and leaves the app to be logged, though a
    child that still runs is about to raise a 404."""
    bug = ZeroDivisionError()

    async def endpoint(request: Request) -> Response:
        request_task_group(request).create_task(fails_later(HTTPException(404)))
        await asyncio.sleep(0)
        raise bug

    async def main() -> tuple[Exchange, float]:
        return await get(place(make(endpoint))), asyncio.get_running_loop().time()

    exchange, seconds = run(main())
    assert (exchange.status, exchange.error, seconds) == (500, bug, 0)


@pytest.mark.parametrize("place", [installed, mounted, by_hand, below, above])
@pytest.mark.parametrize("make", APPS)
def test_exception_handler_may_stream(make: Any, place: Any) -> None:
    """R3, R4: An exception handler may answer with a stream, after the children."""
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        request_task_group(request).create_task(cleans_up(log))
        await asyncio.sleep(0)
        raise Teapot

    async def streams(request: Request, exc: Exception) -> Response:
        async def chunks() -> Any:
            for chunk in "abc":
                await asyncio.sleep(1)
                log.append(chunk)
                yield chunk

        return StreamingResponse(chunks(), 418)

    exchange = run(get(place(make(endpoint, exception_handlers={Teapot: streams}))))
    assert (exchange.status, exchange.body, exchange.error) == (418, b"abc", None)
    assert log == ["child ended", "a", "b", "c"]


@pytest.mark.parametrize("error", [WebSocketException(4001), Teapot()])
@pytest.mark.parametrize("place", [installed, mounted, by_hand])
@pytest.mark.parametrize("make", APPS)
def test_websocket_handler_that_raises_closes_at_once(
    make: Any, place: Any, error: Exception
) -> None:
    """R3, R6: The close of a WebSocket whose handler raises does not wait for its children, and
    none of them closes it with a code of its own."""
    log: list[str] = []

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        tg = request_task_group(websocket)
        tg.create_task(fails_later(WebSocketException(4444)))
        tg.create_task(cleans_up(log))
        await asyncio.sleep(0)
        raise error

    async def closes(websocket: WebSocket, exc: Exception) -> None:
        await asyncio.sleep(0)
        await websocket.close(4001)

    async def main() -> tuple[Socket, float]:
        socket = await Socket(
            place(make(endpoint, exception_handlers={Teapot: closes})), "/ws", log=log
        ).run()
        return socket, asyncio.get_running_loop().time()

    socket, seconds = run(main())
    assert (socket.log, socket.error) == (["accept", "child ended", "close 4001"], None)
    assert seconds < 1


@pytest.mark.parametrize("where", ["route", "mount"])
def test_children_end_below_the_middlewares_of_a_route(where: str) -> None:
    """R3, R4: They have ended before a middleware of the route sees what the handler has raised,
    with an exception handler and without one."""
    log: list[str] = []

    class Watches:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await self.app(scope, receive, send)
            except ZeroDivisionError:
                log.append("seen by the middleware")
                raise

    async def endpoint(request: Request) -> Response:
        request_task_group(request).create_task(cleans_up(log))
        await asyncio.sleep(0)
        raise errors.pop()

    async def teapot(request: Request, exc: Exception) -> Response:
        log.append("teapot")
        return PlainTextResponse("", 418)

    middleware = [Middleware(Watches), Middleware(BaseHTTPMiddleware, dispatch=passes)]
    route = Route("/", endpoint, middleware=middleware if where == "route" else None)
    if where == "mount":
        routes: list[Any] = [Mount("/", routes=[route], middleware=middleware)]
    else:
        routes = [route]
    app = Starlette(routes=routes, exception_handlers={Teapot: teapot})
    install(app)
    errors: list[Exception] = [Teapot(), ZeroDivisionError()]
    exchange = run(get(app))
    assert (exchange.status, log) == (500, ["child ended", "seen by the middleware"])
    log.clear()
    exchange = run(get(app))
    assert (exchange.status, log) == (418, ["child ended", "teapot"])


@pytest.mark.parametrize("status", [200, 418])
def test_upload_is_open_until_the_children_have_ended(status: int) -> None:
    """R3: A file that was uploaded is closed after the children, also by a handler that raises."""
    log: list[str] = []

    async def reads(file: UploadFile) -> None:
        try:
            await asyncio.sleep(5)
        finally:
            await asyncio.sleep(0.1)
            log.append((await file.read()).decode())

    app = FastAPI()

    @app.post("/")
    async def handler(file: UploadFile, tg: RequestTaskGroup) -> None:
        tg.create_task(reads(file))
        await asyncio.sleep(0)
        if status == 418:
            raise HTTPException(418)

    install(app)
    request = form(BytesIO(b"content"))
    exchange = run(Exchange(app, **request).run())
    assert (exchange.status, log) == (status, ["content"])


def form(file: BytesIO) -> dict[str, Any]:
    """Return a request that uploads a file."""
    body = (
        b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
        + file.read()
        + b"\r\n--x--\r\n"
    )
    headers = [("content-type", "multipart/form-data; boundary=x")]
    return {"method": "POST", "headers": headers, "body": [body]}


def test_failure_of_an_exception_handler_is_not_lost(caplog: pytest.LogCaptureFixture) -> None:
    """R4: What an exception handler raises in its turn is answered and leaves the app, though the
    request had children that would have failed meanwhile."""
    bug = ZeroDivisionError()

    async def endpoint(request: Request) -> Response:
        request_task_group(request).create_task(fails_later(HTTPException(404)))
        raise Teapot

    async def answers(request: Request, exc: Exception) -> Response:
        await asyncio.sleep(10)
        raise bug

    app = installed(starlette_app(endpoint, exception_handlers={Teapot: answers}))
    with caplog.at_level(logging.WARNING):
        exchange = run(get(app))
    assert (exchange.status, exchange.error) == (500, bug)


@pytest.mark.parametrize("why", ["deadline", "failure"])
@pytest.mark.parametrize("place", [installed, below])
@pytest.mark.parametrize("make", [starlette_app, fastapi_app])
def test_group_that_a_task_of_the_handler_asks_for(make: Any, place: Any, why: str) -> None:
    """R4, R7, R8: The handler is cancelled also if the first to ask for its group is a task that it
    has started, which ends before it."""

    async def helps(request: Request) -> None:
        tg = request_task_group(request)
        if why == "failure":
            tg.create_task(fails_later(HTTPException(404)))
        await asyncio.sleep(30)

    async def endpoint(request: Request) -> Response:
        if why == "deadline":
            set_deadline(request, 3)
        async with asyncio.TaskGroup() as group:
            helper = group.create_task(helps(request))
            await asyncio.sleep(1)
            helper.cancel()
        await asyncio.sleep(100)
        raise AssertionError

    async def main() -> tuple[Exchange, float]:
        return await get(place(make(endpoint))), asyncio.get_running_loop().time()

    exchange, seconds = run(main())
    assert (exchange.status, exchange.error) == (504 if why == "deadline" else 404, None)
    assert seconds == 3


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("make", [starlette_app, fastapi_app])
def test_task_of_the_handler_that_goes_on(make: Any, kind: str) -> None:
    """R4, R6: The handler is cancelled at once, and such a task is for the handler to end."""
    log: list[float] = []

    async def helps(conn: HTTPConnection) -> None:
        request_task_group(conn).create_task(fails_later(HTTPException(404)))
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(2)

    async def endpoint(conn: Any) -> Response:
        if kind == "websocket":
            await conn.accept()
        helper = asyncio.create_task(helps(conn))
        try:
            await asyncio.sleep(100)
        finally:
            log.append(asyncio.get_running_loop().time())
            helper.cancel()
            await asyncio.wait([helper])
        raise AssertionError

    app = installed(make(endpoint))
    client = Exchange(app) if kind == "http" else Socket(app, "/ws")
    run(client.run())
    assert "start 404" in client.log or "close 1011" in client.log
    assert log == [3]


def test_task_of_the_body_that_goes_on() -> None:
    """R4: So it is with the body of a response that streams, and a task of its own."""
    log: list[float] = []

    async def endpoint(request: Request) -> Response:
        async def helps() -> None:
            request_task_group(request).create_task(fails_later(Teapot()))
            try:
                await asyncio.sleep(100)
            finally:
                await asyncio.sleep(2)

        async def body() -> AsyncIterator[bytes]:
            request_task_group(request)
            yield b"piece"
            helper = asyncio.create_task(helps())
            try:
                await asyncio.sleep(100)
            finally:
                log.append(asyncio.get_running_loop().time())
                helper.cancel()
                await asyncio.wait([helper])

        return StreamingResponse(body())

    exchange = run(get(installed(starlette_app(endpoint))))
    assert exchange.log == ["start 200", "chunk piece", "raised Teapot"]
    assert log == [3]


def test_app_that_listens_in_another_task() -> None:
    """R7, R10: An app that streams, and has a task that listens for its client's leaving, is not
    cancelled when that is told."""
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"piece", "more_body": True})
        request_task_group(scope)
        await receive()
        message = await asyncio.ensure_future(receive())
        log.append(message["type"])
        await asyncio.sleep(1)
        log.append("ends")

    async def main() -> None:
        await Exchange(by_hand(app)).disconnect_after(1).run()

    run(main())
    assert log == ["http.disconnect", "ends"]


@pytest.mark.parametrize("why", ["deadline", "disconnect"])
@pytest.mark.parametrize("make", APPS)
def test_answer_to_a_failure_is_not_cut(make: Any, why: str) -> None:
    """R7, R8: What a failed request is answered with is decided at the handler's end: neither a
    deadline that passes nor a client that leaves cuts the exception handler, or calls it twice."""
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        tg = request_task_group(request)
        if why == "deadline":
            set_deadline(request, 1)
        else:
            cancel_on_disconnect(request)
            exchange.disconnect_after(1)
        tg.create_task(cleans_up(log))
        await asyncio.sleep(0.1)
        raise Teapot

    async def answers(request: Request, exc: Exception) -> Response:
        log.append("called")
        await asyncio.sleep(10)
        return PlainTextResponse("", 418)

    exchange = Exchange(installed(make(endpoint, exception_handlers={Teapot: answers})))
    run(exchange.run())
    assert (exchange.status, exchange.error) == (418, None)
    assert log == ["child ended", "called"]


@pytest.mark.parametrize("way", ["await", "gather", "map"])
def test_exception_handler_below_a_middleware_is_called_once(way: str) -> None:
    """R3, R4: Below a BaseHTTPMiddleware too, a handler that awaits a child which fails has its
    exception handler called once, and not cut."""
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        tg = request_task_group(request)
        if way == "await":
            await tg.create_task(fails_later(Teapot()))
        elif way == "gather":
            await tg.gather(fails_later(Teapot()), cleans_up(log))
        else:
            async for _ in tg.map(fails_later, [Teapot()], limit=2):
                pass
        raise AssertionError

    async def answers(request: Request, exc: Exception) -> Response:
        log.append("called")
        for _ in range(10):
            await asyncio.sleep(0.01)
        log.append("answers")
        return PlainTextResponse("", 418)

    base = Middleware(BaseHTTPMiddleware, dispatch=passes)
    routes = [Route("/", endpoint, middleware=[base])]
    app = Starlette(routes=routes, exception_handlers={Teapot: answers})
    install(app)
    exchange = run(get(app))
    assert (exchange.status, exchange.error) == (418, None)
    assert log == (["child ended"] if way == "gather" else []) + ["called", "answers"]


def test_what_passes_a_middleware_is_the_same_after_a_group_was_used() -> None:
    """R10: What a response without a group raises in its middle is the same for a middleware of its
    route, whether other requests of the app have used their groups or not."""
    seen: list[BaseException] = []

    class Sees:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await self.app(scope, receive, send)
            except Exception as exc:
                seen.append(exc)
                raise

    async def stream(request: Request) -> Response:
        async def chunks() -> Any:
            yield "a"
            raise bug

        return StreamingResponse(chunks())

    async def waits(request: Request) -> Response:
        request_task_group(request).create_task(fails_later(bug))
        return PlainTextResponse("never seen")

    bug = ZeroDivisionError()
    middleware = [Middleware(Sees)]
    routes = [Route("/stream", stream, middleware=middleware)]
    app = Starlette(routes=[*routes, Route("/waits", waits, middleware=middleware)])
    install(app)
    for path in ("/stream", "/waits", "/stream"):
        assert run(get(app, path)).error is bug
    assert seen == [bug] * 3


@pytest.mark.parametrize("make", APPS)
@pytest.mark.parametrize("by", ["handler", "child"])
def test_failure_that_came_before_the_deadline(by: str, make: Any) -> None:
    """R4, R8: A deadline that passes while the children of a failed request clean up changes
    nothing of its answer."""
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        tg = request_task_group(request)
        set_deadline(request, 3.01)
        tg.create_task(cleans_up(log))
        if by == "child":
            tg.create_task(fails_later(Teapot()))
            await asyncio.Event().wait()
        await asyncio.sleep(3)
        raise Teapot

    async def answers(request: Request, exc: Exception) -> Response:
        return PlainTextResponse("", 418)

    exchange = run(get(installed(make(endpoint, exception_handlers={Teapot: answers}))))
    assert (exchange.status, exchange.error, log) == (418, None, ["child ended"])
