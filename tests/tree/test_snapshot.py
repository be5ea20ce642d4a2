"""What `app_tasks` says of an app."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio
from anyio.from_thread import start_blocking_portal
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from quattro_web import (
    CancelReason,
    NoTaskGroupError,
    Pump,
    PumpState,
    TaskGroup,
    TaskGroupMiddleware,
    app_task_group,
    cancel_on_disconnect,
    install,
    request_task_group,
    set_deadline,
)
from quattro_web._tree import look
from quattro_web._tree.text import Line, blocks_of
from quattro_web._util.task_stacks import where
from quattro_web.tasks import RequestPhase, TaskKind, TaskState, app_tasks
from quattro_web.testing import AppClient
from tests.core.computing import compute_for_ever
from tests.locks.fakes import Claim, Service
from tests.support.apps import settle
from tests.support.asgi import run
from tests.tree.looking import Stuck, all_below, named, names, request_to

HERE = __file__


def line_of(function: Callable[..., Any], below: int) -> int:
    return function.__code__.co_firstlineno + below


def blocks(app: Starlette) -> list[list[Line]]:
    return list(blocks_of(app_tasks(app).as_dict()))


async def forever() -> None:
    await asyncio.Event().wait()


def test_children_of_a_request() -> None:
    """O1: A request is shown with its route, its client and its age, and each of its children with
    the line of the app's own code at which it is, and with what it awaits there."""
    stuck = Stuck()

    async def leaf() -> None:
        await stuck.wait()

    async def ticker() -> None:
        while True:
            await asyncio.sleep(1)

    async def handler(request: Request) -> Response:
        tg = request_task_group(request)
        tg.create_task(leaf(), name="a child")
        tg.create_background_task(ticker(), name="a ticker")
        await stuck.wait()
        return PlainTextResponse()

    app = Starlette(routes=[Route("/users/{id}", handler)])
    install(app)

    async def main() -> None:
        async with AppClient(app) as client:
            before = datetime.now(UTC)
            request = client.start("GET", "/users/7")
            await asyncio.sleep(2)
            tasks = app_tasks(app)
            [found] = tasks.requests
            assert (found.method, found.route, found.path) == ("GET", "/users/{id}", "/users/7")
            assert found.client == "testclient:50000"
            assert found.phase is RequestPhase.HANDLING
            assert found.cancel_reason is None
            assert found.deadline_left is None
            assert found.since.tzinfo is UTC
            assert found.age >= 0
            assert abs((found.since - before).total_seconds()) < 60
            assert found.handler is not None
            assert found.handler.function.endswith("test_children_of_a_request.<locals>.handler")
            assert found.handler.place is not None
            assert found.handler.place.file == HERE.replace("test_snapshot", "looking")
            assert found.handler.awaits == "asyncio.locks.Event.wait"
            assert names(found.handler) == {"a child": {}, "a ticker": {}}

            child = named(found.handler, "a child")
            assert (child.kind, child.state) == (TaskKind.FOREGROUND, TaskState.RUNNING)
            assert child.function.endswith("<locals>.leaf")
            background = named(found.handler, "a ticker")
            assert background.kind is TaskKind.BACKGROUND
            assert background.place is not None
            assert background.place.file == HERE
            assert background.place.line == line_of(ticker, 2)
            assert background.place.function.endswith("<locals>.ticker")
            assert background.awaits == "asyncio.tasks.sleep"
            assert str(background.place).endswith(f"ticker, {HERE}:{background.place.line}")

            assert (tasks.pid, tasks.open_requests) == (os.getpid(), 1)
            assert tasks.tasks >= 4
            assert not tasks.is_shutting_down
            assert (tasks.requests_left_out, tasks.tasks_left_out) == (0, 0)
            stuck.free()
            await request.response()
            assert app_tasks(app).requests == ()

    run(main())


