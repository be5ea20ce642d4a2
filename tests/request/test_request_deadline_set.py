"""Where a deadline comes from: the app, a route, the client."""

import asyncio
import logging

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from quattro_web import (
    TaskGroupMiddleware,
    install,
    set_deadline,
    time_left,
    uninterrupted,
)
from quattro_web.fastapi import CancelOnDisconnect, Deadline
from tests.request.test_request_deadline_streams import ticks
from tests.request.timed import app_of, slow, timed
from tests.support.asgi import Exchange, Socket, get, run


def test_client_may_shorten_the_deadline() -> None:
    """R8: A header of the client may shorten the deadline, never lengthen it."""
    app = app_of(slow, deadline=5, deadline_header="X-Timeout")
    for value, seconds in (("2", 2), ("50", 5), ("nonsense", 5), ("-1", 5), ("nan", 5), ("inf", 5)):
        assert run(timed(app, headers=[("x-timeout", value)]))[1] == seconds
    assert run(timed(app_of(slow, deadline=5), headers=[("x-timeout", "2")]))[1] == 5
    assert (
        run(timed(app_of(slow, deadline_header="x-timeout"), headers=[("x-timeout", "2")]))[1] == 2
    )


@pytest.mark.parametrize(("asked", "seconds"), [("2", 2), ("9", 5), ("nonsense", 5), (None, 5)])
def test_client_may_shorten_that_of_a_route(asked: str | None, seconds: float) -> None:
    """R8: So it is on a route that sets its own: the shorter one of the two counts, and a route
    without one has that of the client. A stream only has to begin."""
    app = FastAPI()
    install(app, deadline=60, deadline_header="x-timeout")
    headers = [] if asked is None else [("x-timeout", asked)]
    left: list[float | None] = []

    @app.get("/")
    async def handler(request: Request) -> Response:
        set_deadline(request, 5)
        left.append(time_left(request))
        return await slow(request)

    @app.get("/none", dependencies=[Deadline(None)])
    async def without(request: Request) -> None:
        left.append(time_left(request))

    @app.get("/stream", dependencies=[Deadline(5, stream=7)])
    async def stream() -> Response:
        return StreamingResponse(ticks())

    assert run(timed(app, headers=headers))[1] == seconds
    assert run(get(app, "/none", headers=headers)).status == 200
    assert run(timed(app, path="/stream", headers=headers))[1] == 7

    asks = {"2": 2, "9": 9}.get(asked or "")
    assert left == [seconds, asks]


def test_request_that_has_ended_takes_no_deadline() -> None:
    """R8: A deadline for a request that has ended is an error that says so."""
    scopes: list[Scope] = []

    async def quick(request: Request) -> Response:
        scopes.append(request.scope)
        return PlainTextResponse("ok")

    async def main() -> None:
        await get(app_of(quick))
        with pytest.raises(RuntimeError, match="has ended: there is nothing left to cancel"):
            set_deadline(scopes[0], 1)

    run(main())


def test_request_in_time_leaves_nothing_behind() -> None:
    """R8, R9: A request that is in time is not touched, and its timers are gone with it."""

    async def quick(request: Request) -> Response:
        return PlainTextResponse("ok")

    async def main() -> None:
        app = app_of(quick, deadline=5, cancel_on_disconnect=True)
        assert (await get(app)).body == b"ok"
        await asyncio.sleep(60)
        assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]

    run(main())


def test_request_that_has_failed_in_time_leaves_nothing_behind(
    errors: list[logging.LogRecord],
) -> None:
    """R8: Nor does one that has failed, without an answer of the app's, pass its deadline later."""

    async def fails(request: Request) -> Response:
        raise ZeroDivisionError

    async def main() -> None:
        assert (await get(app_of(fails, deadline=5))).status == 500
        await asyncio.sleep(60)

    run(main())
    assert errors == []


def test_uninterrupted_section_is_finished_first() -> None:
    """R8: A deadline does not cut a section that must not be cut; it is kept at its end."""

    async def endpoint(request: Request) -> Response:
        with uninterrupted(request):
            await asyncio.sleep(7)
        await asyncio.sleep(60)
        raise AssertionError

    exchange, seconds = run(timed(app_of(endpoint, deadline=5)))
    assert (exchange.status, seconds) == (504, 7)


def test_websocket_has_only_a_deadline_of_its_own() -> None:
    """R8, R6: The app's deadline is for HTTP; a WebSocket may set one, and is closed with 1011."""

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await asyncio.sleep(30)
        set_deadline(websocket, 5)
        await asyncio.sleep(60)

    app = Starlette(routes=[WebSocketRoute("/", endpoint)])
    install(app, deadline=5)

    async def main() -> float:
        socket = await Socket(app).run()
        assert socket.log == ["accept", "close 1011"]
        assert socket.error is None
        return asyncio.get_running_loop().time()

    assert run(main()) == 35


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_bad_deadline_is_an_error(seconds: float) -> None:
    """R8: A deadline that is no positive number is an error that names it, when it is set."""
    with pytest.raises(ValueError, match="deadline must be a positive number"):
        install(Starlette(), deadline=seconds)

    async def endpoint(request: Request) -> Response:
        with pytest.raises(ValueError, match="seconds must be a positive number"):
            set_deadline(request, seconds)
        return Response()

    assert run(get(app_of(endpoint))).status == 200


def test_fastapi_dependencies() -> None:
    """R7, R8: In FastAPI, a route asks for either in its list of dependencies."""
    app = FastAPI()

    @app.get("/", dependencies=[Deadline(2), CancelOnDisconnect()])
    async def handler() -> None:
        await asyncio.sleep(60)

    install(app)

    async def left() -> tuple[Exchange, float]:
        exchange = await Exchange(app).disconnect_after(1).run()
        return exchange, asyncio.get_running_loop().time()

    exchange, seconds = run(timed(app))
    assert (exchange.status, seconds) == (504, 2)
    exchange, seconds = run(left())
    assert (exchange.status, seconds) == (499, 1)


def test_deadline_that_was_held_up_until_after_the_response() -> None:
    """R8: A deadline that has passed in a section which ends after the response cuts nothing."""
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with uninterrupted(scope):
            await asyncio.sleep(7)
            await PlainTextResponse("ok")(scope, receive, send)
        await asyncio.sleep(1)
        log.append("after the response")

    exchange = run(get(TaskGroupMiddleware(app, deadline=5), log=log))
    assert log == ["start 200", "body ok", "after the response"]
    assert exchange.error is None
