"""One group per request, the same wherever it is asked for."""

import asyncio
from contextvars import ContextVar
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from quattro_core import TaskGroup
from quattro_web import (
    NoTaskGroupError,
    TaskGroupMiddleware,
    install,
    request_task_group,
)
from quattro_web.fastapi import RequestTaskGroup
from tests.support.asgi import Exchange, get, run


def test_fastapi_dependencies_and_handler_share_one_group() -> None:
    """R1: A dependency, its sub-dependency and the handler get the same group."""
    seen: list[TaskGroup] = []

    async def sub(tg: RequestTaskGroup) -> None:
        seen.append(tg)

    async def dependency(tg: RequestTaskGroup, _: Annotated[None, Depends(sub)]) -> None:
        seen.append(tg)

    app = FastAPI()

    @app.get("/")
    async def handler(
        request: Request, tg: RequestTaskGroup, _: Annotated[None, Depends(dependency)]
    ) -> None:
        seen.extend([tg, request_task_group(request), request_task_group(request.scope)])

    install(app)
    assert run(get(app)).status == 200
    assert len(seen) == 5
    assert len(set(map(id, seen))) == 1


def test_mounted_sub_app_shares_the_group() -> None:
    """R1: A mounted sub-app, and pure ASGI code above it, get the same group."""
    seen: list[TaskGroup] = []

    async def endpoint(request: Request) -> Response:
        seen.append(request_task_group(request))
        return PlainTextResponse("")

    def asking(app: Any) -> Any:
        async def ask(scope: Scope, receive: Receive, send: Send) -> None:
            seen.append(request_task_group(scope))
            await app(scope, receive, send)

        return ask

    sub = Starlette(routes=[Route("/", endpoint)], middleware=[Middleware(asking)])
    install(sub)
    app = Starlette(routes=[Mount("/sub", sub)])
    install(app)
    assert run(get(app, "/sub/")).status == 200
    assert len(seen) == 2
    assert seen[0] is seen[1]


def test_loop_with_its_own_way_to_make_tasks() -> None:
    """C1, R1: A loop whose `create_task` is not asyncio's own makes each child of a request."""
    made: list[str | None] = []

    async def child() -> None:
        pass

    async def endpoint(request: Request) -> Response:
        loop = asyncio.get_running_loop()
        create_task = loop.create_task

        def noted(*args: Any, **kwargs: Any) -> Any:
            made.append(kwargs.get("name"))
            return create_task(*args, **kwargs)

        loop.create_task = noted  # type: ignore[method-assign]
        tg = request_task_group(request)
        tg.create_task(child(), name="one")
        tg.create_background_task(child(), name="two")
        return Response()

    app = Starlette(routes=[Route("/", endpoint)])
    install(app)
    assert run(get(app)).status == 200
    assert made[:2] == ["one", "two"]


def test_requests_do_not_share_a_group() -> None:
    """R1: Each request has a group of its own, also two at once and one after the other."""
    seen: list[TaskGroup] = []
    both = asyncio.Barrier(2)

    async def endpoint(request: Request) -> Response:
        seen.append(request_task_group(request))
        await both.wait()
        return PlainTextResponse("")

    app = Starlette(routes=[Route("/", endpoint)])
    install(app)

    async def main() -> None:
        for _ in range(2):
            await asyncio.gather(get(app), get(app))

    run(main())
    assert len(set(map(id, seen))) == 4


def test_group_is_seen_behind_a_task_of_a_middleware() -> None:
    """R1: BaseHTTPMiddleware runs what is below it in a task of its own: the group is the same."""
    seen: list[TaskGroup] = []

    class Base(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Any:
            seen.append(request_task_group(request))
            return await call_next(request)

    async def endpoint(request: Request) -> Response:
        seen.append(request_task_group(request))
        return PlainTextResponse("")

    app = Starlette(routes=[Route("/", endpoint, middleware=[Middleware(Base)])])
    install(app)
    assert run(get(app)).status == 200
    assert seen[0] is seen[1]


def test_context_is_seen_in_children_and_leaks_nowhere() -> None:
    """R11: A child sees the context of the spawn; the next request sees nothing of it."""
    variable: ContextVar[str] = ContextVar("variable", default="unset")
    seen: list[str] = []

    async def endpoint(request: Request) -> Response:
        seen.append(variable.get())
        variable.set(request.url.path)

        async def child() -> None:
            seen.append(variable.get())
            variable.set("child")

        await request_task_group(request).create_task(child())
        seen.append(variable.get())
        return PlainTextResponse("")

    app = Starlette(routes=[Route("/{any}", endpoint)])
    install(app)

    async def main() -> None:
        await asyncio.create_task(get(app, "/a"))
        await asyncio.create_task(get(app, "/b"))

    run(main())
    assert seen == ["unset", "/a", "/a", "unset", "/b", "/b"]


def test_concurrency_limit_of_the_request() -> None:
    """C6, R1: install(concurrency_limit=n) caps the children of one request."""
    running = most = 0

    async def child() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    async def endpoint(request: Request) -> Response:
        for _ in range(10):
            request_task_group(request).create_task(child())
        return PlainTextResponse("")

    app = Starlette(routes=[Route("/", endpoint)])
    install(app, concurrency_limit=3)
    assert run(get(app)).status == 200
    assert (most, running) == (3, 0)


def test_missing_installation_is_named() -> None:
    """R12: Without the middleware, the error names the call that is missing."""

    async def endpoint(request: Request) -> Response:
        with pytest.raises(NoTaskGroupError, match=r"quattro_web\.install\(app\)"):
            request_task_group(request)
        return PlainTextResponse("")

    assert run(get(Starlette(routes=[Route("/", endpoint)]))).status == 200


def test_thread_handler_spawns_through_anyio() -> None:
    """R12: The way out that the error names works: the child is awaited."""
    from anyio import from_thread

    ended: list[str] = []
    app = FastAPI()

    async def child() -> None:
        await asyncio.sleep(0)
        ended.append("child")

    @app.get("/")
    def handler(tg: RequestTaskGroup) -> None:
        from_thread.run_sync(tg.create_task, child)

    install(app)
    exchange: Exchange = run(get(app, log=ended))
    assert exchange.log[0] == "child"
    assert exchange.is_complete


def test_middleware_around_any_asgi_app() -> None:
    """R1, R2: Around an ASGI app that is no Starlette, by hand, the response waits as well."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def child() -> None:
            await asyncio.sleep(0)
            log.append("child")

        request_task_group(scope).create_task(child())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    log: list[str] = []
    run(get(TaskGroupMiddleware(app), log=log))
    assert log == ["child", "start 200", "body ok"]


def test_children_are_made_by_the_task_factory() -> None:
    """R10: A task factory that the app sets makes the tasks of the children, also of those that
    start when the group is open."""
    made: list[str] = []

    def factory(loop: Any, coro: Any, **options: Any) -> asyncio.Task[Any]:
        made.append(coro.__qualname__)
        return asyncio.Task(coro, loop=loop, **options)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        tg = request_task_group(scope)
        asyncio.get_running_loop().set_task_factory(factory)
        tg.create_task(asyncio.sleep(0))
        await PlainTextResponse("done")(scope, receive, send)
        asyncio.get_running_loop().set_task_factory(None)

    assert run(get(TaskGroupMiddleware(app))).body == b"done"
    assert made == ["sleep"]
