"""Who stands around a handler sees what has failed, as itself."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Annotated, Any, Self, cast

import anyio
import pytest
from fastapi import (
    APIRouter,
    Depends,
    FastAPI,
    Request,
    Response,
    WebSocket,
    WebSocketDisconnect,
)
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute

from quattro_core import TaskGroup
from quattro_web import (
    TaskGroupMiddleware,
    cancel_on_disconnect,
    install,
    request_task_group,
    set_deadline,
)
from quattro_web._request.tasks import RequestGroup
from quattro_web._util.scope import REQUEST
from quattro_web.fastapi import RequestTaskGroup
from tests.request.failing import Teapot, answer, fail
from tests.support.asgi import Exchange, Socket, get, run

Run = Callable[[TaskGroup], Coroutine[Any, Any, Any]]
log: list[str] = []


@pytest.fixture(autouse=True)
def empty_log() -> Iterator[None]:
    log.clear()
    yield
    log.clear()


class OwnerError(Exception):
    pass


async def forever() -> Any:
    await asyncio.Event().wait()


async def awaited(tg: TaskGroup) -> None:
    await tg.create_task(fail(OwnerError()))


async def gathered(tg: TaskGroup) -> None:
    await tg.gather(forever(), fail(OwnerError()), forever())


async def mapped(tg: TaskGroup) -> None:
    async for _ in tg.map(fail, [OwnerError()], limit=2):
        pass


async def not_awaited(tg: TaskGroup) -> None:
    tg.create_task(fail(OwnerError()))
    await forever()


async def in_background(tg: TaskGroup) -> None:
    tg.create_background_task(fail(OwnerError()))
    await forever()


async def returns(tg: TaskGroup) -> None:
    tg.create_task(fail(OwnerError()))


async def swallows(tg: TaskGroup) -> None:
    tg.create_task(fail(OwnerError()))
    try:
        await forever()
    except asyncio.CancelledError:
        pass


IN_TIME = [awaited, gathered, mapped, not_awaited, in_background, swallows]


async def maps_errors() -> AsyncIterator[None]:
    try:
        yield
    except OwnerError as exc:
        log.append("mapped")
        raise HTTPException(400) from exc


async def rolls_back() -> AsyncIterator[None]:
    try:
        yield
    except Exception as exc:
        log.append(f"rolled back after {type(exc).__name__}")
        raise


def rolls_back_in_a_thread() -> Iterator[None]:
    try:
        yield
    except Exception as exc:
        log.append(f"rolled back after {type(exc).__name__}")
        raise
    finally:
        log.append("closed")


@pytest.mark.parametrize("scope", ["request", "function"])
@pytest.mark.parametrize("does", IN_TIME)
def test_dependency_sees_what_has_failed(does: Run, scope: Any) -> None:
    """R4: A dependency with ``yield`` sees the error of a child, as its own type, and may answer it
    otherwise, whether the handler awaits the child or not."""
    app = FastAPI()

    @app.get("/")
    async def handler(
        a: Annotated[None, Depends(maps_errors, scope=scope)],
        b: Annotated[None, Depends(rolls_back, scope=scope)],
        c: Annotated[None, Depends(rolls_back_in_a_thread, scope=scope)],
        tg: RequestTaskGroup,
    ) -> None:
        await does(tg)

    install(app)
    exchange = run(get(app))
    assert (exchange.status, exchange.error) == (400, None)
    told = "rolled back after OwnerError"
    assert log == [told, "closed", told, "mapped"]


def test_dependency_sees_what_fails_after_the_handler() -> None:
    """R4: So it is if a child fails when the handler has returned, and its response waits."""
    app = FastAPI(exception_handlers={OwnerError: answer("never called")})

    @app.get("/")
    async def handler(
        a: Annotated[None, Depends(maps_errors)],
        b: Annotated[None, Depends(rolls_back)],
        tg: RequestTaskGroup,
    ) -> None:
        await returns(tg)

    install(app)
    exchange = run(get(app))
    assert (exchange.status, exchange.error) == (400, None)
    assert log == ["rolled back after OwnerError", "mapped"]


@pytest.mark.parametrize("does", [awaited, gathered, mapped])
def test_what_is_around_the_await_sees_what_has_failed(does: Run) -> None:
    """R4: A context manager, a decorator or a route class around the await of a child sees its
    error as itself."""

    class Maps(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            original = super().get_route_handler()

            async def handler(request: Request) -> Response:
                try:
                    return await original(request)
                except OwnerError:
                    log.append("route class")
                    raise HTTPException(400) from None

            return handler

    app = FastAPI()
    router = APIRouter(route_class=Maps)

    @router.get("/")
    async def handler(tg: RequestTaskGroup) -> None:
        try:
            await does(tg)
        except OwnerError:
            log.append("handler")
            await asyncio.sleep(0)  # its clean-up is not cut
            log.append("cleaned up")
            raise

    app.include_router(router)
    install(app)
    exchange = run(get(app))
    assert (exchange.status, exchange.error) == (400, None)
    assert log == ["handler", "cleaned up", "route class"]


@pytest.mark.parametrize("does", [awaited, gathered, mapped])
def test_endpoint_wrapped_by_hand_sees_what_has_failed(does: Run) -> None:
    """R4: In Starlette, what is wrapped around an endpoint sees it as itself."""

    async def endpoint(request: Request) -> Response:
        await does(request_task_group(request))
        return Response()

    async def wrapped(request: Request) -> Response:
        try:
            return await endpoint(request)
        except OwnerError as exc:
            raise HTTPException(400) from exc

    app = Starlette(routes=[Route("/", wrapped)])
    install(app)
    exchange = run(get(app))
    assert (exchange.status, exchange.error) == (400, None)


@pytest.mark.parametrize("does", [awaited, gathered, mapped])
def test_handler_that_catches_a_failure_answers_for_it(does: Run) -> None:
    """R4: A handler that awaits a child and catches its error, which has cancelled the others,
    answers as it likes."""
    app = FastAPI(exception_handlers={OwnerError: answer("never called")})

    @app.get("/")
    async def handler(tg: RequestTaskGroup) -> str:
        tg.create_task(forever())
        with pytest.raises(OwnerError):
            await does(tg)
        with pytest.raises(RuntimeError, match="shutting down"):
            tg.create_task(forever())
        await asyncio.sleep(1)
        return "instead"

    install(app)
    exchange = run(get(app))
    assert (exchange.status, exchange.body, exchange.error) == (200, b'"instead"', None)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("make", ["starlette", "fastapi", "below", "websocket"])
def test_gather_raises_a_failure_wherever_it_stands(make: str, at: int, turns: int) -> None:
    """R4, C12: A handler that catches what `gather` raises answers for it, whichever child
    has failed, and however long the others take to clean up."""

    async def cleans_up() -> None:
        try:
            await forever()
        finally:
            for _ in range(turns):
                await asyncio.sleep(0)

    async def fails_next() -> None:
        await asyncio.sleep(0.1)
        raise Teapot

    async def endpoint(conn: Any) -> Response:
        children = [cleans_up(), cleans_up()]
        children.insert(at, fails_next())
        with pytest.raises(Teapot):
            await request_task_group(conn).gather(*children)
        await asyncio.sleep(1)  # it is not cancelled for it later either
        return PlainTextResponse("instead")

    async def socket_endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await endpoint(websocket)
        await websocket.close(4000)

    if make == "websocket":
        sockets = Starlette(routes=[WebSocketRoute("/", socket_endpoint)])
        install(sockets)
        assert run(Socket(sockets).run()).log == ["accept", "close 4000"]
        return
    app = application(make, endpoint)
    if make == "below":
        app.add_middleware(BaseHTTPMiddleware, dispatch=passes_on)
    exchange = run(get(app))
    assert (exchange.status, exchange.body, exchange.error) == (200, b"instead", None)


@pytest.mark.parametrize("make", ["starlette", "fastapi"])
@pytest.mark.parametrize("next_call", ["await", "gather", "create_task"])
def test_handler_that_goes_on_after_a_failure_ends_with_it(make: str, next_call: str) -> None:
    """R4, C5: A handler that catches the failure of a child, and then awaits another one, which it
    has cancelled, is answered with the failure; a call in its group says what has failed."""

    async def endpoint(request: Request) -> Response:
        tg = request_task_group(request)
        failing, other = tg.create_task(fail(Teapot())), tg.create_task(forever())
        with pytest.raises(Teapot):
            await failing
        if next_call == "await":
            await other
        with pytest.raises(RuntimeError, match=r"shutting down, since .* failed with Teapot\(\)"):
            await tg.gather(finished()) if next_call == "gather" else tg.create_task(finished())
        await other
        return Response()

    app = application(make, endpoint, exception_handlers={Teapot: answer("teapot", 418)})
    exchange = run(get(app))
    assert (exchange.status, exchange.error) == (418, None)


async def finished() -> None:
    pass


async def passes_on(request: Request, call_next: Any) -> Any:
    return await call_next(request)


async def fails_in_its_clean_up() -> None:
    try:
        await forever()
    finally:
        raise Teapot


def test_handler_that_catches_a_failure_does_not_answer_for_another() -> None:
    """R4, C5: What it is not told of is a failure of the request still."""
    app = FastAPI(exception_handlers={Teapot: answer("teapot", 418)})

    @app.get("/")
    async def handler(tg: RequestTaskGroup) -> str:
        tg.create_task(fails_in_its_clean_up())
        with pytest.raises(OwnerError):
            await awaited(tg)
        return "never seen"

    install(app)
    exchange = run(get(app))
    assert (exchange.status, exchange.body) == (418, b"teapot: Teapot()")


@pytest.mark.parametrize("scope", ["request", "function"])
@pytest.mark.parametrize("why", ["deadline", "disconnect"])
def test_dependency_sees_why_the_request_ends(why: str, scope: Any) -> None:
    """R3, R7, R8: A dependency sees an exception too if the deadline has passed or the client has
    left: one in a thread is closed on every FastAPI."""
    app = FastAPI()

    @app.get("/")
    async def handler(
        request: Request,
        a: Annotated[None, Depends(rolls_back, scope=scope)],
        b: Annotated[None, Depends(rolls_back_in_a_thread, scope=scope)],
        tg: RequestTaskGroup,
    ) -> None:
        # Not before the thread has run, for which no clock waits.
        if why == "deadline":
            set_deadline(request, 2)
        else:
            cancel_on_disconnect(request)
            exchange.disconnect_after(1)
        try:
            await tg.create_task(forever())
        except asyncio.CancelledError:
            log.append("cancelled")
            raise

    install(app)

    exchange = Exchange(app)
    run(exchange.run())
    assert (exchange.status, exchange.error) == (504 if why == "deadline" else 499, None)
    kind = "DeadlineExceededError" if why == "deadline" else "ClientDisconnect"
    told = f"rolled back after {kind}"
    assert log == ["cancelled", told, "closed", told]


def test_websocket_dependency_sees_that_the_client_has_left() -> None:
    """R6, R7: That of a WebSocket sees what Starlette raises of a client that is gone."""
    app = FastAPI()

    async def session() -> AsyncIterator[None]:
        try:
            yield
        except WebSocketDisconnect as exc:
            log.append(f"{exc.code}")
            raise

    @app.websocket("/", dependencies=[Depends(session)])
    async def handler(websocket: WebSocket) -> None:
        cancel_on_disconnect(websocket)
        await websocket.accept()
        await forever()

    install(app)
    socket = Socket(app)
    socket.leave()
    run(socket.run())
    assert (log, socket.error) == (["1006"], None)


# Failures in groups


class AnyioGroup:
    """anyio's, with the method of the others."""

    def __init__(self) -> None:
        self._group = anyio.create_task_group()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> Any:
        return await self._group.__aexit__(*cast("Any", exc))

    def create_task(self, coro: Coroutine[Any, Any, Any]) -> None:
        async def run() -> None:
            await coro

        self._group.start_soon(run)