def test_groups_inside_of_children() -> None:
    """O1: The groups inside of a child are shown as deep as they are: ours, asyncio's and anyio's,
    and what `gather`, `wait`, `wait_for`, `shield` and a plain await wait for."""
    stuck = Stuck()

    async def leaf() -> None:
        await stuck.wait()

    def task(name: str) -> asyncio.Task[None]:
        return asyncio.create_task(leaf(), name=name)

    async def ours() -> None:
        async with TaskGroup() as group:
            group.create_task(asyncios(), name="asyncio")
            group.create_background_task(leaf(), name="help")

    async def asyncios() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(anyios(), name="anyio")

    async def anyios() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(leaf, name="innermost")

    async def gathers() -> None:
        await asyncio.gather(task("gathered 1"), task("gathered 2"))

    async def waits() -> None:
        await asyncio.wait([task("waited for")])

    async def waits_long() -> None:
        await asyncio.wait_for(task("soon"), 1000)

    async def shields() -> None:
        await asyncio.shield(task("shielded"))

    async def awaits() -> None:
        await task("awaited")

    async def ours_gather() -> None:
        async with TaskGroup() as group:
            await group.gather(leaf(), leaf())

    async def handler(request: Request) -> Response:
        tg = request_task_group(request)
        for function in (ours, gathers, waits, waits_long, shields, awaits, ours_gather):
            tg.create_task(function(), name=function.__name__)
        return PlainTextResponse()

    app = Starlette(routes=[Route("/", handler)])
    install(app)

    async def main() -> None:
        async with AppClient(app) as client:
            request = client.start("GET", "/")
            await asyncio.sleep(1)
            found = request_to(app_tasks(app), "/").handler
            below = names(found)
            gathered = below.pop("ours_gather")
            assert list(gathered.values()) == [{}, {}]
            assert below == {
                "ours": {"asyncio": {"anyio": {"innermost": {}}}, "help": {}},
                "gathers": {"gathered 1": {}, "gathered 2": {}},
                "waits": {"waited for": {}},
                "waits_long": {"soon": {}},
                "shields": {"shielded": {}},
                "awaits": {"awaited": {}},
            }
            assert named(found, "help").kind is TaskKind.BACKGROUND
            assert named(found, "asyncio").kind is TaskKind.FOREGROUND
            assert named(found, "innermost").kind is TaskKind.OTHER
            assert named(found, "ours").awaits == "its children"
            assert named(found, "awaits").awaits == "the task 'awaited'"
            assert named(found, "gathers").awaits == "asyncio.gather"
            for task_info in all_below([found]):
                if not task_info.children:
                    assert task_info.place is not None
                    assert task_info.place.function == "Stuck.wait"
            stuck.free()
            await request.response()

    run(main())


def test_tasks_that_wait_for_each_other() -> None:
    """O1: Tasks that wait for each other are shown once each, and stop nothing."""
    tasks: list[asyncio.Task[None]] = []

    async def waits_for(number: int) -> None:
        await asyncio.wait([tasks[number]])

    async def handler(request: Request) -> Response:
        tg = request_task_group(request)
        tasks.extend(tg.create_task(waits_for(n), name=f"task {n}") for n in (1, 0))
        await asyncio.sleep(10)
        tasks[0].cancel()
        return PlainTextResponse()

    app = Starlette(routes=[Route("/", handler)])
    install(app)

    async def main() -> None:
        async with AppClient(app) as client:
            request = client.start("GET", "/")
            await asyncio.sleep(1)
            found = request_to(app_tasks(app), "/").handler
            assert sorted(task.name for task in list(all_below([found]))[1:]) == [
                "task 0",
                "task 1",
            ]
            await request.response()

    run(main())


def test_many_that_wait() -> None:
    """O1: As text, children that wait for their turn are few lines, and the number of the others;
    a request that was cancelled for its deadline says so once."""
    stuck = Stuck()

    async def handler(request: Request) -> Response:
        set_deadline(request, 5)
        for number in range(10):
            request_task_group(request).create_task(stuck.wait(), name=f"{number}")
        try:
            return PlainTextResponse(str(await asyncio.Event().wait()))
        finally:
            await stuck.wait()

    app = Starlette(routes=[Route("/", handler)])
    install(app, concurrency_limit=2)

    async def main() -> None:
        async with AppClient(app) as client:
            request = client.start("GET", "/")
            await settle()
            head, _, *children = (line.text for line in blocks(app)[1])
            assert re.fullmatch(
                r"GET / from \S+: handling, arrived \d\.\d s ago, \d\.\d s until its deadline",
                head,
            )
            assert [child[:20].partition(" [")[0] for child in children] == [
                *("   ├─ Stuck.wait" for _ in range(5)),
                "   └─ and 5 more wai",
            ]
            await asyncio.sleep(6)
            assert (
                blocks(app)[1][0]
                .text.partition(": ")[2]
                .startswith("cancelling, because the deadline of the request has passed, arrived ")
            )
            assert blocks(app)[1][0].text.endswith(" ago")
            stuck.free()
            await request.response()

    run(main())


