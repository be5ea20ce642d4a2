"""Where the app group can be asked for, and what happens where there is none."""

import asyncio
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from quattro_web import (
    NoTaskGroupError,
    TaskGroupMiddleware,
    app_task_group,
    install,
    task_group_lifespan,
)
from quattro_web.fastapi import AppTaskGroup
from tests.support.apps import lifespan_of, settle
from tests.support.asgi import get, run
from tests.support.lifespan import Life


class Desk:
    """Takes work in, and tells which of it was done in the end."""

    def __init__(self) -> None:
        self.done: list[str] = []

    async def work(self, name: str) -> None:
        await settle()
        self.done.append(name)

    async def endpoint(self, request: Request) -> Response:
        app_task_group(request).create_task(self.work(request.url.path))
        return PlainTextResponse("accepted")


def serve(app: Any, *paths: str) -> None:
    async def main() -> None:
        async with Life(app) as life:
            for path in paths:
                assert (await life.get(path)).status == 200

    run(main())


def test_fastapi_dependency() -> None:
    """A5: In FastAPI, a parameter of type AppTaskGroup is the app's group."""
    desk = Desk()
    app = FastAPI()

    @app.get("/")
    async def handler(group: AppTaskGroup) -> None:
        group.create_task(desk.work("handler"))

    install(app)
    serve(app, "/")
    assert desk.done == ["handler"]


def test_mounted_sub_app() -> None:
    """A1: A mounted sub-app gets the group of the whole app, installed or not."""
    desk = Desk()
    plain = Starlette(routes=[Route("/", desk.endpoint)])
    installed = Starlette(routes=[Route("/", desk.endpoint)])
    install(installed)
    app = Starlette(routes=[Mount("/plain", plain), Mount("/installed", installed)])
    install(app)
    serve(app, "/plain/", "/installed/")
    assert desk.done == ["/plain/", "/installed/"]


def test_mounted_sub_app_with_a_lifespan() -> None:
    """A1: A mounted sub-app whose lifespan is run as well has a group of its own."""
    desk = Desk()
    sub = Starlette(routes=[Route("/", desk.endpoint)])
    install(sub)
    app = Starlette(routes=[Mount("/sub", sub)])
    install(app)

    async def main() -> None:
        async with Life(app) as life:
            async with Life(sub):
                assert (await life.get("/sub/")).status == 200
            assert desk.done == ["/sub/"]

    run(main())


def test_websocket() -> None:
    """A1: A WebSocket handler gets the app's group; the log names its work by its path."""
    desk = Desk()
    app = FastAPI()

    @app.websocket("/follow")
    async def follow(websocket: WebSocket, group: AppTaskGroup) -> None:
        await websocket.accept()
        group.create_task(desk.work("by dependency"))
        app_task_group(websocket).create_task(desk.work("by call"))
        await websocket.close()

    install(app)
    with TestClient(app) as client, client.websocket_connect("/follow"):
        pass
    assert desk.done == ["by dependency", "by call"]


def test_plain_asgi_scope() -> None:
    """A1: Pure ASGI code gets the app's group from the scope, also without a lifespan's state."""
    desk = Desk()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        app_task_group(scope).create_task(desk.work("scope"))
        await PlainTextResponse("")(scope, receive, send)

    wrapped = TaskGroupMiddleware(app)

    async def main() -> None:
        async with Life(wrapped, has_state=False) as life:
            assert (await life.get()).status == 200

    run(main())
    assert desk.done == ["scope"]


def test_each_run_has_its_own() -> None:
    """A1: Of two runs of one app at once, each hands its requests' work over to its own group."""
    done: list[asyncio.AbstractEventLoop] = []

    async def work() -> None:
        done.append(asyncio.get_running_loop())

    async def endpoint(request: Request) -> Response:
        app_task_group(request).create_task(work)
        return PlainTextResponse("")

    app = Starlette(routes=[Route("/", endpoint)])
    install(app)
    with TestClient(app) as first:
        with TestClient(app) as second:
            for client in (first, second, first):
                assert client.get("/").status_code == 200
        assert first.get("/").status_code == 200
    assert len(done) == 4
    assert len(set(done)) == 2


def test_state_of_the_lifespan_is_the_apps_own() -> None:
    """A1, R10: Nothing is put into the state that the app's lifespan yields."""
    app = Starlette()
    install(app)
    with TestClient(app) as client:
        assert client.app_state == {}


def test_not_installed() -> None:
    """R12: Without an app group, the error names the calls that make one."""
    for message in (r"quattro_web\.install\(app\)", r"task_group_lifespan\(\)"):
        with pytest.raises(NoTaskGroupError, match=message):
            app_task_group({"type": "http"})
    assert issubclass(NoTaskGroupError, LookupError)


def test_lifespan_was_not_run() -> None:
    """R12: An app that is installed but whose lifespan was not run says that it has to be."""
    desk = Desk()
    app = Starlette(routes=[Route("/", desk.endpoint)])
    install(app)
    exchange = run(get(app))
    assert isinstance(exchange.error, NoTaskGroupError)
    assert "run its lifespan" in str(exchange.error)


def test_app_that_has_no_lifespan() -> None:
    """R12: An app that refuses the lifespan has no app group, and asking for it says so."""
    raised: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        with pytest.raises(NoTaskGroupError) as caught:
            app_task_group(scope)
        raised.append(str(caught.value))
        await PlainTextResponse("")(scope, receive, send)

    serve(TaskGroupMiddleware(app), "/")
    assert len(raised) == 1


def test_lifespan_put_together_by_hand() -> None:
    """A1: task_group_lifespan alone gives handlers the app group, without any middleware."""
    desk = Desk()
    log: list[str] = []
    app = Starlette(
        routes=[Route("/", desk.endpoint)],
        lifespan=task_group_lifespan(lifespan_of(log)),
    )
    serve(app, "/")
    assert desk.done == ["/"]
    assert log == ["resource opens", "resource closes"]