GROUPS: list[Any] = [asyncio.TaskGroup, TaskGroup, AnyioGroup]


async def fails_in_groups(group: Any, *errors: Exception) -> None:
    async with group() as outer:

        async def inner() -> None:
            async with group() as within:
                for error in errors:
                    within.create_task(fail(error))

        outer.create_task(inner())


@pytest.mark.parametrize("uses_its_group", [True, False])
@pytest.mark.parametrize("by_child", [True, False])
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("make", ["starlette", "fastapi"])
def test_one_failure_out_of_nested_groups(
    group: Any, by_child: bool, uses_its_group: bool, make: str
) -> None:
    """R4: One failure that comes out of groups of a helper's is answered as itself."""
    if by_child and not uses_its_group:
        return

    async def endpoint(request: Request) -> Response:
        if by_child:
            tg = request_task_group(request)
            tg.create_task(fails_in_groups(group, HTTPException(404)))
            return Response()
        if uses_its_group:
            request_task_group(request).create_task(forever())
        await fails_in_groups(group, HTTPException(404))
        return Response()

    app = application(make, endpoint)
    exchange = run(get(app))
    assert (exchange.status, exchange.error) == (404, None)


def application(make: str, endpoint: Any, *, is_bare: bool = False, **options: Any) -> Any:
    app = FastAPI(**options) if make == "fastapi" else Starlette(**options)
    app.add_route("/", endpoint)
    if isinstance(app, FastAPI):
        app = FastAPI(**options)

        @app.get("/")
        async def handler(request: Request) -> Any:
            return await endpoint(request)

    if not is_bare:
        install(app)
    return app


