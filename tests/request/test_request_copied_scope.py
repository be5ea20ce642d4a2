"""A sub-app that gets a copy of the scope, with a middleware of its own or in a task."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Message, Receive, Scope, Send

from quattro_core import TaskGroup
from quattro_web import TaskGroupMiddleware, install, request_task_group
from tests.support.asgi import get, run


def app_of(endpoint: Callable[[Request], Awaitable[Response]], scopes: list[Scope]) -> Starlette:
    """Return an app around one to which the scope is handed as a copy."""
    sub = Starlette(routes=[Route("/{name}", endpoint)])
    install(sub)

    async def copying(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await sub({**scope}, receive, send)

    app = Starlette(routes=[Mount("/sub", copying)])
    install(app)
    return app


@pytest.mark.parametrize("first", ["outer", "inner"])
def test_group_is_the_same_in_both_scopes(first: str) -> None:
    """R1, R2: Who asks with the scope of the outer app while the sub-app serves gets its group, and
    the response waits once for all that is in it."""
    log: list[str] = []
    groups: list[TaskGroup] = []
    scopes: list[Scope] = []

    async def child(seconds: float) -> None:
        await asyncio.sleep(seconds)
        log.append("child ended")

    async def endpoint(request: Request) -> Response:
        asked = [scopes[-1], request.scope]
        for scope in asked if first == "outer" else reversed(asked):
            groups.append(request_task_group(scope))
            groups[-1].create_task(child(len(groups)))
        return PlainTextResponse("done")

    run(get(app_of(endpoint, scopes), "/sub/x", log=log))
    assert groups[0] is groups[1]
    assert log == ["child ended", "child ended", "start 200", "body done"]


def test_sub_app_that_ends_leaves_the_next_one_in_its_place() -> None:
    """R1: Of two sub-apps that serve one request at once, the one that ends first takes nothing
    from the other."""
    seen: list[bool] = []
    scopes: list[Scope] = []
    ended = asyncio.Event()

    async def endpoint(request: Request) -> Response:
        if request.path_params["name"] == "second":
            await ended.wait()
            seen.append(request_task_group(request) is request_task_group(scopes[-1]))
        return PlainTextResponse("done")

    sub = Starlette(routes=[Route("/{name}", endpoint)])
    install(sub)

    async def both(scope: Scope, receive: Receive, send: Send) -> None:
        async def ignore(message: object) -> None: ...

        async def serve(path: str, send: Send) -> None:
            await sub({**scope, "path": path, "root_path": ""}, receive, send)

        scopes.append(scope)
        async with asyncio.TaskGroup() as group:
            first = group.create_task(serve("/first", ignore))
            first.add_done_callback(lambda _: ended.set())
            group.create_task(serve("/second", send))

    app = Starlette(routes=[Mount("/", both)])
    install(app)
    assert run(get(app)).body == b"done"
    assert seen == [True]


def test_copy_of_the_scope_that_outlives_the_request() -> None:
    """R2: Nothing is started in the group of a request that has ended, be its response complete or
    not, also by whoever has a copy of its scope."""
    copies: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        copies.append({**scope})
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def main() -> None:
        await get(TaskGroupMiddleware(app))
        with pytest.raises(RuntimeError, match="has ended"):
            request_task_group(copies[0])

    run(main())


def test_app_that_goes_on_after_its_sub_app() -> None:
    """R1, R2: When a sub-app has ended, the group is that of the app around it again."""
    log: list[str] = []

    async def child() -> None:
        await asyncio.sleep(1)
        log.append("child ended")

    async def ignore(message: object) -> None: ...

    sub = TaskGroupMiddleware(PlainTextResponse("not sent"))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await sub({**scope}, receive, ignore)
        request_task_group(scope).create_task(child())
        await PlainTextResponse("done")(scope, receive, send)

    run(get(TaskGroupMiddleware(app), log=log))
    assert log == ["child ended", "start 200", "body done"]


EAGER = pytest.param(
    True,
    id="eager",
    marks=pytest.mark.skipif(
        sys.version_info < (3, 12), reason="eager tasks came with Python 3.12"
    ),
)


@pytest.mark.parametrize("is_eager", [pytest.param(False, id="not eager"), EAGER])
@pytest.mark.parametrize("is_class", [False, True], ids=["function", "class"])
@pytest.mark.parametrize("make_sub", [Starlette, FastAPI])
@pytest.mark.parametrize("make", [Starlette, FastAPI])
def test_handler_that_runs_an_app_in_a_task(
    make: type[Starlette], make_sub: type[Starlette], *, is_class: bool, is_eager: bool
) -> None:
    """R4: A handler that runs another app in a task, which it does not await, is cancelled when a
    child fails, also if the other app has asked for the group after it."""
    cancelled: list[object] = []

    async def fail() -> None:
        await asyncio.sleep(1)
        raise ZeroDivisionError

    async def asks(request: Request) -> Response:
        request_task_group(request)
        await asyncio.sleep(3)
        return Response()

    async def nowhere(_message: Message) -> None:
        pass

    sub = make_sub()
    (sub.add_api_route if isinstance(sub, FastAPI) else sub.add_route)("/", asks)

    async def endpoint(request: Request) -> Response:
        if is_eager:
            loop = asyncio.get_running_loop()
            loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
        request_task_group(request).create_task(fail())
        task = asyncio.create_task(sub({**request.scope}, request.receive, nowhere))
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.append(asyncio.get_running_loop().time())
            task.cancel()
            await asyncio.wait({task})
            raise
        raise AssertionError

    class Endpoint(HTTPEndpoint):
        async def get(self, request: Request) -> Response:
            return await endpoint(request)

    app = make()
    if isinstance(app, FastAPI) and not is_class:
        app.add_api_route("/", endpoint)
    else:
        handler: Any = Endpoint if is_class else endpoint
        app.add_route("/", handler)
    install(app)
    exchange = run(get(app))
    assert (exchange.status, type(exchange.error)) == (500, ZeroDivisionError)
    assert cancelled == [1]