def test_waiting_for_a_limit() -> None:
    """O1: A child that waits for its turn says so, also one that has lent its own and waits for it
    again; it is nowhere yet."""
    stuck = Stuck()

    async def handler(request: Request) -> Response:
        tg = request_task_group(request)
        tg.create_task(stuck.wait(), name="runs")
        tg.create_task(stuck.wait(), name="waits")
        await stuck.wait()
        return PlainTextResponse()

    app = Starlette(routes=[Route("/", handler)])
    install(app, concurrency_limit=1)

    async def main() -> None:
        async with AppClient(app) as client:
            request = client.start("GET", "/")
            await asyncio.sleep(1)
            found = request_to(app_tasks(app), "/").handler
            assert named(found, "runs").state is TaskState.RUNNING
            waiting = named(found, "waits")
            assert waiting.state is TaskState.WAITING
            assert (waiting.place, waiting.awaits) == (None, "")
            assert waiting.function == "Stuck.wait"
            stuck.free()
            await request.response()

    run(main())


def test_phases_of_a_request() -> None:
    """O1: The phase of a request says whether its handler runs, whether its response waits for
    children or is a stream, and why it was cancelled."""
    stuck, cleaning = Stuck(), Stuck()

    async def handles(request: Request) -> Response:
        await stuck.wait()
        return PlainTextResponse()

    async def waits(request: Request) -> Response:
        request_task_group(request).create_task(stuck.wait())
        return PlainTextResponse()

    async def body() -> AsyncIterator[bytes]:
        yield b"piece"
        await stuck.wait()

    async def streams(request: Request) -> Response:
        return StreamingResponse(body())

    async def ends(request: Request) -> Response:
        return PlainTextResponse(background=BackgroundTask(stuck.wait))

    async def is_late(request: Request) -> Response:
        set_deadline(request, 1)
        tg = request_task_group(request)
        tg.create_task(cleans_up(), name="cleans up")
        await stuck.wait()
        return PlainTextResponse()

    async def cleans_up() -> None:
        try:
            await stuck.wait()
        finally:
            await cleaning.wait()

    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await stuck.wait()

    async def has_time(request: Request) -> Response:
        set_deadline(request, 100)
        await stuck.wait()
        return PlainTextResponse()

    functions = (handles, waits, streams, ends, is_late, has_time)
    app = Starlette(
        routes=[
            *(Route(f"/{function.__name__}", function) for function in functions),
            WebSocketRoute("/socket", socket),
        ]
    )
    install(app)

    async def main() -> None:
        async with AppClient(app) as client, client.websocket("/socket"):
            requests = [client.start("GET", f"/{function.__name__}") for function in functions]
            await asyncio.sleep(2)
            tasks = app_tasks(app)
            phases = {request.path: str(request.phase) for request in tasks.requests}
            assert phases == {
                "/handles": "handling",
                "/waits": "waiting for children",
                "/streams": "streaming",
                "/ends": "ending",
                "/is_late": "cancelling",
                "/has_time": "handling",
                "/socket": "streaming",
            }
            assert request_to(tasks, "/socket").method == "WebSocket"
            late = request_to(tasks, "/is_late")
            assert late.cancel_reason == str(CancelReason.DEADLINE)
            assert late.deadline_left == 0
            assert named(late.handler, "cleans up").state is TaskState.CANCELLING
            assert request_to(tasks, "/has_time").deadline_left == pytest.approx(98, abs=0.1)
            streams_at = request_to(tasks, "/streams").handler
            assert streams_at is not None
            assert streams_at.place is not None
            assert streams_at.place.function == "Stuck.wait"
            assert streams_at.children == ()  # Starlette's own task is none of the app's
            cleaning.free()
            stuck.free()
            for request in requests:
                await request.response()

    run(main())