@pytest.mark.parametrize("make", ["starlette", "fastapi"])
def test_several_failures_out_of_a_group(make: str, caplog: pytest.LogCaptureFixture) -> None:
    """R4: Of several the first answers and the others are logged, if each has a handler; a bug
    among them is a 500."""

    async def endpoint(request: Request) -> Response:
        request_task_group(request)
        await fails_in_groups(asyncio.TaskGroup, *errors)
        return Response()

    app = application(make, endpoint)
    errors: list[Exception] = [HTTPException(404), HTTPException(409)]
    with caplog.at_level(logging.ERROR):
        exchange = run(get(app))
    assert (exchange.status, exchange.error) == (404, None)
    assert [record.exc_info[1] for record in caplog.records if record.exc_info] == [errors[1]]
    errors[1] = ZeroDivisionError()
    exchange = run(get(app))
    assert exchange.status == 500
    assert isinstance(exchange.error, ExceptionGroup)


@pytest.mark.parametrize("make", ["starlette", "fastapi"])
def test_handler_for_groups_goes_first(make: str) -> None:
    """R4: An exception handler of the app's for groups gets one of one failure as well."""

    async def endpoint(request: Request) -> Response:
        request_task_group(request)
        await fails_in_groups(asyncio.TaskGroup, HTTPException(404))
        return Response()

    async def groups(request: Request, exc: Exception) -> Response:
        return PlainTextResponse(type(exc).__name__, 418)

    exchange = run(get(application(make, endpoint, exception_handlers={ExceptionGroup: groups})))
    assert (exchange.status, exchange.body) == (418, b"ExceptionGroup")


