"""What guards the dependencies of a handler, and what is left of it."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, HTTPException, WebSocket
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from quattro_core import TaskGroup
from quattro_web import TaskGroupMiddleware, install, request_task_group
from quattro_web._request import handler_end
from quattro_web.fastapi import RequestTaskGroup
from tests.request.sessions import FunctionSession, RequestSession, child, log
from tests.support.asgi import Socket, get, run


@pytest.fixture(autouse=True)
def empty_log() -> Iterator[None]:
    log.clear()
    yield
    log.clear()


def test_websocket_children_end_before_dependencies_close() -> None:
    """R3, R6: The children of a WebSocket end before its dependencies close."""
    app = FastAPI()

    async def works() -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        log.append("child ended")

    @app.websocket("/")
    async def handler(
        websocket: WebSocket, tg: RequestTaskGroup, a: RequestSession, b: FunctionSession
    ) -> None:
        await websocket.accept()
        tg.create_task(works())

    install(app)
    run(Socket(app, log=log).run())
    assert log == [
        "accept",
        "child ended",
        "function session closed",
        "request session closed",
    ]


@pytest.mark.parametrize("status", [200, 404])
def test_nothing_is_left_of_a_request(status: int) -> None:
    """R9: The request leaves no reference cycle, also if a child has failed: its scope is freed at
    once, with its stacks."""
    app = FastAPI()
    seen: list[weakref.ref[Marker]] = []

    async def fail() -> None:
        if status != 200:
            raise HTTPException(status)

    @app.get("/")
    async def handler(request: Request, a: RequestSession, tg: RequestTaskGroup) -> None:
        marker = request.scope["marker"] = Marker()
        seen.append(weakref.ref(marker))
        request_task_group(request).create_task(fail())

    install(app)

    async def main() -> None:
        gc.disable()
        try:
            await asyncio.create_task(_once(app, status))
            assert seen[0]() is None
        finally:
            gc.enable()

    run(main())


def test_two_pairs_of_stacks() -> None:
    """R1, R3: A handler that calls another FastAPI app, each with dependencies of its own, is asked
    for one group by both, in any order: nothing is put on a stack twice."""
    app, sub = FastAPI(), FastAPI()
    requests: list[Request] = []

    @app.get("/")
    async def handler(request: Request, a: RequestSession) -> str:
        requests.append(request)
        await sub({**request.scope, "path": "/sub"}, request.receive, ignore)
        return "done"

    @sub.get("/sub")
    async def inner(request: Request, a: RequestSession) -> None:
        stack = requests[0].scope["fastapi_inner_astack"]
        callbacks = len(stack._exit_callbacks)
        for _ in range(3):
            request_task_group(requests[0])
            request_task_group(request).create_task(child())
        assert len(stack._exit_callbacks) == callbacks + 1
        await asyncio.sleep(0)
        raise HTTPException(403)

    install(app)
    assert run(get(app)).status == 200
    assert log == [*["child ended"] * 3, *["request session closed"] * 2]


def test_many_pairs_of_stacks() -> None:
    """R1: A handler may call another FastAPI app thousands of times."""
    app, sub = FastAPI(), FastAPI()

    @app.get("/")
    async def handler(request: Request) -> str:
        for _ in range(2000):
            await sub({**request.scope, "path": "/sub"}, request.receive, ignore)
        return "done"

    @sub.get("/sub")
    async def inner(tg: RequestTaskGroup) -> None:
        tg.create_task(asyncio.sleep(0))

    install(app)
    exchange = run(get(app))
    assert (exchange.error, exchange.status) == (None, 200)


async def ignore(message: object) -> None:
    """Send nothing."""


@pytest.mark.parametrize("waits", ["in the handler", "for a child"])
def test_nothing_is_left_of_a_request_that_the_server_has_cancelled(waits: str) -> None:
    """R9: Nor does one leave a cycle that its server has cancelled."""
    app = FastAPI()
    seen: list[weakref.ref[Marker]] = []

    @app.get("/")
    async def handler(request: Request, tg: RequestTaskGroup, a: RequestSession) -> None:
        marker = request.scope["marker"] = Marker()
        seen.append(weakref.ref(marker))
        tg.create_task(child())
        await (asyncio.sleep(0) if waits == "for a child" else asyncio.Event().wait())

    install(app)

    async def main() -> None:
        gc.disable()
        try:
            await asyncio.create_task(_cancelled(app))
            assert seen[0]() is None
        finally:
            gc.enable()

    run(main())
    assert log == ["child ended", "request session closed"]


async def _cancelled(app: FastAPI) -> None:
    request = asyncio.create_task(get(app))
    await asyncio.sleep(1)
    request.cancel()
    with suppress(asyncio.CancelledError):
        await request
    assert request.cancelled()


class Marker:
    """What is only kept by a scope."""


async def _once(app: FastAPI, status: int) -> None:
    exchange = await get(app)
    assert exchange.status == status


@pytest.mark.parametrize("scope", ["function", "request"])
@pytest.mark.parametrize("fails", ["handler", "body"])
def test_dependency_that_asks_for_the_group(fails: str, scope: Any) -> None:
    """R3: Children end before a dependency closes that has asked for the group itself, when it was
    entered, whether the handler fails or the body of its stream."""

    async def session(request: Request) -> AsyncIterator[TaskGroup]:
        try:
            yield request_task_group(request)
        finally:
            log.append("session closed")

    async def cleans_up() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(1)
            log.append("child ended")

    app = FastAPI()

    @app.get("/")
    async def handler(
        tg: Annotated[TaskGroup, Depends(session, scope=scope)], request: Request
    ) -> Response:
        async def body() -> AsyncIterator[bytes]:
            yield b"begun"
            request_task_group(request).create_task(cleans_up())
            await asyncio.sleep(1)
            raise ZeroDivisionError

        if fails == "body":
            return StreamingResponse(body())
        tg.create_task(cleans_up())
        await asyncio.sleep(1)
        raise ZeroDivisionError

    install(app)
    run(get(app))
    is_closed_before = fails == "body" and scope == "function"  # as FastAPI says
    assert sorted(log) == ["child ended", "session closed"]
    assert (log[0] == "session closed") is is_closed_before


class Elsewhere:
    """An exit stack that keeps its callbacks in a place of its own."""

    def __init__(self) -> None:
        self.pushed = 0

    def push_async_exit(self, _callback: object) -> None:
        self.pushed += 1


@pytest.mark.parametrize("is_its", [True, False])
def test_stacks_of_another_kind(monkeypatch: pytest.MonkeyPatch, is_its: bool) -> None:
    """R3, R10: A stack whose content can't be known has a callback; what is no stack of FastAPI's
    is left as it is."""
    if is_its:
        monkeypatch.setattr(handler_end, "AsyncExitStack", Elsewhere)
    stacks = [Elsewhere(), Elsewhere()]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["fastapi_inner_astack"], scope["fastapi_function_astack"] = stacks
        request_task_group(scope)
        assert [hasattr(stack, "_push_exit_callback") for stack in stacks] == [is_its] * 2

    run(get(TaskGroupMiddleware(app)))
    assert [vars(stack) for stack in stacks] == [{"pushed": int(is_its)}] * 2


def test_without_the_exit_stacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """R3: With a FastAPI that keeps its exit stacks elsewhere, children still end before the
    response, whether the handler returns or raises; only the dependencies may close before them."""
    monkeypatch.setattr("quattro_web._request.tasks.REQUEST_STACK", "renamed")
    app = FastAPI()

    @app.get("/{status}")
    async def handler(status: int, a: RequestSession, tg: RequestTaskGroup) -> None:
        tg.create_task(child() if status == 403 else asyncio.sleep(5))
        await asyncio.sleep(0)
        if status == 403:
            raise HTTPException(403)

    install(app)
    run(get(app, "/403", log=log))
    assert log.index("child ended") < log.index("start 403")
    assert run(get(app, "/200")).status == 200
