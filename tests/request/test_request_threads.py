"""Threads, which nothing can cancel, are waited for whatever cancels the request."""

import asyncio
import threading
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any

import pytest
from anyio import from_thread, to_thread
from fastapi import Depends, FastAPI, Request
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from quattro_web import cancel_on_disconnect, install, set_deadline, uninterrupted
from quattro_web.fastapi import Deadline, RequestTaskGroup
from tests.support.asgi import Exchange, get, run


def app_with_session(log: list[str]) -> tuple[FastAPI, Any]:
    async def session() -> AsyncIterator[None]:
        try:
            yield
        finally:
            log.append("session closed")

    app = FastAPI()
    install(app)
    return app, Depends(session)


def outlast(app: FastAPI, log: list[str]) -> None:
    """Be in a thread for longer than the child lives."""
    from_thread.run_sync(app.state.begun.set)
    from_thread.run(asyncio.sleep, 5)
    log.append("thread ended")


async def fail(app: FastAPI) -> None:
    """Fail while the thread works."""
    await app.state.begun.wait()
    raise HTTPException(418)


def spawn(request: Request, tg: RequestTaskGroup) -> None:
    from_thread.run_sync(tg.create_task, fail(request.app))


async def serve(app: FastAPI, path: str = "/") -> Exchange:
    app.state.begun = asyncio.Event()
    return await get(app, path)


def test_child_fails_while_the_handler_is_in_a_thread() -> None:
    """R3, R4: A child that fails does not close the session of a def handler, or of a call in the
    thread pool, before the thread has ended; then the failure is answered."""
    log: list[str] = []
    app, session = app_with_session(log)

    @app.get("/def", dependencies=[session, Depends(spawn)])
    def handler() -> str:
        outlast(app, log)
        return "never seen"

    @app.get("/pool", dependencies=[session, Depends(spawn)])
    async def calls() -> None:
        await run_in_threadpool(outlast, app, log)
        await asyncio.sleep(3600)
        log.append("never seen")

    def dependency(_: Annotated[None, Depends(spawn)]) -> None:
        outlast(app, log)

    @app.get("/dependency", dependencies=[session, Depends(dependency)])
    async def depends() -> None:
        await asyncio.sleep(3600)
        log.append("never seen")

    for path in ("/def", "/pool", "/dependency"):
        log.clear()
        exchange = run(serve(app, path))
        assert (exchange.status, exchange.error) == (418, None)
        assert log == ["thread ended", "session closed"]


def test_handler_that_has_no_thread_yet() -> None:
    """R8: A def handler that waits for a thread to be free is cancelled there, and never runs."""
    log: list[str] = []
    app, session = app_with_session(log)
    released = threading.Event()

    @app.get("/", dependencies=[session, Deadline(1)])
    def handler() -> None:
        log.append("never seen")

    async def main() -> None:
        to_thread.current_default_thread_limiter().total_tokens = 1
        other = asyncio.create_task(run_in_threadpool(released.wait, 10))
        await asyncio.sleep(0)
        assert (await get(app, log=log)).status == 504
        released.set()
        assert await other

    run(main())
    assert log[0] == "session closed"


def test_thread_that_may_be_left_is_left() -> None:
    """R4: A call that says that its thread may go on by itself is cancelled at once."""
    log: list[str] = []
    app, session = app_with_session(log)
    released = threading.Event()

    def work() -> None:
        from_thread.run_sync(app.state.begun.set)
        released.wait(10)
        log.append("thread ended")

    @app.get("/", dependencies=[session])
    async def handler(tg: RequestTaskGroup) -> None:
        tg.create_task(fail(app))
        await to_thread.run_sync(work, abandon_on_cancel=True)

    async def main() -> None:
        assert (await serve(app)).status == 418
        assert log == ["session closed"]
        released.set()

    run(main())