# Children that nobody has cancelled, and exits


async def is_cancelled_by_others() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.cancel)
    await future


@pytest.mark.parametrize("start", ["create_task", "create_background_task"])
def test_child_that_is_cancelled_by_what_it_awaits(start: str) -> None:
    """C5, R4: A child that is cancelled by what it awaits has failed, and says so and where; one
    that the handler cancels has not."""

    async def endpoint(request: Request) -> Response:
        tg = request_task_group(request)
        tg.create_task(forever()).cancel()
        getattr(tg, start)(is_cancelled_by_others(), name="feeder")
        await (forever() if start == "create_background_task" else asyncio.sleep(0))
        return Response()

    exchange = run(get(application("starlette", endpoint)))
    assert exchange.status == 500
    assert isinstance(exchange.error, RuntimeError)
    assert str(exchange.error) == "feeder was cancelled by something that it awaited"
    assert isinstance(exchange.error.__cause__, asyncio.CancelledError)  # which shows where


def test_feeder_that_is_cancelled_does_not_leave_its_stream_open() -> None:
    """R5: A stream whose feeder is cancelled by what it awaits is cut."""

    async def endpoint(request: Request) -> Response:
        tg = request_task_group(request)

        async def chunks() -> AsyncIterator[str]:
            yield "a"
            tg.create_background_task(is_cancelled_by_others())
            await forever()

        return StreamingResponse(chunks())

    exchange = run(get(application("starlette", endpoint)))
    assert (exchange.log, exchange.is_complete) == (
        ["start 200", "chunk a", "raised RuntimeError"],
        False,
    )


