"""`def` endpoints and dependencies start children, and children run in threads and processes."""

import asyncio
import json
import os
import threading
from collections.abc import AsyncIterator
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any

import pytest
from anyio import from_thread
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from quattro_core import TaskFuture
from quattro_web import TaskGroup, app_task_group, install, request_task_group
from quattro_web.fastapi import AppTaskGroup, Deadline, RequestTaskGroup
from quattro_web.testing import AppClient
from tests.core.computing import compute_for_ever
from tests.support.apps import lifespan_of
from tests.support.asgi import get, run
from tests.support.lifespan import Life

variable: ContextVar[str] = ContextVar("variable")


async def ask(name: str, seconds: float = 1) -> str:
    await asyncio.sleep(seconds)
    if name == "bad":
        raise HTTPException(404, "bad")
    return name


async def session(request: Request) -> AsyncIterator[None]:
    try:
        yield
    finally:
        request.app.state.log.append("session closed")


Session = Annotated[None, Depends(session)]


def made() -> tuple[FastAPI, list[str]]:
    app = FastAPI()
    install(app)
    app.state.log = []
    return app, app.state.log


def test_def_endpoints_and_dependencies() -> None:
    """R12, R11: A `def` endpoint and a `def` dependency start children in their thread, and wait
    for them there; the children see the context variables of the thread."""
    app, _ = made()

    async def seen() -> str:
        return variable.get()

    def price(tg: RequestTaskGroup) -> str:
        return tg.create_task(ask("price")).result()

    @app.get("/")
    def handler(tg: RequestTaskGroup, found: Annotated[str, Depends(price)]) -> list[str]:
        variable.set("set in the thread")
        tasks = [tg.create_task(ask("a")), tg.create_background_task(seen())]
        assert all(isinstance(task, TaskFuture) for task in tasks)
        return [found, *[task.result() for task in tasks]]

    exchange = run(get(app))
    assert json.loads(exchange.body) == ["price", "a", "set in the thread"]


def test_in_starlette() -> None:
    """R12: So does a `def` endpoint of Starlette, which gets its group from an async caller."""

    def work(tg: TaskGroup) -> str:
        return tg.create_task(ask("a")).result()

    async def endpoint(request: Request) -> JSONResponse:
        return JSONResponse(await run_in_threadpool(work, request_task_group(request)))

    app = Starlette(routes=[Route("/", endpoint)])
    install(app)
    assert json.loads(run(get(app)).body) == "a"


def test_the_response_waits() -> None:
    """R2: A child that nobody waits for is waited for before the response leaves."""
    app, log = made()

    @app.get("/")
    def handler(tg: RequestTaskGroup) -> str:
        tg.create_task(ask("a", 5)).add_done_callback(lambda _: log.append("child ended"))
        return ""

    async def main() -> None:
        exchange = await get(app, log=log)
        assert exchange.status == 200

    run(main())
    assert log[0] == "child ended"


@pytest.mark.parametrize("waits_for", ["the one that fails", "another", "none", "a new one"])
def test_a_child_fails(waits_for: str) -> None:
    """R4, R3: The failure of a child is the answer, whatever its `def` handler does meanwhile; the
    session closes when the thread has ended."""
    app, log = made()

    @app.get("/")
    def handler(tg: RequestTaskGroup, _: Session) -> str:
        released = asyncio.Event()

        async def fail() -> None:
            await released.wait()
            raise HTTPException(404)

        bad = tg.create_task(fail())
        other = tg.create_task(ask("other", 3600))
        try:
            from_thread.run_sync(released.set)
            if waits_for == "the one that fails":
                bad.result()
            elif waits_for == "another":
                other.result()
            else:
                assert isinstance(bad.exception(), HTTPException)
                if waits_for == "a new one":
                    tg.create_task(ask("never"))
        finally:
            log.append("thread ended")
        return ""

    exchange = run(get(app))
    assert (exchange.status, exchange.error) == (404, None)
    assert log == ["thread ended", "session closed"]


def test_a_deadline() -> None:
    """R8, R3: A deadline cancels the children of a `def` handler, and ends its wait for them: no
    thread is left."""
    app, log = made()

    @app.get("/", dependencies=[Deadline(1)])
    def handler(tg: RequestTaskGroup, _: Session) -> str:
        try:
            return tg.create_task(ask("a", 3600)).result()
        finally:
            log.append("thread ended")

    assert run(get(app)).status == 504
    assert log == ["thread ended", "session closed"]


def test_after_the_response() -> None:
    """R12: A child that a thread starts when the response is complete is an error that names the
    group of the app."""
    app, log = made()
    groups: list[TaskGroup] = []

    @app.get("/")
    def handler(tg: RequestTaskGroup) -> str:
        groups.append(tg)
        return ""

    def late() -> None:
        try:
            groups[0].create_task(ask("late"))
        except RuntimeError as exc:
            log.append(str(exc))

    async def main() -> None:
        await get(app)
        await run_in_threadpool(late)

    run(main())
    assert "hand work that outlives it to quattro_web.app_task_group(conn)" in log[0]


