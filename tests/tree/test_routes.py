"""The routes that show the tasks of an app."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import ref

import pytest
from fastapi import Depends, FastAPI
from fastapi import Request as FastAPIRequest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from quattro_web import install, request_task_group
from quattro_web._app.lookup import runs_of
from quattro_web.fastapi import task_router
from quattro_web.tasks import task_routes
from quattro_web.testing import AppClient
from tests.support.apps import settle
from tests.support.asgi import run
from tests.tree.looking import Stuck


async def with_token(request: Request) -> None:
    if request.query_params.get("token") != "secret":
        raise HTTPException(403, "not for you")


def blocking_guard(request: Request) -> None:
    if request.query_params.get("token") != "secret":
        raise HTTPException(403, "not for you")


class Guard:
    async def __call__(self, request: Request) -> None:
        await with_token(request)


def with_routes(guard: Any) -> Starlette:
    app = Starlette(routes=task_routes(dependencies=[guard]))
    install(app)
    return app


def with_router(guard: Any) -> FastAPI:
    app = FastAPI()
    app.include_router(task_router(dependencies=[Depends(guard)]))
    install(app)
    return app


def mounted(guard: Any) -> Starlette:
    app = Starlette(routes=[Mount("/x", Starlette(routes=task_routes(dependencies=[guard])))])
    install(app)
    return app


async def fastapi_guard(request: FastAPIRequest) -> None:
    await with_token(request)


@pytest.mark.parametrize(
    ("app", "path"),
    [
        pytest.param(with_routes(with_token), "/tasks", id="an async function"),
        pytest.param(with_routes(Guard()), "/tasks", id="an async object"),
        pytest.param(with_routes(partial(with_token)), "/tasks", id="a partial"),
        pytest.param(with_routes(blocking_guard), "/tasks", id="a function"),
        pytest.param(with_router(fastapi_guard), "/tasks", id="a dependency of FastAPI"),
        pytest.param(mounted(with_token), "/x/tasks", id="in a sub-app"),
    ],
)
@pytest.mark.parametrize("below", ["", "/", "/events"])
def test_only_whom_the_dependencies_let_in(app: Starlette, path: str, below: str) -> None:
    """O2: Whoever is not let in by the dependencies sees nothing; the others do."""

    async def main() -> None:
        async with AppClient(app) as client:
            refused = await client.get(path + below)
            assert refused.status_code == 403
            assert "not for you" in refused.text
            request = client.start("GET", f"{path}{below}?token=secret")
            await request.wait_started()
            assert request.status_code == 200
            assert request.headers["cache-control"] == "no-store"
            request.disconnect()
            await request.wait_finished()

    asyncio.run(main())


def test_snapshot_as_json() -> None:
    """O1: ``/tasks`` answers with the snapshot, in a sub-app with that of the app around it."""
    app = Starlette(
        routes=[
            Mount("/inner", Starlette(routes=task_routes(public=True))),
            *task_routes("/what/runs", public=True),
        ]
    )
    install(app)

    async def main() -> None:
        async with AppClient(app) as client:
            for path in ("/inner/tasks", "/what/runs"):
                answer = await client.get(path)
                assert answer.headers["content-type"] == "application/json"
                [seen] = answer.json()["requests"]
                assert (seen["path"], seen["route"]) == (path, path)

    run(main())


@pytest.mark.parametrize("most", ["0", "-1", "many", "10001", "9" * 5000])
def test_bad_bound(most: str) -> None:
    """O1: A bound that is none is a 400, and says what it may be."""
    app = Starlette(routes=task_routes(public=True))
    install(app)

    async def main() -> None:
        async with AppClient(app) as client:
            answer = await client.get(f"/tasks?most={most}")
            assert answer.status_code == 400
            assert answer.text == "most must be a number from 1 to 10000"

    run(main())


def test_bound() -> None:
    """O1: A client may ask for less, or more."""
    stuck = Stuck()

    async def handler(request: Request) -> Response:
        tg = request_task_group(request)
        for _ in range(10):
            tg.create_task(stuck.wait())
        return PlainTextResponse()

    app = Starlette(routes=[Route("/", handler), *task_routes(public=True)])
    install(app)

    async def main() -> None:
        async with AppClient(app) as client:
            request = client.start("GET", "/")
            await settle()
            found = (await client.get("/tasks?most=4")).json()
            assert len(found["requests"][0]["handler"]["children"]) == 3
            assert found["requests_left_out"] == 1  # the one that asks
            stuck.free()
            await request.response()

    run(main())


def test_page() -> None:
    """O2: The page needs nothing from any other address, and lets the browser run nothing else."""
    app = Starlette(routes=task_routes(public=True))
    install(app)

    async def main() -> None:
        async with AppClient(app) as client:
            answer = await client.get("/tasks/")
            policy = answer.headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; connect-src 'self'; ")
            assert "unsafe" not in policy
            assert policy.count("'sha256-") == 2
            assert "://" not in answer.text
            assert answer.headers["referrer-policy"] == "no-referrer"

    run(main())


async def next_snapshot(request: Any) -> dict[str, Any]:
    event = await request.chunk()
    assert event is not None
    assert event.startswith(b"data: ")
    assert event.endswith(b"\n\n")
    found: dict[str, Any] = json.loads(event[6:])
    return found


def test_events() -> None:
    """O1: The events tell each second what is there, and for how long it has not moved."""
    stuck = Stuck()

    async def ticker() -> None:
        while True:
            await asyncio.sleep(0.1)

    async def handler(request: Request) -> Response:
        tg = request_task_group(request)
        tg.create_task(stuck.wait(), name="stuck")
        tg.create_background_task(ticker(), name="ticks")
        return PlainTextResponse()

    app = Starlette(routes=[Route("/", handler), *task_routes(public=True)])
    install(app)

    async def main() -> None:
        async with AppClient(app) as client:
            request = client.start("GET", "/")
            await settle()
            looking = client.start("GET", "/tasks/events")
            loop = asyncio.get_running_loop()
            await next_snapshot(looking)
            began = loop.time()
            for second in (1, 2, 3):
                seen = await next_snapshot(looking)
                assert loop.time() == pytest.approx(began + second)
                assert seen["requests"][0]["handler"]["unmoved"] is None  # its children tell
            children = {
                child["name"]: child for child in seen["requests"][0]["handler"]["children"]
            }
            assert children["stuck"]["unmoved"] >= 0
            assert children["ticks"]["unmoved"] == 0
            looking.disconnect()
            await looking.wait_finished()
            stuck.free()
            await request.response()

    run(main())


def test_many_look() -> None:
    """O2: However many look, there is one snapshot a second, which all of them get."""
    app = Starlette(routes=task_routes(public=True))
    install(app)

    async def main() -> None:
        async with AppClient(app) as client:
            looking = [client.start("GET", "/tasks/events") for _ in range(20)]
            seen = set()
            for _ in range(3):
                for each in looking:
                    seen.add((await next_snapshot(each))["at"])
                await asyncio.sleep(1)
            assert len(seen) == 3
            # One of them leaves while it is its turn to look.
            for each in looking[:10]:
                each.disconnect()
                await each.wait_finished()
            assert (await next_snapshot(looking[-1]))["at"] not in seen
            for each in looking[10:]:
                each.disconnect()
                await each.wait_finished()

    run(main())


def test_events_end_with_the_app() -> None:
    """O2: Whoever looks keeps no app from shutting down: the last event says that it does."""
    app = Starlette(routes=task_routes(public=True))
    install(app)

    async def main() -> None:
        async with AppClient(app) as client:
            looking = client.start("GET", "/tasks/events")
            assert not (await next_snapshot(looking))["is_shutting_down"]
            client.begin_shutdown()
            events = [event async for event in looking]
            assert json.loads(events[-1][6:])["is_shutting_down"]
            assert looking.is_complete

    run(main())


def test_app_without_a_lifespan() -> None:
    """O1: An app whose lifespan is not run says what is missing."""
    app = Starlette(routes=task_routes(public=True))
    install(app)

    async def main() -> None:
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/tasks", "root_path": ""}
        scope |= {"query_string": b"", "headers": []}
        with pytest.raises(Exception, match="run its lifespan"):
            await app(scope, receive, send)
        assert sent[0]["status"] == 500

    run(main())


@pytest.mark.parametrize("function", [task_routes, task_router])
def test_routes_for_anybody(function: Callable[..., object]) -> None:
    """O2: Without a dependency the routes have to be called public aloud."""
    with pytest.raises(ValueError, match=rf"{function.__name__}\(\) shows .* or pass public=True"):
        function()


@pytest.mark.parametrize("function", [task_routes, task_router])
@pytest.mark.parametrize("path", ["", "tasks", "/", "/tasks/"])
def test_bad_path(function: Callable[..., object], path: str) -> None:
    """O2: A path that is none is an error that names it."""
    with pytest.raises(ValueError, match=f"path must begin with a slash, .*, got '{path}'"):
        function(path, public=True)


def test_bad_dependencies() -> None:
    """O2: What is no dependency is an error, which says what the other framework takes."""
    depends: Any = Depends(with_token)
    with pytest.raises(
        TypeError, match=r"is a FastAPI dependency: call quattro_web\.fastapi\.task_router"
    ):
        task_routes(dependencies=[depends])
    nothing: Any = None
    with pytest.raises(TypeError, match="take a request and return, got None"):
        task_routes(dependencies=[nothing])
    function: Any = with_token
    with pytest.raises(TypeError, match=r"must be Depends\(\.\.\.\) or Security\(\.\.\.\), got"):
        task_router(dependencies=[function])


def test_openapi_without_the_routes() -> None:
    """O2: The OpenAPI schema of the app says nothing of the routes."""
    assert "tasks" not in json.dumps(with_router(fastapi_guard).openapi())


def passes_on(request: Request) -> Any:
    return with_token(request)


def makes_generator(request: Request) -> Any:
    return (number for number in (1,))


@pytest.mark.parametrize("guard", [passes_on, lambda request: with_token(request)])
def test_function_that_returns_a_coroutine(guard: Any) -> None:
    """O2: What a dependency passes on is awaited, so that it refuses whom it refuses."""
    app = with_routes(guard)

    async def main() -> None:
        async with AppClient(app) as client:
            assert (await client.get("/tasks")).status_code == 403
            assert (await client.get("/tasks?token=secret")).status_code == 200

    asyncio.run(main())


def test_dependency_that_is_a_generator() -> None:
    """O2: A generator, which would check nothing, is an error: at once, or when it is called."""

    async def generates(request: Request) -> Any:
        yield

    def generates_too(request: Request) -> Any:
        yield

    for guard in (generates, generates_too, partial(generates)):
        with pytest.raises(TypeError, match="must be functions that take a request and return"):
            task_routes(dependencies=[guard])
    function: Any = with_token
    with pytest.raises(TypeError, match="dependencies must be a list of functions"):
        task_routes(dependencies=function)
    app = with_routes(makes_generator)

    async def main() -> None:
        async with AppClient(app) as client:
            with pytest.raises(TypeError, match="has returned a generator"):
                await client.get("/tasks")

    asyncio.run(main())


def test_app_that_has_ended_is_not_kept() -> None:
    """O2: The routes keep no app that has ended."""
    runs: list[ref[Any]] = []

    async def once() -> None:
        app = Starlette(routes=task_routes(public=True))
        install(app)
        async with AppClient(app) as client:
            await client.get("/tasks")
            runs.extend(ref(run) for run in runs_of(app))

    asyncio.run(once())
    gc.collect()
    assert [run() for run in runs] == [None]


def test_ended_tasks_are_not_kept() -> None:
    """O2: Whoever looks again and again keeps no task, nor what it has awaited, also if that has
    failed with a traceback that leads to the task."""

    class Seen:
        pass

    futures: list[asyncio.Future[None]] = []
    refs: list[ref[Seen]] = []

    async def handler(request: Request) -> Response:
        seen = Seen()
        refs.append(ref(seen))
        future = asyncio.get_running_loop().create_future()
        futures.append(future)
        try:
            async with asyncio.timeout(1000):
                await future
        except ZeroDivisionError:
            pass
        return PlainTextResponse(repr(seen))

    app = Starlette(routes=[Route("/", handler), *task_routes(public=True)])
    install(app)

    async def main() -> None:
        async with AppClient(app) as client:
            request = client.start("GET", "/")
            await settle()
            assert len((await client.get("/tasks")).json()["requests"]) == 2
            futures.pop().set_exception(ZeroDivisionError())
            await request.response()
            del request
            await settle()
            gc.collect()
            assert refs[0]() is None

    run(main())