def test_failure_that_says_that_the_client_has_left() -> None:
    """R4: A child's OSError is no sign that the client has left (as one of the server's is)."""

    async def endpoint(request: Request) -> Response:
        request_task_group(request).create_task(fail(ConnectionError("database")))
        return StreamingResponse(iter("abc"))

    async def main(spec_version: str) -> Exchange:
        exchange = Exchange(application("starlette", endpoint))
        exchange.scope["asgi"]["spec_version"] = spec_version
        return await exchange.run()

    for spec_version in ("2.3", "2.4"):
        exchange = run(main(spec_version))
        assert isinstance(exchange.error, ConnectionError)


@pytest.mark.parametrize("body", ["", "stream"])
@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
def test_dependency_sees_a_timeout(spec_version: str, body: str) -> None:
    """R4: A dependency sees the TimeoutError of a child for which the response waits, though it is
    an OSError, which says elsewhere that the client has left."""
    app = FastAPI()

    @app.get("/", response_model=None)
    async def handler(a: Annotated[None, Depends(rolls_back)], tg: RequestTaskGroup) -> Any:
        tg.create_task(fail(TimeoutError()))
        return StreamingResponse(iter(body)) if body else "never seen"

    async def main() -> Exchange:
        exchange = Exchange(app)
        exchange.scope["asgi"]["spec_version"] = spec_version
        return await exchange.run()

    install(app)
    assert isinstance(run(main()).error, TimeoutError)
    assert log == ["rolled back after TimeoutError"]


def test_websocket_child_seen_by_a_dependency() -> None:
    """R4, R6: So it is for a WebSocket."""
    app = FastAPI()

    @app.websocket("/")
    async def handler(
        websocket: WebSocket, a: Annotated[None, Depends(rolls_back)], tg: RequestTaskGroup
    ) -> None:
        await websocket.accept()
        tg.create_task(fail(Teapot()))
        await forever()

    install(app)
    socket = run(Socket(app).run())
    assert log == ["rolled back after Teapot"]
    assert socket.log == ["accept", "close 1011", "raised Teapot"]


def test_failure_that_meets_a_cancellation_of_the_handler() -> None:
    """R4, C5: A child that fails in the moment at which the handler, which awaits it, is cancelled
    by something else, such as its own timeout: the failure is not lost."""

    async def endpoint(request: Request) -> Response:
        loop, handler = asyncio.get_running_loop(), asyncio.current_task()
        assert handler is not None
        ready = loop.create_future()
        task = request_task_group(request).create_task(fails_when(ready))
        loop.call_later(1, ready.set_result, None)
        ready.add_done_callback(lambda _: loop.call_soon(handler.cancel))
        with pytest.raises(asyncio.CancelledError):
            await task
        while handler.cancelling():
            handler.uncancel()
        return PlainTextResponse("never seen")

    async def fails_when(ready: asyncio.Future[None]) -> None:
        await ready
        raise OwnerError

    exchange = run(get(application("starlette", endpoint)))
    assert exchange.status == 500
    assert isinstance(exchange.error, OwnerError)


@pytest.mark.parametrize("turns", [0, 1, 3])
@pytest.mark.parametrize("make", ["starlette", "fastapi"])
def test_gather_does_not_hide_a_bug(make: str, turns: int) -> None:
    """R4, C5: Of several children that fail, the handler is told of one: the others are failures of
    the request still, also of those that have failed before it is told."""

    async def fails_in_its_turn() -> None:
        try:
            await forever()
        finally:
            for _ in range(turns):
                await asyncio.sleep(0)
            raise ZeroDivisionError

    async def endpoint(request: Request) -> Response:
        tg = request_task_group(request)
        await tg.gather(fails_in_its_turn(), fail(OwnerError()))
        return Response()

    app = application(make, endpoint, exception_handlers={OwnerError: answer("owner")})
    exchange = run(get(app))
    assert exchange.status == 500
    assert isinstance(exchange.error, ExceptionGroup)
    assert [type(error) for error in exchange.error.exceptions] == [OwnerError, ZeroDivisionError]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
@pytest.mark.parametrize("is_alone", [True, False])
@pytest.mark.parametrize("make", ["starlette", "fastapi", "below"])
def test_gather_raises_what_an_eager_child_fails_with(make: str, is_alone: bool) -> None:
    """R4, C10: A child that fails in its first step, under the eager task factory, is a failure
    that the handler sees as itself and may answer for: no cancellation is left to it, also below a
    middleware that runs it in a task of its own."""

    async def fails() -> None:
        raise OwnerError

    async def endpoint(request: Request) -> Response:
        tg = request_task_group(request)
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
        with pytest.raises(OwnerError):
            await tg.gather(fails(), *([] if is_alone else [asyncio.sleep(0)]))
        await asyncio.sleep(1)
        assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]
        return PlainTextResponse("instead")

    async def passes(request: Request, call_next: Any) -> Response:
        return await call_next(request)  # type: ignore[no-any-return]

    app = application(make, endpoint, is_bare=make == "below")
    if make == "below":
        app = TaskGroupMiddleware(BaseHTTPMiddleware(app, dispatch=passes))
    assert run(get(app)).status == 200


