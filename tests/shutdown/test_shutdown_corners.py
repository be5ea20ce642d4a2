"""Corners of a shutdown: sub-apps, sections that must not be cut."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from quattro_core import TaskStatus
from quattro_web import (
    NoTaskGroupError,
    ShutdownGrace,
    ShuttingDownError,
    cancel_reason,
    install,
    request_task_group,
    shutdown_event,
    uninterrupted,
)
from quattro_web._app.drain import Drain
from quattro_web._shutdown.state import Shutdown
from quattro_web.fastapi import RequestTaskGroup, ShutdownEvent
from tests.support.apps import settle
from tests.support.asgi import Exchange, get, run
from tests.support.lifespan import Life
from tests.support.signals import send, server_handlers

GRACE = ShutdownGrace(requests=10, resources=None)


def shut_down(app: Starlette, path: str = "/") -> Exchange:
    """Make a request, send a SIGTERM, let the server wait for the request, end the lifespan."""

    async def main() -> Exchange:
        life = Life(app)
        with server_handlers():
            await life.start()
            serving = asyncio.create_task(life.get(path))
            await settle()
            await send(signal.SIGTERM)
            done = await serving
            await life.stop()
            return done

    return run(main())


def app_with(endpoint: Callable[[Request], Awaitable[Response]], **options: object) -> Starlette:
    app = Starlette(routes=[Route("/", endpoint)], **options)  # type: ignore[arg-type]
    install(app, shutdown_grace=GRACE)
    return app


async def slow(request: Request) -> Response:
    await asyncio.sleep(3600)
    return PlainTextResponse("slow")


class Circle(asyncio.Future[None]):
    """What a task awaits that awaits itself: a cancellation of it never ends."""

    def cancel(self, msg: Any = None) -> bool:
        raise RecursionError


def test_request_that_nothing_can_cancel() -> None:
    """A6: A request that waits for itself, as when two tasks await each other, is given up; others
    are cancelled, and the app shuts down."""
    circles: list[Circle] = []

    async def endpoint(request: Request) -> Response:
        if "slow" in request.query_params:
            return await slow(request)
        circles.append(Circle(loop=asyncio.get_running_loop()))
        await circles[0]
        return PlainTextResponse("")

    async def main() -> None:
        life = Life(app_with(endpoint))
        await life.start()
        stuck, other = (asyncio.create_task(life.get(path)) for path in ("/", "/?slow"))
        await settle()
        await life.stop()
        assert life.error is None
        assert (await other).status == 503
        circles[0].set_result(None)
        await stuck

    run(main())


@pytest.mark.parametrize("who", ["child", "handler"])
def test_failure_before_the_cut_answers(who: str) -> None:
    """A6, R4: A request that has failed is answered with that, and not with a 503, if it is cut
    while another child of it still cleans up."""

    async def fails() -> None:
        raise HTTPException(404)

    async def cleans_up() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(30)

    async def endpoint(request: Request) -> Response:
        request_task_group(request).create_task(cleans_up())
        await asyncio.sleep(0)
        if who == "handler":
            await fails()
        request_task_group(request).create_task(fails())
        return await slow(request)

    assert shut_down(app_with(endpoint)).status == 404


def test_other_middlewares_may_be_around() -> None:
    """A6: A request is cancelled and answered below a BaseHTTPMiddleware as well."""

    async def dispatch(request: Request, call_next: object) -> Response:
        return await call_next(request)  # type: ignore[operator, no-any-return]

    app = app_with(slow, middleware=[Middleware(BaseHTTPMiddleware, dispatch=dispatch)])
    assert shut_down(app).status == 503


def test_sub_app_answers() -> None:
    """A6: In a sub-app with a middleware of its own, its own exception handler answers."""
    reasons: list[object] = []

    async def handler(request: Request, exc: Exception) -> Response:
        reasons.append(cancel_reason(request))
        return PlainTextResponse("come back", 503)

    sub = Starlette(routes=[Route("/", slow)], exception_handlers={ShuttingDownError: handler})
    install(sub)
    app = Starlette(routes=[Mount("/sub", sub)])
    install(app, shutdown_grace=GRACE)
    assert shut_down(app, "/sub/").body == b"come back"
    assert reasons == ["the server is shutting down"]


def test_section_that_must_not_be_cut() -> None:
    """A6: A section that must not be cut is cancelled at its end, also in a sub-app with a
    middleware of its own, to which the scope is handed as it is or as a copy."""
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        with uninterrupted(request):
            await asyncio.sleep(10.5)
            log.append("paid")
        await asyncio.sleep(3600)
        return PlainTextResponse("done")

    sub = Starlette(routes=[Route("/{any:path}", endpoint)])
    install(sub)

    async def copying(scope: Scope, receive: Receive, send: Send) -> None:
        await sub({**scope}, receive, send)

    for each in (sub, copying):
        app = Starlette(routes=[Route("/", endpoint), Mount("/sub", each)])
        install(app, shutdown_grace=GRACE)
        assert [shut_down(app).status, shut_down(app, "/sub/").status] == [503, 503]
    assert log == ["paid"] * 4


def test_signal_while_the_app_starts() -> None:
    """A2, A6: A server that is told to stop while pumps are not ready does not wait for them: the
    start-up fails, and says why."""

    async def never(*, task_status: TaskStatus) -> None:
        await asyncio.Event().wait()

    async def main() -> Life:
        app = Starlette()
        install(app, pumps=[never], shutdown_grace=GRACE)
        life = Life(app)
        with server_handlers():
            starting = asyncio.create_task(life.start())
            await settle()
            await send(signal.SIGTERM)
            assert await starting == "startup.failed"
        return life

    assert "was asked to stop before the pumps of the app were ready" in str(run(main()).error)


def test_event_in_fastapi() -> None:
    """A6: FastAPI handlers get the event as a dependency; it can be asked, and waited for."""
    app = FastAPI()
    install(app, shutdown_grace=GRACE)

    @app.get("/")
    async def told(shutdown: ShutdownEvent) -> list[str]:
        before = repr(shutdown)
        assert not shutdown.is_set()
        await shutdown.wait()
        await shutdown.wait()
        assert shutdown.is_set()
        return [before, repr(shutdown)]

    assert shut_down(app).body == b'["<ShutdownEvent unset>","<ShutdownEvent set>"]'


def test_event_without_an_app() -> None:
    """A6, R12: Where nothing can tell of a shutdown, asking for the event is a clear error."""

    async def endpoint(request: Request) -> Response:
        with pytest.raises(NoTaskGroupError, match=r"call quattro_web\.install\(app\)"):
            shutdown_event(request)
        return PlainTextResponse("refused")

    assert run(get(Starlette(routes=[Route("/", endpoint)]))).body == b"refused"


def test_requests_of_another_event_loop_are_left_alone() -> None:
    """A6: An app that runs in two event loops, as under two test clients, ends the requests of the
    one that shuts down."""
    app = app_with(slow)

    async def other() -> None:
        request = asyncio.create_task(Exchange(app, "/").run())
        await settle()
        first = shut_down_in_thread
        await asyncio.to_thread(first)
        assert not request.done()
        request.cancel()
        await asyncio.wait((request,))

    def shut_down_in_thread() -> None:
        async def main() -> None:
            async with Life(app):
                await settle()

        run(main())

    asyncio.run(other())


def test_pump_knows_of_the_shutdown(caplog: pytest.LogCaptureFixture) -> None:
    """A6: A pump that takes ``shutdown`` is told at the signal, and may end by itself."""
    log: list[str] = []

    async def pump(*, shutdown: object) -> None:
        await shutdown.wait()  # type: ignore[attr-defined]
        log.append("told")

    app = Starlette(routes=[Route("/", slow)])
    install(app, pumps=[pump], shutdown_grace=GRACE)
    shut_down(app)
    assert log == ["told"]
    assert not [record for record in caplog.records if record.levelno > logging.WARNING]


def test_request_that_ends_while_it_is_reported() -> None:
    """A6: What is open can be told from another thread, while requests come and go."""

    async def main() -> list[str]:
        requests: dict[Any, Any] = {}

        class Ending:
            """A request that ends as soon as anybody has looked at it."""

            parent = group = None
            began = 0.0

            @property
            def innermost(self) -> "Ending":
                return self

            def runs_in(self, loop: object) -> bool:
                requests.clear()
                return True

        requests[Ending()] = {"type": "http", "method": "GET", "path": "/brief"}
        drain = Drain(requests, Shutdown(GRACE))
        left = drain.still_running()
        drain.cancel()
        await settle()
        return left

    [line] = run(main())
    assert line.startswith("GET /brief, since ")


@pytest.mark.parametrize("media_type", ["text/event-stream", "text/plain"])
@pytest.mark.parametrize("waits_in", ["body", "child"])
def test_streams_of_fastapi_are_cut_like_others(
    media_type: str, waits_in: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A6, R5: A stream of FastAPI's that has a task group and dependencies ends like any other when
    its grace is over: an event stream properly, another one is cut, and the log has one entry."""
    seen: list[BaseException] = []
    app = FastAPI()

    async def session() -> AsyncIterator[None]:
        try:
            yield
        except BaseException as exc:
            seen.append(exc)
            raise

    @app.get("/", dependencies=[Depends(session)])
    async def handler(tg: RequestTaskGroup) -> StreamingResponse:
        forever = asyncio.Event().wait
        child = tg.create_task(forever())

        async def body() -> AsyncIterator[str]:
            yield "piece"
            await (forever() if waits_in == "body" else child)

        return StreamingResponse(body(), media_type=media_type)

    install(app, shutdown_grace=GRACE)
    exchange = shut_down(app)
    assert (exchange.body, exchange.error) == (b"piece", None)
    assert exchange.is_complete == (media_type == "text/event-stream")
    assert [type(exc) for exc in seen] == [ShuttingDownError]
    [record] = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert record.getMessage().startswith("the shutdown cancels everything that is still open")


