"""Threads, which nothing can cancel, are waited for whatever cancels the request."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Annotated, Any

import pytest
from anyio import from_thread, to_thread
from fastapi import Depends, FastAPI, Request
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.responses import Response
from starlette.routing import Route

from quattro_web import (
    cancel_on_disconnect,
    install,
    request_task_group,
    set_deadline,
    time_left,
    uninterrupted,
)
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


def in_another_thread(call: Callable[[], object]) -> None:
    """Call something that fails in a thread that no task waits for."""
    errors: list[BaseException] = []

    def work() -> None:
        try:
            call()
        except RuntimeError as exc:
            errors.append(exc)

    thread = threading.Thread(target=work, name="own")
    thread.start()
    thread.join()
    raise errors[0]


@pytest.mark.parametrize("is_watched", [True, False])
def test_cancelling_is_asked_for_in_a_thread(is_watched: bool) -> None:
    """R12, R8: A def handler may ask in its thread for its request to be cancelled, also where the
    request is watched already; what it can't do there, and in another thread, names the way out."""
    app = FastAPI()
    install(app, cancel_on_disconnect=is_watched)
    app.state.ended = []

    async def child() -> None:
        try:
            await asyncio.Event().wait()  # no time passes but that of the deadline
        finally:
            app.state.ended.append("child")

    @app.get("/")
    def handler(request: Request, tg: RequestTaskGroup) -> None:
        task = tg.create_task(child())
        with pytest.raises(RuntimeError, match=r"^uninterrupted\(conn\).*cuts: leave it out"):
            uninterrupted(request).__enter__()
        for ask in (
            partial(cancel_on_disconnect, request),
            partial(request_task_group, request),
            partial(set_deadline, request, 5),
        ):
            name = ask.func.__name__
            told = (
                rf"^{name}\(conn\) was called in thread 'own', for which the request does not wait"
            )
            with pytest.raises(RuntimeError, match=told):
                in_another_thread(ask)
            ask()
        assert time_left(request) is not None
        task.result()

    assert run(get(app)).status == 504
    assert app.state.ended == ["child"]


@pytest.mark.parametrize("kind", [FastAPI, Starlette])
def test_group_that_is_asked_for_in_a_thread(kind: type[Starlette]) -> None:
    """R12, R3, R4: A def endpoint may ask for its group in its thread: its children end when it
    raises, before the exception handler runs, and their failure is the answer."""
    log: list[str] = []

    async def child() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            log.append("child ended")

    async def failing() -> None:
        raise HTTPException(418)

    def raises(request: Request) -> Response:
        tg = request_task_group(request)
        tg.create_task(child())
        raise OSError

    def fails(request: Request) -> Response:
        tg = request_task_group(request)
        tg.create_task(child())
        tg.create_task(failing())
        return Response()

    async def handle(_: Request, _exc: Exception) -> Response:
        log.append("handled")
        return Response(status_code=400)

    app = kind(exception_handlers={OSError: handle})
    app.add_route("/raises", raises)
    app.add_route("/fails", fails)
    install(app)
    assert run(get(app, "/raises")).status == 400
    assert log == ["child ended", "handled"]
    assert run(get(app, "/fails")).status == 418


def test_group_that_is_asked_for_in_the_thread_of_a_child() -> None:
    """R12: A child in a thread may ask for the group as well, which is there already."""
    app = FastAPI()
    install(app)

    async def child() -> str:
        return "child"

    @app.get("/")
    async def handler(request: Request, tg: RequestTaskGroup) -> str:
        def work() -> str:
            return request_task_group(request).create_task(child()).result()

        return await tg.run_in_thread(work)

    assert run(get(app)).body == b'"child"'


def test_group_that_is_asked_for_below_a_middleware() -> None:
    """R12: Where a middleware of the route has a task of its own for the endpoint, nothing tells
    who that is: the error says what to do."""

    def handler(request: Request) -> Response:
        with pytest.raises(RuntimeError, match="a middleware runs this handler in another task"):
            request_task_group(request)
        return Response()

    async def dispatch(request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)

    middleware = [Middleware(BaseHTTPMiddleware, dispatch=dispatch)]
    app = Starlette(routes=[Route("/", handler, middleware=middleware)])
    install(app)
    assert run(get(app)).status == 200