async def awaits_a_child(tg: TaskGroup, child: Coroutine[Any, Any, None]) -> None:
    await tg.create_task(child)


async def awaits_a_background_task(tg: TaskGroup, child: Coroutine[Any, Any, None]) -> None:
    await tg.create_background_task(child)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
@pytest.mark.parametrize("way", [awaits_a_child, awaits_a_background_task])
@pytest.mark.parametrize("make", ["starlette", "fastapi"])
def test_handler_that_awaits_an_eager_child(make: str, way: Any) -> None:
    """R3, R4, C10: A handler that awaits a child sees the child's error as itself, may answer for
    it, and is not cancelled in its clean-up, also if the child has failed in its first step, under
    the eager task factory."""

    async def fails() -> None:
        raise OwnerError

    async def endpoint(request: Request) -> Response:
        tg = request_task_group(request)
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
        with pytest.raises(OwnerError):
            try:
                await way(tg, fails())
            finally:
                await asyncio.sleep(1)
        await asyncio.sleep(1)
        assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]
        return PlainTextResponse("instead")

    assert run(get(application(make, endpoint))).body == b"instead"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
@pytest.mark.parametrize("error", [OwnerError(), SystemExit(), asyncio.CancelledError()], ids=repr)
def test_child_that_awaits_an_eager_child(error: BaseException) -> None:
    """C5, C10: A child that awaits another one, which fails in its first step under the eager task
    factory, is cancelled once, as in any other event loop: its clean-up ends."""

    async def fails() -> None:
        raise error

    async def child(tg: TaskGroup) -> None:
        try:
            await tg.create_task(fails())
        finally:
            await asyncio.sleep(1)
            log.append("cleaned up")

    async def endpoint(request: Request) -> Response:
        tg = request_task_group(request)
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
        tg.create_task(child(tg))
        await forever()
        raise AssertionError

    assert run(get(application("starlette", endpoint))).status == 500
    assert log == ["cleaned up"]


@pytest.mark.parametrize("make", ["starlette", "fastapi"])
def test_failure_that_the_handler_is_told_of_answers_if_it_is_the_first(make: str) -> None:
    """R4: Of a failure that the handler is told of, and another one that has followed before that,
    the first one answers."""

    async def fails_later() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0)
            raise Teapot

    async def endpoint(request: Request) -> Response:
        tg = request_task_group(request)
        await tg.gather(fails_later(), fail(OwnerError()))
        return Response()

    handlers = {OwnerError: answer("owner"), Teapot: answer("teapot")}
    exchange = run(get(application(make, endpoint, exception_handlers=handlers)))
    assert exchange.body == b"owner: OwnerError()"


def test_deadline_of_a_stream_that_was_told_of_a_failure() -> None:
    """R4, R8: The body of a stream that is told of a child's failure as itself, and goes on, is
    cancelled at the deadline."""

    async def body(request: Request) -> AsyncIterator[str]:
        tg = request_task_group(request)
        yield "begun"
        with pytest.raises(OwnerError):
            await mapped(tg)
        try:
            await forever()
        finally:
            log.append(f"ended after {asyncio.get_running_loop().time():.0f} s")

    async def endpoint(request: Request) -> Response:
        set_deadline(request, 5, stream=5)
        return StreamingResponse(body(request))

    run(get(application("starlette", endpoint)))
    assert log == ["ended after 5 s"]


@pytest.mark.parametrize("returns", [True, False])
@pytest.mark.parametrize("make", ["starlette", "fastapi"])
def test_failure_that_children_share_is_one(make: str, returns: bool) -> None:
    """R4: What two children have failed with, as the same object, is one failure: it arrives
    unwrapped, though the app has an exception handler for groups."""
    error = Teapot()

    async def endpoint(request: Request) -> Response:
        tg = request_task_group(request)
        for _ in range(2):
            tg.create_task(fail(error))
        return Response() if returns else await forever()

    handlers = {Teapot: answer("teapot"), ExceptionGroup: answer("group")}
    exchange = run(get(application(make, endpoint, exception_handlers=handlers)))
    assert exchange.body == b"teapot: Teapot()"