def test_what_comes_while_a_thread_fails_does_not_cut_the_clean_up() -> None:
    """R3, R4, R8: A def handler that raises after a child has failed, or after its deadline, has
    its dependencies cleaned up to the end."""
    log: list[str] = []
    app = FastAPI()
    install(app)

    async def session() -> AsyncIterator[None]:
        try:
            yield
        finally:
            await asyncio.sleep(5)
            log.append("rolled back")

    def handler() -> None:
        outlast(app, log)
        raise HTTPException(403)

    app.get("/child", dependencies=[Depends(session), Depends(spawn)])(handler)
    app.get("/deadline", dependencies=[Depends(session), Deadline(1)])(handler)
    for path, status in (("/child", 418), ("/deadline", 504)):
        log.clear()
        assert run(serve(app, path)).status == status
        assert log == ["thread ended", "rolled back"]


def test_request_that_ends_sooner_than_its_thread_is_looked_at() -> None:
    """R4: A failure that was to cancel the handler after its thread cancels nothing that comes
    after the request, in the same task."""
    app, _ = app_with_session([])

    @app.get("/", dependencies=[Depends(spawn)])
    def handler() -> None:
        outlast(app, [])

    async def main() -> None:
        assert (await serve(app)).status == 418
        await asyncio.sleep(3600)

    run(main())


def test_children_that_are_in_a_thread() -> None:
    """R3: A child, or a background task, that is cancelled while it waits for a thread ends when
    the thread has: no thread works on a closed session."""
    log: list[str] = []
    app, session = app_with_session(log)

    @app.get("/child", dependencies=[session])
    async def foreground(tg: RequestTaskGroup) -> None:
        tg.create_task(run_in_threadpool(outlast, app, log))
        await fail(app)

    @app.get("/background", dependencies=[session])
    async def background(tg: RequestTaskGroup) -> None:
        tg.create_background_task(run_in_threadpool(outlast, app, log))
        await app.state.begun.wait()

    for path, status in (("/child", 418), ("/background", 200)):
        log.clear()
        assert run(serve(app, path)).status == status
        assert log == ["thread ended", "session closed"]


def test_children_do_not_wait_for_the_thread() -> None:
    """R8: The deadline cancels the children at once, though the handler's thread goes on."""
    log: list[str] = []
    app, session = app_with_session(log)
    cancelled = threading.Event()

    @app.get("/", dependencies=[session, Deadline(1)])
    async def handler(tg: RequestTaskGroup) -> None:
        async def child() -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                cancelled.set()

        tg.create_task(child())
        log.append(f"told: {await run_in_threadpool(cancelled.wait, 10)}")
        await asyncio.sleep(3600)
        log.append("never seen")

    exchange = run(serve(app))
    assert (exchange.status, exchange.error) == (504, None)
    assert log == ["told: True", "session closed"]


def test_thread_is_waited_for() -> None:
    """R8, R3: A def handler, whose thread can't be cancelled, ends before its dependencies close,
    and before the client has its 504."""
    log: list[str] = []
    app, session = app_with_session(log)

    @app.get("/", dependencies=[Deadline(1), session])
    def handler() -> None:
        outlast(app, log)

    assert run(serve(app)).status == 504
    assert log == ["thread ended", "session closed"]


@pytest.mark.parametrize("is_watched", [True, False])
def test_cancelling_is_asked_for_in_a_thread(is_watched: bool) -> None:
    """R12: A def handler that asks in its thread for its request to be cancelled is told to be
    async def, also where the request is watched already."""
    app = FastAPI()
    install(app, cancel_on_disconnect=is_watched)

    @app.get("/")
    def handler(request: Request) -> None:
        for ask in (
            partial(cancel_on_disconnect, request),
            partial(set_deadline, request, 5),
            uninterrupted(request).__enter__,
        ):
            with pytest.raises(RuntimeError, match="make the endpoint or dependency async def"):
                ask()

    assert run(get(app)).status == 200