def test_body_that_its_client_does_not_read() -> None:
    """O1: Of a stream whose client does not read, the line of its body is shown."""

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        yield b"second"

    async def handler(request: Request) -> Response:
        return StreamingResponse(body())

    app = Starlette(routes=[Route("/", handler)])
    install(app)

    async def main() -> None:
        async with AppClient(app) as client:
            sent: asyncio.Queue[Any] = asyncio.Queue(2)  # the start, and the first piece
            received: asyncio.Queue[Any] = asyncio.Queue()
            received.put_nowait({"type": "http.request"})
            scope = {
                "type": "http",
                "asgi": {"version": "3.0", "spec_version": "2.4"},
                "http_version": "1.1",
                "method": "GET",
                "path": "/",
                "root_path": "",
                "query_string": b"",
                "headers": [],
            }
            serving = asyncio.create_task(client.asgi(scope, received.get, sent.put))
            await asyncio.sleep(1)
            [found] = app_tasks(app).requests
            assert found.handler is not None
            assert found.handler.place is not None
            assert found.handler.place.line == line_of(body, 2)
            assert found.handler.awaits.endswith(".Queue.put")
            assert found.client is None
            while (await sent.get()).get("more_body", True):
                pass
            await serving

    run(main())


@pytest.mark.parametrize("start", ["run_in_thread", anyio.to_thread.run_sync, asyncio.to_thread])
def test_thread_of_a_child(start: Any) -> None:
    """O1: A child that waits for a thread is where the thread is, whoever has started that; one
    that waits until a thread is free is nowhere."""
    running, end = threading.Event(), threading.Event()

    def blocks() -> None:
        running.set()
        end.wait(60)

    async def handler(request: Request) -> Response:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        tg = request_task_group(request)
        for function, name in ((blocks, "in a thread"), (int, "waits")):
            if start == "run_in_thread":
                tg.run_in_thread(function).set_name(name)
            else:
                tg.create_task(start(function), name=name)
        return PlainTextResponse()

    app = Starlette(routes=[Route("/", handler)])
    install(app)

    async def main() -> None:
        async with AppClient(app) as client:
            request = client.start("GET", "/")
            while not running.is_set():
                await asyncio.sleep(0)
            awaits = ""
            async with asyncio.timeout(60):
                while not awaits.endswith(".Condition.wait"):  # the thread is on its way to it
                    await asyncio.sleep(0)
                    child = named(request_to(app_tasks(app), "/").handler, "in a thread")
                    awaits = child.awaits
            assert child.place is not None
            assert (child.place.file, child.place.line) == (HERE, line_of(blocks, 2))
            assert awaits == "a thread, in threading.Condition.wait"
            if start is not anyio.to_thread.run_sync:
                assert named(request_to(app_tasks(app), "/").handler, "waits").place is None
            end.set()
            await request.response()

    asyncio.run(main())


def test_process_of_a_child(tmp_path: Path) -> None:
    """O1, A6: Of a child that waits for a process, it is told which function that calls, in a log
    entry as well."""
    started: list[asyncio.Task[None]] = []
    path = tmp_path / "pid"

    async def handler(request: Request) -> Response:
        tg = request_task_group(request)
        started.append(tg.run_in_process(compute_for_ever, str(path)))
        return PlainTextResponse()

    app = Starlette(routes=[Route("/", handler)])
    install(app)

    async def main() -> None:
        async with AppClient(app) as client:
            request = client.start("GET", "/")
            while not path.exists():
                await asyncio.sleep(0.01)  # anyio leaves a process to itself that has not begun
            child = named(request_to(app_tasks(app), "/").handler, "compute_for_ever")
            assert child.function == "compute_for_ever"
            assert child.awaits == "a process, in tests.core.computing.compute_for_ever"
            assert where(started[0]) == "waiting for a process, in compute_for_ever"
            started[0].cancel()
            assert (await request.response()).status_code == 200

    asyncio.run(main())


