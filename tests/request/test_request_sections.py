"""Sections that must not be cut: one in another, one after the other, and what comes meanwhile."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from quattro_web import (
    TaskGroupMiddleware,
    cancel_on_disconnect,
    install,
    request_task_group,
    set_deadline,
    uninterrupted,
)
from quattro_web._util.scope import REQUEST
from quattro_web.fastapi import RequestTaskGroup
from tests.request.watched import app_of, hang
from tests.support.asgi import Exchange, Socket, run

REASON = "the client has disconnected"


def now() -> float:
    return asyncio.get_running_loop().time()


def test_section_in_a_section() -> None:
    """R7: The end of a section inside of another one cuts nothing of that."""
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        with uninterrupted(request):
            for _ in range(2):
                with uninterrupted(request):
                    await asyncio.sleep(2)
            await asyncio.sleep(1)
            log.append("paid")
        await hang(log, "handler")
        raise AssertionError

    async def main() -> None:
        await Exchange(app_of(endpoint)).disconnect_after(1).run()

    run(main())
    assert log == ["paid", f"handler cancelled after 5.00 s: {REASON}"]


@pytest.mark.parametrize("kind", ["in one", "after the other"])
def test_children_of_a_handler_that_has_returned(kind: str) -> None:
    """R7: A handler that returns when its client has left waits for each section of its children,
    before it cancels them."""
    log: list[str] = []

    async def child(request: Request) -> None:
        with uninterrupted(request):
            with uninterrupted(request):
                await asyncio.sleep(2)
            if kind == "in one":
                await asyncio.sleep(2)
        if kind == "after the other":
            # In the same turn of the event loop: it has not been cancelled in between.
            with uninterrupted(request):
                await asyncio.sleep(2)
        log.append(f"paid after {now():.0f} s")
        await hang(log, "child")

    async def session(websocket: WebSocket) -> None:
        await websocket.accept()
        request_task_group(websocket).create_task(child(websocket))  # type: ignore[arg-type]
        await websocket.receive()
        await websocket.receive()

    app = Starlette(routes=[WebSocketRoute("/", session)])
    install(app)

    async def main() -> None:
        socket = Socket(app)
        asyncio.get_running_loop().call_later(1, socket.leave)
        await socket.run()
        log.append(f"ended after {now():.0f} s")

    run(main())
    assert log[0] == "paid after 4 s"
    assert log[1].startswith("child cancelled after 4.00 s")
    assert log[2:] == ["ended after 4 s"]


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("cancelled", ["never", "as it waits", "before", "by the shutdown"])
@pytest.mark.parametrize("raises", [True, False])
def test_children_of_an_app_that_has_ended(
    kind: str, cancelled: str, errors: list[logging.LogRecord], *, raises: bool
) -> None:
    """R7, C10: So does any ASGI app that returns or raises when its client has left. A cancellation
    from outside waits for no section, and what the app has raised is logged."""
    log: list[str] = []

    async def child(scope: Scope) -> None:
        try:
            with uninterrupted(scope):
                await asyncio.sleep(4)
        finally:
            log.append(f"section ended after {now():.0f} s")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request_task_group(scope).create_task(child(scope))
        await receive()
        await receive()
        if cancelled == "before":
            await asyncio.sleep(9)
        if raises:
            raise ZeroDivisionError

    is_cancelled = cancelled in ("as it waits", "before")

    async def main() -> BaseException | None:
        served = TaskGroupMiddleware(app)
        client = Exchange(served) if kind == "http" else Socket(served)
        leave = client.disconnect if isinstance(client, Exchange) else client.leave
        asyncio.get_running_loop().call_later(1, leave)
        serving = asyncio.ensure_future(client.run())
        if is_cancelled:
            asyncio.get_running_loop().call_later(2, serving.cancel)
        elif cancelled == "by the shutdown":
            await asyncio.sleep(2)
            client.scope[REQUEST].cut_off(client.scope)
        await asyncio.wait((serving,))
        assert serving.cancelled() is is_cancelled
        return client.error

    error = run(main())
    assert log == [f"section ended after {2 if is_cancelled else 4} s"]
    logged = [record.exc_info and record.exc_info[0] for record in errors]
    assert logged == ([ZeroDivisionError] if raises and cancelled == "as it waits" else [])
    found = error.exceptions if isinstance(error, ExceptionGroup) else [error]
    is_raised = any(isinstance(each, ZeroDivisionError) for each in found)
    assert is_raised is (raises and not is_cancelled)


def test_response_that_is_complete_waits_for_no_section() -> None:
    """R7: A request that fails when its response is complete does not wait for the section of a
    task that its app has left behind, though its client has left."""
    left: list[asyncio.Task[None]] = []

    async def section(scope: Scope) -> None:
        with uninterrupted(scope):
            await asyncio.sleep(4)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request_task_group(scope)
        left.append(asyncio.create_task(section(scope)))
        await Response("done")(scope, receive, send)
        await receive()
        await receive()
        raise ZeroDivisionError

    async def main() -> float:
        await Exchange(TaskGroupMiddleware(app)).disconnect_after(1).run()
        ended = now()
        await left[0]
        return ended

    assert run(main()) == 1


def test_client_that_leaves_while_a_stream_begins_in_a_section() -> None:
    """R7: A client that leaves in a section in which a stream begins cancels it at the end of the
    section, though the stream has no deadline."""
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with uninterrupted(scope):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"tick", "more_body": True})
            await asyncio.sleep(2)
        await hang(log, "stream")

    async def main() -> None:
        middleware = TaskGroupMiddleware(app, cancel_on_disconnect=True)
        await Exchange(middleware).disconnect_after(1).run()

    run(main())
    assert log == [f"stream cancelled after 2.00 s: {REASON}"]


def test_websocket_that_is_accepted_in_a_section(errors: list[logging.LogRecord]) -> None:
    """R8, R6: A WebSocket has one deadline: one that is accepted after it, in a section, is closed
    at the end of the section, and the log says so once."""
    log: list[str] = []

    async def endpoint(websocket: WebSocket) -> None:
        set_deadline(websocket, 5)
        with uninterrupted(websocket):
            await asyncio.sleep(6)
            await websocket.accept()
        await hang(log, "handler")

    app = Starlette(routes=[WebSocketRoute("/", endpoint)])
    install(app)
    assert run(Socket(app).run()).log == ["accept", "close 1011"]
    assert [line.partition(":")[0] for line in log] == ["handler cancelled after 6.00 s"]
    assert len([record for record in errors if "deadline" in record.getMessage()]) == 1


@pytest.mark.parametrize("why", ["the client leaves", "the server shuts down"])
def test_response_in_a_section(why: str) -> None:
    """R7: What came in a section is forgotten if the response is complete when it ends."""
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        cancel_on_disconnect(scope)
        if why == "the server shuts down":
            asyncio.get_running_loop().call_later(1, scope[REQUEST].cut_off, scope)
        with uninterrupted(scope):
            await asyncio.sleep(2)
            await Response()(scope, receive, send)
        await asyncio.sleep(1)
        log.append("ended")

    async def main() -> Exchange:
        exchange = Exchange(TaskGroupMiddleware(app), log=log)
        if why == "the client leaves":
            exchange.disconnect_after(1)
        return await exchange.run()

    exchange = run(main())
    assert (log, exchange.error) == (["start 200", "body", "ended"], None)


def test_server_that_cancels_while_a_section_goes_on() -> None:
    """R3: A server that cancels a request, which has failed and whose client has left, while the
    section of a child is waited for, ends the child before the dependencies close."""
    log: list[str] = []
    app = FastAPI()
    install(app, cancel_on_disconnect=True)

    async def session() -> AsyncIterator[None]:
        try:
            yield
        finally:
            log.append(f"session closed after {now():.0f} s")

    async def child(request: Request) -> None:
        try:
            with uninterrupted(request):
                await asyncio.sleep(10)
        finally:
            await asyncio.sleep(1)
            log.append(f"child ended after {now():.0f} s")

    @app.get("/", dependencies=[Depends(session)])
    async def handler(request: Request, tg: RequestTaskGroup) -> None:
        tg.create_task(child(request))
        await asyncio.sleep(2)
        raise HTTPException(418)

    async def main() -> None:
        serving = asyncio.create_task(Exchange(app).disconnect_after(1).run())
        await asyncio.sleep(5)
        serving.cancel()
        await asyncio.wait((serving,))

    run(main())
    assert log == ["child ended after 6 s", "session closed after 6 s"]
