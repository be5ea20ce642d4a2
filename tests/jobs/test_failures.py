"""Failures of work that was handed over: where they came from, and how many are kept."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("docket", reason="pydocket is missing: pip install 'quattro-web[docket]'")

from fastapi import APIRouter, FastAPI
from fastapi import Request as FastAPIRequest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Mount, Route, Router, WebSocketRoute
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from quattro_web._jobs.engine import Submission
from quattro_web._jobs.wire import frame
from quattro_web._util.routes import route_of
from tests.jobs.functions import MAY_SUCCEED, Functions, log, until
from tests.jobs.test_children import Play, play

__all__ = ["play"]


async def tell(request: Request) -> PlainTextResponse:
    return PlainTextResponse(route_of(request.scope))


class TellingApp:
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(route_of(scope))(scope, receive, send)


tell_by_app = TellingApp()


async def tell_by_websocket(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(route_of(websocket.scope))
    await websocket.close()


def routes() -> list[BaseRoute]:
    return [
        Route("/orders/{order}", tell, methods=["POST", "GET"]),
        Route("/any", tell_by_app),
        WebSocketRoute("/follow/{name}", tell_by_websocket),
    ]


def starlette_app() -> Starlette:
    return Starlette(
        routes=[
            *routes(),
            Mount("/shops/{shop}", Starlette(routes=routes())),
            Mount("/parts", routes=routes()),
            Mount("/router", Router(routes())),
            Mount("/plain", TellingApp()),
        ]
    )


def fastapi_app() -> FastAPI:
    app, inner, innermost = FastAPI(), APIRouter(prefix="/inner"), APIRouter(prefix="/innermost")

    async def told(request: FastAPIRequest, order: str) -> str:
        return route_of(request.scope)

    for each in (app, inner, innermost):
        each.get("/orders/{order}")(told)
    inner.include_router(innermost)
    app.include_router(inner, prefix="/api")
    sub = FastAPI()
    sub.include_router(inner)
    app.mount("/sub", sub)
    app.mount("/starlette", Starlette(routes=routes()))
    return app


@pytest.mark.parametrize(
    ("make", "path", "route"),
    [
        (starlette_app, "/orders/7", "GET /orders/{order}"),
        (starlette_app, "/any", "GET /any"),
        (starlette_app, "/shops/7/orders/8", "GET /shops/{shop}/orders/{order}"),
        (starlette_app, "/parts/orders/7", "GET /parts/orders/{order}"),
        (starlette_app, "/router/orders/7", "GET /router/orders/{order}"),
        (starlette_app, "/plain/orders/7", "GET /plain"),
        (fastapi_app, "/orders/7", "GET /orders/{order}"),
        (fastapi_app, "/api/inner/orders/7", "GET /api/inner/orders/{order}"),
        (fastapi_app, "/api/inner/innermost/orders/7", "GET /api/inner/innermost/orders/{order}"),
        (fastapi_app, "/sub/inner/orders/7", "GET /sub/inner/orders/{order}"),
        (fastapi_app, "/starlette/orders/7", "GET /starlette/orders/{order}"),
    ],
)
def test_route_of_a_request(make: Callable[[], ASGIApp], path: str, route: str) -> None:
    """O3: A request has a route with the names of its parameters, also where apps are mounted."""
    for root_path in ("", "/proxy"):
        client = TestClient(make(), root_path=root_path)
        assert client.get(root_path + path).text.strip('"') == route


def test_other_routes() -> None:
    """O3: A WebSocket has a route, a method that nobody knows is none, and so is a lack of one."""
    client = TestClient(starlette_app())
    with client.websocket_connect("/shops/7/follow/me") as websocket:
        assert websocket.receive_text() == "WebSocket /shops/{shop}/follow/{name}"
    assert client.request("POST", "/orders/7").text == "POST /orders/{order}"
    assert client.request("X-7", "/any").text == "other /any"
    assert TestClient(tell_by_app).get("/orders/7").text == ""


def test_route_of_an_older_starlette() -> None:
    """O3: A Starlette that does not say which route it has found has it found by the endpoint."""

    async def without(scope: Scope, receive: Receive, send: Send) -> None:
        scope.pop("route", None)
        await tell_by_app(scope, receive, send)

    class Silent(Route):
        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            scope.pop("route", None)
            await super().handle(scope, receive, send)

    inner = [Silent("/orders/{order}", tell)]
    app = Starlette(
        routes=[
            Route("/orders", tell_by_websocket),
            Mount("/parts", routes=inner),
            Mount("/plain", without),
        ]
    )
    client = TestClient(app)
    assert client.get("/parts/orders/7").text == "GET /parts/orders/{order}"
    assert client.get("/plain/orders/7").text == "GET /plain"


def scope_of(path: str) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "POST",
        "path": path,
        "route": Route("/orders/{order}", tell),
        "path_params": {"order": path.rpartition("/")[2]},
    }


async def failed(f: Functions, count: int) -> list[Any]:
    async with asyncio.timeout(60):
        while len(found := await f.jobs.failed()) != count:
            await asyncio.sleep(0.01)
    return found


def test_failures_are_counted_by_route(play: Play, errors: list[logging.LogRecord]) -> None:
    """D4: What fails for good is told, kept and counted with the route that it came from."""

    async def scene(f: Functions) -> None:
        MAY_SUCCEED.clear()
        for number in (7, 8):
            await f.jobs.hand_over(f.fail_as_told.call(), conn=scope_of(f"/orders/{number}"))
        await f.jobs.hand_over(f.fail_as_told.call())
        found = await failed(f, 3)
        route = "POST /orders/{order}"
        assert sorted((each.origin, each.route) for each in found) == [
            ("", ""),
            ("POST /orders/7", route),
            ("POST /orders/8", route),
        ]
        job = "fail as told"
        await until(lambda: f.jobs.failures == {(job, route): 2, (job, ""): 1})
        said = [e.getMessage() for e in errors if "for good" in e.getMessage()]
        assert sum(f"it is kept (route {route})" in each for each in said) == 2

    play(scene)


def test_success_is_no_failure(play: Play) -> None:
    """D4: Neither an attempt that is not the last one nor a request that fails is counted."""

    async def scene(f: Functions) -> None:
        await f.jobs.hand_over(f.fail_twice.call("a"))
        with pytest.raises(ExceptionGroup, match="two"):
            await f.fail.remote("both")
        await until(lambda: len(log) == 3)
        assert await f.double.remote(1) == 2  # after what was there before
        assert await f.jobs.failed() == []
        assert f.jobs.failures == {}

    play(scene)


def test_counters_have_a_bound(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """O3: Whoever writes calls of other jobs and routes to the engine does not fill the memory."""
    monkeypatch.setattr("quattro_web._jobs.worker._MOST_COUNTED", 3)

    async def scene(f: Functions) -> None:
        async with f.jobs._engine.connect() as connection:
            calls = []
            for number in range(5):
                header = {"owner": "", "kept": True, "route": f"GET /{number}\n"}
                calls.append(Submission(f"kept:x:{number}", "x", frame(header, b"[{}]")))
            await connection.submit(calls)
            await failed(f, 5)
        await until(lambda: sum(f.jobs.failures.values()) == 5)
        counted = f.jobs.failures
        assert len(counted) == 4
        assert counted["", ""] == 2
        assert not any("\n" in route for _, route in counted)

    play(scene)


def test_newest_failures_are_kept(play: Play, errors: list[logging.LogRecord]) -> None:
    """D4: As many failures are kept as was said, the newest ones; the log names what is not."""

    async def scene(f: Functions) -> None:
        async with f.jobs._engine.connect() as connection:
            about = {"job": "x", "attempts": 1, "type": "builtins:ValueError", "text": ""}
            about |= {"origin": None, "at": 0}
            for number in (1, 2, 3, 1, 4, 5):  # the first one has failed once more
                await connection.settle(f"kept:x:{number}", frame(about, b""))
            assert {each.key for each in await f.jobs.failed()} == {
                "kept:x:1",
                "kept:x:4",
                "kept:x:5",
            }
            said = [e.getMessage() for e in errors if "max_kept=3" in e.getMessage()]
            assert ["kept:x:2" in said[0], "kept:x:3" in said[1], len(said)] == [True, True, 2]
            await f.jobs.forget("kept:x:1")
            await connection.settle("kept:x:4", None)
            await connection.settle("kept:x:6", frame(about, b""))
            assert {each.key for each in await f.jobs.failed()} == {"kept:x:5", "kept:x:6"}
            assert len([e for e in errors if "max_kept" in e.getMessage()]) == 2

    play(scene, max_kept=3, worker=False)