@pytest.mark.parametrize("asks", [True, False])
@pytest.mark.parametrize("is_mounted", [True, False])
def test_event_stream_of_fastapi(
    asks: bool, is_mounted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A6: So it is with FastAPI's own event streams, in a mounted app that has the middleware as
    well, and without a task group."""
    sse = pytest.importorskip("fastapi.sse", reason="a FastAPI without event streams of its own")
    app = FastAPI()
    inner = FastAPI() if is_mounted else app
    router = APIRouter()

    @router.get("/", response_class=sse.EventSourceResponse)
    async def handler(request: Request) -> AsyncIterator[int]:
        if asks:
            request_task_group(request)
        yield 1
        await asyncio.Event().wait()

    inner.include_router(router)
    if is_mounted:
        install(inner)
        app.mount("/inner", inner)
    install(app, shutdown_grace=GRACE)
    exchange = shut_down(app, "/inner/" if is_mounted else "/")
    assert (exchange.body, exchange.error) == (b"data: 1\n\n", None)
    assert exchange.is_complete
    [record] = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert record.getMessage().startswith("the shutdown cancels everything that is still open")


@pytest.mark.parametrize("hangs", [False, True])
def test_dependency_that_closes_when_the_grace_ends(hangs: bool) -> None:
    """A6, R3: The dependencies of a response that has left just before the grace of requests ends
    are closed in peace; one that hangs is cancelled."""
    log: list[str] = []
    app = FastAPI()

    async def session() -> AsyncIterator[None]:
        yield
        try:
            await asyncio.sleep(3600 if hangs else 0.3)
        finally:
            log.append("cancelled" if asyncio.current_task().cancelling() else "closed")  # type: ignore[union-attr]

    @app.get("/", dependencies=[Depends(session)])
    async def handler(shutdown: ShutdownEvent) -> str:
        await shutdown.wait()
        return await asyncio.sleep(GRACE.requests - 0.1, "done")

    install(app, shutdown_grace=GRACE)
    exchange = shut_down(app)
    assert (exchange.status, exchange.is_complete) == (200, True)
    assert log == ["cancelled" if hangs else "closed"]