def test_pumps_and_handed_over_work() -> None:
    """O1: Pumps are shown with their states, and handed-over work with where it comes from."""
    stuck = Stuck()

    async def fails() -> None:
        await asyncio.sleep(0.5)
        raise ZeroDivisionError

    async def mail() -> None:
        await stuck.wait()

    async def handler(request: Request) -> Response:
        app_task_group(request).create_task(mail())
        return PlainTextResponse()

    app = Starlette(routes=[Route("/signups/{name}", handler)])
    install(app, pumps=[forever, Pump(fails, on_failure="ignore", name="the one that fails")])

    async def main() -> None:
        async with AppClient(app) as client:
            await client.get("/signups/ada")
            await asyncio.sleep(3)
            tasks = app_tasks(app)
            one, two = tasks.pumps
            assert (one.name, one.state, one.is_up) == ("forever", PumpState.RUNNING, True)
            assert (one.restarts, one.lock, one.holder) == (0, None, None)
            assert one.task is not None
            assert one.task.function == "forever"
            assert one.task.place is not None
            assert one.task.place.line == line_of(forever, 1)
            assert (two.state, two.task) == (PumpState.FAILED, None)
            [work] = tasks.handed_over
            assert work.origin == "GET /signups/ada"
            assert work.age >= 0
            assert work.task.function.endswith("<locals>.mail")
            assert tasks.requests == ()
            stuck.free()

    run(main())


def test_lock_of_another_process() -> None:
    """O1, A7: Of a pump that waits for its lock, it is told who holds that."""
    service = Service()
    other = Claim(service, "other-host:7")
    app = Starlette()
    install(app, pumps=[Pump(forever, once=service.lock("this-host:1"))])

    async def main() -> None:
        await other.acquire()
        async with AppClient(app):
            await asyncio.sleep(3)
            [pump] = app_tasks(app).pumps
            assert (pump.state, pump.is_up, pump.holder) == (
                PumpState.STANDBY,
                True,
                "other-host:7",
            )
            [_, [line, *_], *_] = blocks(app)
            assert line.text.endswith(", held by other-host:7")
            await other.release()
            await asyncio.sleep(3)
            [pump] = app_tasks(app).pumps
            assert (pump.state, pump.holder) == (PumpState.RUNNING, "this-host:1")

    run(main())


def test_other_tasks() -> None:
    """O1: What the app has started by itself is shown as well, with what is below it, and nothing
    of anybody else's."""
    stuck = Stuck()
    kept: set[Any] = set()

    async def leaf() -> None:
        await stuck.wait()

    async def leaked() -> None:
        async with TaskGroup() as group:
            group.create_task(leaf(), name="its child")

    async def handler(request: Request) -> Response:
        kept.add(asyncio.create_task(leaked(), name="leaked"))
        return PlainTextResponse()

    app = Starlette(routes=[Route("/", handler)])
    install(app, pumps=[forever])

    async def main() -> None:
        async with AppClient(app) as client:
            await client.get("/")
            others = {task.name: names(task) for task in app_tasks(app).others}
            assert others.pop("leaked") == {"its child": {}}
            current = asyncio.current_task()
            assert current is not None
            assert list(others) == [current.get_name()]  # of this test
            stuck.free()
            await asyncio.wait(kept)

    run(main())


def test_children_below_a_middleware_and_in_a_sub_app() -> None:
    """O1: A request is shown once, with its children, below a `BaseHTTPMiddleware` and where it is
    answered by a mounted app that has its own middleware."""
    stuck = Stuck()

    async def passes(request: Request, call_next: Callable[..., Awaitable[Response]]) -> Response:
        return await call_next(request)

    async def handler(request: Request) -> Response:
        request_task_group(request).create_task(stuck.wait(), name="a child")
        await stuck.wait()
        return PlainTextResponse()

    inner = Starlette(
        routes=[Route("/{name}", handler)],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=passes)],
    )
    install(inner)
    app = Starlette(
        routes=[Mount("/inner", inner)],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=passes)],
    )
    install(app)

    async def main() -> None:
        async with AppClient(app) as client:
            request = client.start("GET", "/inner/ada")
            await asyncio.sleep(1)
            tasks = app_tasks(app)
            [found] = tasks.requests
            assert (found.path, found.route) == ("/inner/ada", "/inner/{name}")
            assert names(found.handler) == {"a child": {}}
            assert found.handler is not None
            assert found.handler.place is not None
            assert found.handler.place.function == "Stuck.wait"
            stuck.free()
            await request.response()

    run(main())