@pytest.mark.parametrize("make", ["starlette", "fastapi"])
def test_failure_arrives_as_it_was_raised(make: str) -> None:
    """R4: A child's error leaves the app with its own context and traceback: not as if it had been
    raised while the cancellation that tells of it was handled."""
    error = ZeroDivisionError()

    async def endpoint(request: Request) -> Any:
        request_task_group(request).create_task(fail(error))
        await forever()

    exchange = run(get(application(make, endpoint)))
    assert (exchange.error, error.__context__, error.__cause__) == (error, None, None)


@pytest.mark.parametrize("make", ["starlette", "fastapi"])
def test_failure_that_groups_share_is_one(make: str) -> None:
    """R4: So it is if it comes out of groups of theirs."""
    error = ZeroDivisionError()

    async def endpoint(request: Request) -> Response:
        tg = request_task_group(request)
        for _ in range(2):
            tg.create_task(fails_in_groups(asyncio.TaskGroup, error))
        return Response()

    exchange = run(get(application(make, endpoint)))
    assert (exchange.status, exchange.error) == (500, error)


def test_group_that_nobody_answers_leaves_as_it_is() -> None:
    """R10: An exception group of a request without a group, of which nothing has a handler, leaves
    the app as it was raised."""
    error = ExceptionGroup("a helper's", [ZeroDivisionError()])

    async def endpoint(request: Request) -> Response:
        raise error

    for make in ("starlette", "fastapi"):
        assert run(get(application(make, endpoint))).error is error


@pytest.mark.parametrize("make", ["starlette", "fastapi"])
def test_group_that_cuts_a_stream_leaves_as_it_is(make: str) -> None:
    """R5, R10: So does one that would be answered, if a stream without a group has begun."""
    error = ExceptionGroup("a helper's", [HTTPException(404)])

    async def chunks() -> AsyncIterator[str]:
        yield "a"
        raise error

    async def endpoint(request: Request) -> Response:
        return StreamingResponse(chunks())

    # Older versions of Starlette take the only error out of the group.
    bare = run(get(application(make, endpoint, is_bare=True)))
    exchange = run(get(application(make, endpoint)))
    assert (repr(exchange.error), exchange.log) == (repr(bare.error), bare.log)
    assert not exchange.is_complete


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("does", [awaited, gathered, mapped])
def test_handler_that_was_told_is_not_cancelled_as_well(does: Run, kind: str) -> None:
    """R4, R6: A handler that sees the error of a child is not cancelled for it while it cleans up,
    and the error is not lost, though a task of the handler has asked for the group as well."""

    async def asks(conn: Any) -> None:
        request_task_group(conn)

    async def endpoint(conn: Any) -> None:
        if kind == "websocket":
            await conn.accept()
        tg = request_task_group(conn)
        await asyncio.create_task(asks(conn))
        try:
            await does(tg)
        finally:
            await asyncio.sleep(1)
            log.append("cleaned up")

    app = Starlette(routes=[Route("/", endpoint), WebSocketRoute("/", endpoint)])
    install(app)
    client = Exchange(app) if kind == "http" else Socket(app)
    run(client.run())
    assert log == ["cleaned up"]
    assert isinstance(client.error, OwnerError)
    assert "start 500" in client.log or "close 1011" in client.log