def test_gather_in_a_thread() -> None:
    """R12: `gather` in a `def` handler says what to do, and no coroutine is left behind."""
    app, log = made()

    @app.get("/")
    def handler(tg: RequestTaskGroup) -> str:
        with pytest.raises(RuntimeError) as caught:
            tg.gather(ask("a"))  # type: ignore[unused-coroutine]
        log.append(str(caught.value))
        return ""

    assert run(get(app)).status == 200
    assert "make the endpoint or dependency async def, or call create_task(...)" in log[0]


def test_hand_over() -> None:
    """A5: A `def` handler hands work over to the app, one or all of several, and may wait for it;
    a function may be handed over to a thread."""
    app = FastAPI(lifespan=lifespan_of([]))
    install(app)
    done: list[str] = []
    released = asyncio.Event()

    async def late() -> None:
        await released.wait()
        done.append("late")

    @app.get("/")
    def handler(app_tg: AppTaskGroup) -> list[str | None]:
        app_tg.create_task(late())
        futures = [*app_tg.create_tasks(ask("a"), lambda: ask("b")), app_tg.create_task(ask("bad"))]
        named = app_tg.run_in_thread(lambda: threading.current_thread().name)
        assert named.result() != threading.main_thread().name
        return [future.result() for future in futures]

    @app.get("/refused")
    def refused(app_tg: AppTaskGroup) -> None:
        odd: Any = 3
        for hand_over in (app_tg.create_task, app_tg.create_tasks):
            with pytest.raises(TypeError, match="a coroutine was expected"):
                hand_over(odd)

    async def main() -> None:
        life = Life(app)
        await life.start()
        assert json.loads((await life.get("/")).body) == ["a", "b", None]
        assert (await life.get("/refused")).status == 200
        assert done == []
        released.set()
        await life.stop()
        assert done == ["late"]

    run(main())


def test_hand_over_in_a_thread_that_nobody_waits_for() -> None:
    """A5: In a thread of somebody else's it is an error, and the coroutines are closed."""
    app = FastAPI()
    install(app)

    @app.get("/")
    async def handler(request: Request) -> None:
        app_tg = app_task_group(request)
        errors: list[BaseException] = []

        def work() -> None:
            for hand_over in (app_tg.create_task, app_tg.create_tasks):
                try:
                    hand_over(ask("a"))
                except RuntimeError as exc:
                    errors.append(exc)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert [type(error) for error in errors] == [RuntimeError] * 2
        assert "in any other, call loop.call_soon_threadsafe(group.create_task" in str(errors[0])

    async def main() -> None:
        life = Life(app)
        await life.start()
        assert (await life.get("/")).status == 200
        await life.stop()

    run(main())


def test_run_in_thread_and_the_session() -> None:
    """C12, R3: What cancels a request waits for its threads, also those of `asyncio.to_thread`,
    before dependencies close."""
    app, log = made()

    def outlast(loop: asyncio.AbstractEventLoop, begun: asyncio.Event) -> None:
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(asyncio.sleep(5), loop).result()
        log.append("thread ended")

    async def fail_later(begun: asyncio.Event) -> None:
        await begun.wait()
        raise HTTPException(418)

    @app.get("/{kind}")
    async def handler(kind: str, tg: RequestTaskGroup, _: Session) -> None:
        loop, begun = asyncio.get_running_loop(), asyncio.Event()
        tg.create_task(fail_later(begun))
        if kind == "child":
            tg.run_in_thread(outlast, loop, begun)
        elif kind == "awaited":
            await tg.run_in_thread(outlast, loop, begun)
        elif kind == "asyncio":
            tg.create_task(asyncio.to_thread(outlast, loop, begun))
        else:
            await asyncio.to_thread(outlast, loop, begun)
        await asyncio.sleep(3600)

    for kind in ("child", "awaited", "asyncio", "handler"):
        log.clear()
        assert run(get(app, f"/{kind}")).status == 418
        assert log == ["thread ended", "session closed"], kind


def test_a_thread_starts_children() -> None:
    """C12, R12: A function that runs in a thread as a child may start other children."""
    app, _ = made()

    @app.get("/")
    async def handler(tg: RequestTaskGroup) -> str:
        return await tg.run_in_thread(lambda: tg.create_task(ask("inner")).result())

    assert json.loads(run(get(app)).body) == "inner"


def test_process(no_leaked_tasks: None, tmp_path: Path) -> None:
    """C12, R3: A child of a request runs in another process, which is ended with the request
    before its dependencies close. Nothing of it counts as a task that was left behind."""
    app, log = made()
    path = tmp_path / "pid"

    async def watched(request: Request) -> AsyncIterator[None]:
        try:
            yield
        finally:
            with pytest.raises(ProcessLookupError):
                os.kill(int(path.read_text()), 0)
            log.append("process ended")

    @app.get("/fine")
    async def fine(tg: RequestTaskGroup) -> int:
        return await tg.run_in_process(int, "7")

    @app.get("/cancelled", dependencies=[Depends(watched)])
    async def cancelled(tg: RequestTaskGroup) -> None:
        tg.run_in_process(compute_for_ever, str(path))
        while not path.exists():
            await asyncio.sleep(0.01)
        raise HTTPException(418)

    async def main() -> None:
        async with AppClient(app) as client:
            assert (await client.get("/fine")).json() == 7
            assert (await client.get("/cancelled")).status_code == 418

    asyncio.run(main())
    assert log == ["process ended"]