def test_more_than_is_shown() -> None:
    """O1: Above a bound the oldest requests are shown, and how many others and how many tasks there
    are besides."""
    stuck = Stuck()

    async def handler(request: Request) -> Response:
        tg = request_task_group(request)
        for _ in range(10):
            tg.create_task(stuck.wait())
        await stuck.wait()
        return PlainTextResponse()

    app = Starlette(routes=[Route("/{number}", handler)])
    install(app)

    async def main() -> None:
        async with AppClient(app) as client:
            requests = []
            for number in range(5):
                requests.append(client.start("GET", f"/{number}"))
                await settle()
            tasks = app_tasks(app, most=25)
            assert [request.path for request in tasks.requests] == ["/0", "/1", "/2"]
            assert (tasks.open_requests, tasks.requests_left_out) == (5, 2)
            shown = len(list(all_below(request.handler for request in tasks.requests)))
            assert shown == 25
            # Eight children of the last one, and the task of this test.
            assert tasks.tasks_left_out == 9
            everything = app_tasks(app, most=None)
            assert len(everything.requests) == 5
            assert everything.tasks_left_out == everything.requests_left_out == 0
            stuck.free()
            for request in requests:
                await request.response()

    run(main())


def test_long_texts_of_clients() -> None:
    """O3: A path, the name of a task and whatever else clients have chosen are shortened in a
    snapshot: nobody makes it megabytes long."""
    stuck = Stuck()
    long = "x" * 100_000

    async def handler(request: Request) -> Response:
        task = asyncio.create_task(stuck.wait(), name=long)
        request_task_group(request).create_task(stuck.wait(), name=long)
        await task
        return PlainTextResponse()

    app = Starlette(routes=[Route("/{name}", handler)])
    install(app)

    async def main() -> None:
        async with AppClient(app) as client:
            exchange = client.start("GET", f"/{long}")
            await settle()
            tasks = app_tasks(app)
            [request] = tasks.requests
            assert request.path == "/" + "x" * 999 + "... (100001 characters)"
            assert request.handler is not None
            assert {child.name for child in request.handler.children} == {
                "x" * 1000 + "... (100000 characters)"
            }
            assert len(tasks.as_json()) < 10_000
            stuck.free()
            await exchange.response()

    run(main())


def test_as_json() -> None:
    """O1: A snapshot goes to JSON as it is, whatever a client has sent."""
    stuck = Stuck()

    async def handler(request: Request) -> Response:
        request_task_group(request).create_task(stuck.wait(), name="\ud800\n\x1b[31m")
        await stuck.wait()
        return PlainTextResponse()

    app = Starlette(routes=[Route("/{name}", handler)])
    install(app, pumps=[forever])

    async def main() -> None:
        async with AppClient(app) as client:
            request = client.start("GET", "/%0a%1b[31m")
            await asyncio.sleep(1)
            tasks = app_tasks(app)
            found = json.loads(tasks.as_json())
            assert found == tasks.as_dict()
            [seen] = found["requests"]
            assert seen["path"] == "/\n\x1b[31m"
            assert seen["phase"] == "handling"
            assert datetime.fromisoformat(seen["since"]) == tasks.requests[0].since
            assert [child["name"] for child in seen["handler"]["children"]] == ["\ud800\n\x1b[31m"]
            assert found["pumps"][0]["task"]["place"]["file"] == HERE
            tasks.as_json().encode()  # also as a response
            stuck.free()
            await request.response()

    run(main())


def test_shutting_down() -> None:
    """O1: A snapshot says that the app shuts down, while its requests drain."""
    stuck = Stuck()

    async def handler(request: Request) -> Response:
        await stuck.wait()
        return PlainTextResponse()

    app = Starlette(routes=[Route("/", handler)])
    install(app)

    async def main() -> None:
        async with AppClient(app) as client:
            request = client.start("GET", "/")
            await settle()
            client.begin_shutdown()
            await settle()
            tasks = app_tasks(app)
            assert tasks.is_shutting_down
            assert len(tasks.requests) == 1
            stuck.free()
            await request.response()

    run(main())


def test_keeps_nothing() -> None:
    """O2: A snapshot keeps nothing of what it has seen alive."""

    class Seen:
        pass

    refs: list[weakref.ref[Seen]] = []
    stuck = Stuck()

    async def handler(request: Request) -> Response:
        seen = Seen()
        refs.append(weakref.ref(seen))
        await stuck.wait()
        return PlainTextResponse(repr(seen))

    app = Starlette(routes=[Route("/", handler)])
    install(app)

    async def main() -> None:
        async with AppClient(app) as client:
            request = client.start("GET", "/")
            await settle()
            tasks = app_tasks(app)
            stuck.free()
            await request.response()
            del request
            await settle()
            gc.collect()
            assert refs[0]() is None
            assert tasks.requests

    run(main())