@pytest.mark.parametrize("why", ["deadline", "disconnect", "shutdown", "cancel"])
@pytest.mark.parametrize("does", [awaited, gathered, mapped])
def test_child_that_is_awaited_after_a_failure_cleans_up(does: Run, why: str) -> None:
    """R3, C5: A handler that has seen a failure may await a child that cleans up for it. What
    cancels the request meanwhile does not cut that."""

    async def cleans_up() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(2)
            log.append("cleaned up")

    async def endpoint(request: Request) -> None:
        tg, loop = request_task_group(request), asyncio.get_running_loop()
        child = tg.create_task(cleans_up())
        await asyncio.sleep(0)
        if why == "deadline":
            set_deadline(request, 1)
        elif why == "disconnect":
            cancel_on_disconnect(request)
        elif why == "shutdown":
            loop.call_later(1, request.scope[REQUEST].cut_off, request)
        else:
            loop.call_later(1, tg.cancel)
        with suppress(OwnerError):
            await does(tg)
        await child

    async def main() -> int:
        app = Starlette(routes=[Route("/", endpoint)])
        install(app)
        return (await Exchange(app).disconnect_after(1).run()).status

    status = {"deadline": 504, "disconnect": 499, "shutdown": 503, "cancel": 500}
    assert (run(main()), log) == (status[why], ["cleaned up"])


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_eager_child_that_asks_for_the_group_at_once() -> None:
    """R4, C10: A child that asks for its group in its first step, which the group does not know
    yet, is taken for a child, and not for a task of the handler that hosts others."""

    async def child(request: Request) -> None:
        request_task_group(request).create_task(asyncio.sleep(0))

    async def endpoint(request: Request) -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
        tg = request_task_group(request)
        tg.create_task(child(request))
        group = cast("RequestGroup", tg)
        log.append(f"{group.is_hosted} {len(group.askers)}")

    run(get(application("starlette", endpoint)))
    assert log == ["False 1"]


@pytest.mark.parametrize("make", ["starlette", "fastapi"])
def test_task_of_the_handler_that_is_cancelled_with_it(make: str) -> None:
    """R4: A failure arrives as itself if the cancellation that tells the handler of it meets a
    task of the handler's as well, which gathers children."""

    async def part(request: Request) -> None:
        await gathered(request_task_group(request))

    async def endpoint(request: Request) -> Response:
        request_task_group(request)
        await asyncio.gather(part(request))
        return Response()

    app = application(make, endpoint, exception_handlers={OwnerError: answer("owner")})
    assert run(get(app)).body == b"owner: OwnerError()"


@pytest.mark.parametrize("make", ["starlette", "fastapi"])
def test_timeout_of_a_handler_that_gathers(make: str) -> None:
    """C10, R4: A handler whose own timeout expires as it waits for the clean-up of a child, since
    another one has failed, is cancelled: it is not told of the failure in place of that."""

    async def cleans_up() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(2)

    async def asks(request: Request) -> None:
        request_task_group(request)

    async def endpoint(request: Request) -> Response:
        await asyncio.create_task(asks(request))
        try:
            async with asyncio.timeout(2):
                await request_task_group(request).gather(cleans_up(), fails_in_a_second())
        except (TimeoutError, asyncio.CancelledError):
            log.append("cancelled")
        return Response()

    async def fails_in_a_second() -> None:
        await asyncio.sleep(1)
        raise OwnerError

    assert isinstance(run(get(application(make, endpoint))).error, OwnerError)
    assert log == ["cancelled"]


@pytest.mark.parametrize("asks", [False, True])
@pytest.mark.parametrize("make", ["starlette", "fastapi"])
def test_task_of_the_handler_that_maps(make: str, *, asks: bool) -> None:
    """R4: What a child of `map` fails with arrives as itself, if the results are for a task of the
    handler's, and the handler is cancelled meanwhile."""

    async def consumes(request: Request, tg: TaskGroup) -> None:
        if asks:
            request_task_group(request)
        await mapped(tg)

    async def endpoint(request: Request) -> Response:
        task = asyncio.create_task(consumes(request, request_task_group(request)))
        try:
            await forever()
        finally:
            await asyncio.wait([task])
            log.append("cancelled" if task.cancelled() else "told")
        raise AssertionError

    app = application(make, endpoint, exception_handlers={OwnerError: answer("owner")})
    assert run(get(app)).body == b"owner: OwnerError()"
    assert log == ["cancelled"]


@pytest.mark.parametrize("make", ["starlette", "fastapi"])
def test_handler_that_caught_a_failure_and_cancels_its_group(make: str) -> None:
    """C9, R4: A failure that the handler has caught does not answer when it cancels its group
    later: that does."""

    async def endpoint(request: Request) -> Response:
        tg = request_task_group(request)
        with suppress(LookupError):
            await tg.create_task(fail(LookupError()))
        tg.cancel()
        await forever()
        raise AssertionError

    exchange = run(get(application(make, endpoint)))
    assert "was cancelled before the response was complete" in str(exchange.error)