def test_asked_by_a_request_itself() -> None:
    """O1: A handler may ask, and sees itself."""
    seen = []

    async def handler(request: Request) -> Response:
        cancel_on_disconnect(request)
        seen.append(app_tasks(request.app))
        return PlainTextResponse()

    app = Starlette(routes=[Route("/", handler)])
    install(app)

    async def main() -> None:
        async with AppClient(app) as client:
            await client.get("/")
            handler_info = request_to(seen[0], "/").handler
            assert handler_info is not None
            assert handler_info.awaits == "nothing: it runs"

    run(main())


def test_app_that_is_no_starlette_app() -> None:
    """O1: Any ASGI app is looked at through its middleware."""
    stuck = Stuck()

    async def plain(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            assert (await receive())["type"] == "lifespan.startup"
            await send({"type": "lifespan.startup.complete"})
            assert (await receive())["type"] == "lifespan.shutdown"
            await send({"type": "lifespan.shutdown.complete"})
            return
        await stuck.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    app = TaskGroupMiddleware(plain)

    async def main() -> None:
        async with AppClient(app) as client:
            request = client.start("GET", "/")
            await settle()
            [found] = app_tasks(app).requests
            assert found.route is None
            stuck.free()
            await request.response()

    run(main())


def test_app_that_does_not_run() -> None:
    """O1: An app that does not run is an error that says what is missing."""
    app = Starlette()
    install(app)
    with pytest.raises(NoTaskGroupError, match=r"is not running: call quattro_web\.install"):
        app_tasks(app)


@pytest.mark.parametrize(
    ("most", "error", "message"),
    [
        (0, ValueError, "most must be >= 1, got 0"),
        ("all", TypeError, "most must be an int or None, got 'all'"),
    ],
)
def test_bad_bound(most: Any, error: type[Exception], message: str) -> None:
    """O1: A bound that is none is an error that names it."""
    with pytest.raises(error, match=message):
        app_tasks(Starlette(), most=most)


def test_asked_in_another_thread() -> None:
    """O1: Another thread may ask, and sees what the event loop of the app does."""
    stuck = Stuck()

    async def handler(request: Request) -> Response:
        request_task_group(request).create_task(stuck.wait(), name="a child")
        await stuck.wait()
        return PlainTextResponse()

    app = Starlette(routes=[Route("/", handler)])
    install(app)
    with start_blocking_portal() as portal:
        client = portal.call(partial(AppClient, app))
        with portal.wrap_async_context_manager(client):
            request = portal.call(partial(client.start, "GET", "/"))
            portal.call(settle)
            found = request_to(app_tasks(app), "/").handler
            assert names(found) == {"a child": {}}
            portal.call(stuck.free)
            portal.call(request.response)


def test_many_tasks_of_a_library() -> None:
    """O2: A task that waits for thousands of a library's is looked through up to a bound."""
    examined = []

    async def handler(request: Request) -> Response:
        await asyncio.gather(*(asyncio.sleep(100) for _ in range(3000)))
        return PlainTextResponse()

    app = Starlette(routes=[Route("/", handler)])
    install(app)

    async def main() -> None:
        async with AppClient(app) as client:
            request = client.start("GET", "/")
            await settle()
            before: Any = vars(look)["frames_of"]

            def counting(task: Any) -> Any:
                examined.append(task)
                return before(task)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(look, "frames_of", counting)
                tasks = app_tasks(app)
            assert tasks.tasks > 3000
            assert len(examined) < 500
            await request.response()

    run(main())


def test_app_under_trio() -> None:
    """O1: Under trio, where there are no tasks to look at, that is the error that says so."""
    app = Starlette()
    install(app)

    async def main() -> None:
        async def receive() -> Any:
            return {"type": "lifespan.startup"} if not sent else await trio.sleep_forever()

        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)
            with pytest.raises(NoTaskGroupError):
                app_tasks(app)
            scope.cancel()

        with trio.CancelScope() as scope:
            await app({"type": "lifespan", "state": {}}, receive, send)
        assert sent[0] == {"type": "lifespan.startup.complete"}

    trio.run(main)
