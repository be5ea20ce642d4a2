"""Children have ended before any dependency of their handler closes."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Annotated, Any, Literal

import pytest
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from quattro_web import TaskGroupMiddleware, install, request_task_group, set_deadline
from quattro_web._util.scope import REQUEST
from quattro_web.fastapi import RequestTaskGroup
from tests.request.sessions import FunctionSession, RequestSession, child, log
from tests.support.asgi import Exchange, get, run


@pytest.fixture(autouse=True)
def empty_log() -> Iterator[None]:
    log.clear()
    yield
    log.clear()


def test_handler_that_raises_cancels_its_children() -> None:
    """R3: A handler that raises cancels its children, and does not wait (trap: a slow 403)."""
    app = FastAPI()

    @app.get("/")
    async def handler(tg: RequestTaskGroup) -> None:
        tg.create_task(child())
        await asyncio.sleep(0)
        raise HTTPException(403)

    install(app)
    run(get(app, log=log))
    assert log == ["child ended", "start 403", 'body {"detail":"Forbidden"}']


@pytest.mark.parametrize("first", ["group", "sessions"])
@pytest.mark.parametrize("error", [HTTPException(403), ZeroDivisionError()])
def test_children_end_before_dependencies_close(first: str, error: Exception) -> None:
    """R3: They end before any dependency closes, in any order (trap: a closed session)."""
    app = FastAPI()

    async def fail(tg: Any) -> None:
        tg.create_task(child())
        await asyncio.sleep(0)
        raise error

    if first == "group":

        @app.get("/")
        async def handler(tg: RequestTaskGroup, a: RequestSession, b: FunctionSession) -> None:
            await fail(tg)
    else:

        @app.get("/")
        async def other(b: FunctionSession, a: RequestSession, tg: RequestTaskGroup) -> None:
            await fail(tg)

    install(app)
    run(get(app, log=log))
    assert log[:3] == ["child ended", "function session closed", "request session closed"]


@pytest.mark.parametrize("kind", [RequestSession, FunctionSession])
def test_dependencies_of_one_kind(kind: Any) -> None:
    """R3: They end before dependencies of one kind alone, too, that are opened after the group is
    asked for."""
    app = FastAPI()

    @app.get("/")
    async def handler(tg: RequestTaskGroup, only: kind) -> None:
        tg.create_task(child())
        await asyncio.sleep(0)
        raise HTTPException(403)

    install(app)
    run(get(app, log=log))
    assert log[0] == "child ended"
    assert log[1].endswith("session closed")


def test_child_of_a_dependency_ends_before_those_opened_later() -> None:
    """R3: A child that a dependency has spawned ends before those that were opened after it."""
    app = FastAPI()

    async def spawning(tg: RequestTaskGroup) -> None:
        tg.create_task(child())

    @app.get("/")
    async def handler(
        s: Annotated[None, Depends(spawning)], a: RequestSession, b: FunctionSession
    ) -> None:
        await asyncio.sleep(0)
        raise HTTPException(403)

    install(app)
    run(get(app, log=log))
    assert log[:3] == ["child ended", "function session closed", "request session closed"]


@pytest.mark.parametrize("when", ["handler runs", "handler has returned"])
def test_failing_child_ends_its_siblings_first(when: str) -> None:
    """R3, R4: A child fails: its siblings end, then dependencies close, then it is answered."""
    app = FastAPI()

    async def fails() -> None:
        await asyncio.sleep(0)
        raise HTTPException(404)

    @app.get("/")
    async def handler(a: RequestSession, tg: RequestTaskGroup) -> None:
        tg.create_task(child())
        tg.create_task(fails())
        if when == "handler runs":
            await asyncio.Event().wait()

    install(app)
    run(get(app, log=log))
    assert log[:3] == ["child ended", "request session closed", "start 404"]


def test_children_of_a_stream_end_before_its_session_closes() -> None:
    """R3: The children that produce a stream end before the session that they use closes."""
    app = FastAPI()

    async def produce(queue: "asyncio.Queue[str | None]") -> None:
        for item in ["a", "b", None]:
            await queue.put(item)
        await asyncio.sleep(0)
        log.append("producer ended")

    @app.get("/")
    async def handler(a: RequestSession, tg: RequestTaskGroup) -> StreamingResponse:
        queue: asyncio.Queue[str | None] = asyncio.Queue(1)
        tg.create_task(produce(queue))

        async def chunks() -> AsyncIterator[str]:
            while (item := await queue.get()) is not None:
                yield item

        return StreamingResponse(chunks())

    install(app)
    run(get(app, log=log))
    assert log == [
        "start 200",
        "chunk a",
        "chunk b",
        "producer ended",
        "body",
        "request session closed",
    ]


def test_clean_up_that_fails_is_not_lost() -> None:
    """R4: A bug in a child that the handler's 403 has cancelled is not hidden behind the 403."""
    app = FastAPI()

    async def fails_to_end() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ZeroDivisionError

    @app.get("/")
    async def handler(a: RequestSession, tg: RequestTaskGroup) -> None:
        tg.create_task(fails_to_end())
        await asyncio.sleep(0)
        raise HTTPException(403)

    install(app)
    exchange = run(get(app, log=log))
    assert log == ["request session closed", "start 500", "body Internal Server Error",
                   "raised ExceptionGroup"]  # fmt: skip
    assert isinstance(exchange.error, ExceptionGroup)
    assert [type(each) for each in exchange.error.exceptions] == [HTTPException, ZeroDivisionError]


def test_dependency_that_answers_for_the_handler() -> None:
    """R3: A dependency may turn the handler's error into another one, which is answered."""
    app = FastAPI()

    async def translating() -> AsyncIterator[None]:
        try:
            yield
        except ZeroDivisionError:
            raise HTTPException(409) from None

    @app.get("/")
    async def handler(a: Annotated[None, Depends(translating)], tg: RequestTaskGroup) -> None:
        tg.create_task(child())
        await asyncio.sleep(0)
        raise ZeroDivisionError

    install(app)
    run(get(app, log=log))
    assert log[:2] == ["child ended", "start 409"]


@pytest.mark.parametrize("first", ["group", "session"])
def test_children_of_a_stream_that_fails(first: str) -> None:
    """R3: So they do when the body of a stream raises, which uses the dependencies of the request
    until then."""
    app = FastAPI()

    async def chunks() -> AsyncIterator[str]:
        yield "a"
        raise ZeroDivisionError

    def stream(tg: Any) -> StreamingResponse:
        tg.create_task(child())
        return StreamingResponse(chunks())

    if first == "group":

        @app.get("/")
        async def handler(tg: RequestTaskGroup, a: RequestSession) -> StreamingResponse:
            return stream(tg)
    else:

        @app.get("/")
        async def other(a: RequestSession, tg: RequestTaskGroup) -> StreamingResponse:
            return stream(tg)

    install(app)
    run(get(app, log=log))
    sessions = ["child ended", "request session closed"]
    assert log == ["start 200", "chunk a", *sessions, "raised ZeroDivisionError"]


@pytest.mark.parametrize("scope", ["request", "function"])
def test_value_of_a_dependency(scope: Literal["request", "function"]) -> None:
    """R10: The handler gets what a dependency yields opened after its group was asked for."""
    app = FastAPI()

    async def session() -> AsyncIterator[str]:
        yield "session"

    @app.get("/")
    async def handler(
        tg: RequestTaskGroup, value: Annotated[str, Depends(session, scope=scope)]
    ) -> str:
        return value

    install(app)
    assert run(get(app)).body == b'"session"'


def test_child_that_sends_the_response() -> None:
    """R3: So they do when a child sends the response, which the handler does not wait for."""
    app = FastAPI()

    class ByChild(PlainTextResponse):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            async def respond() -> None:
                await asyncio.sleep(1)
                log.append("child ended")
                await PlainTextResponse("by a child")(scope, receive, send)

            request_task_group(scope).create_task(respond())

    @app.get("/")
    async def handler(tg: RequestTaskGroup, a: RequestSession) -> Response:
        return ByChild()

    install(app)
    run(get(app, log=log))
    assert log == ["child ended", "request session closed", "start 200", "body by a child"]


def test_session_of_a_handler_that_swallows_its_cancellation() -> None:
    """R4, R8: The dependencies of a handler that goes on after its deadline, below a middleware
    which runs it in a task, see that error as itself."""
    app = FastAPI()

    async def session() -> AsyncIterator[None]:
        try:
            yield
        except BaseException as exc:
            log.append(type(exc).__name__)
            raise

    @app.get("/")
    async def handler(
        request: Request, a: Annotated[None, Depends(session, scope="function")]
    ) -> None:
        set_deadline(request, 1)
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)

    @app.middleware("http")
    async def passes(request: Request, call_next: Any) -> Any:
        return await call_next(request)

    assert run(get(TaskGroupMiddleware(app))).status == 504
    assert log == ["DeadlineExceededError"]


@pytest.mark.parametrize("why", ["deadline", "child"])
def test_clean_up_of_a_session_between_handler_and_response(why: str) -> None:
    """R3, R8: When the handler has returned, neither its deadline nor a child that fails cuts the
    clean-up of dependencies that close before the response, which is not sent then."""
    app = FastAPI()

    async def session() -> AsyncIterator[None]:
        yield
        await asyncio.sleep(2)
        log.append("closed")

    async def fail() -> None:
        await asyncio.sleep(1)
        raise HTTPException(504)

    @app.get("/")
    async def handler(
        request: Request, a: Annotated[None, Depends(session, scope="function")]
    ) -> None:
        tg = request_task_group(request)
        if why == "deadline":
            set_deadline(request, 1)
        else:
            tg.create_task(fail())

    install(app)
    run(get(app, log=log))
    assert log == ["closed", "start 504", 'body {"detail":"Gateway Timeout"}']


@pytest.mark.parametrize("asks", ["before", "after"])
def test_stream_after_the_clean_up_of_a_session(asks: str) -> None:
    """R4, R8: What such a clean-up has held up comes after it, also to a stream that is silent, and
    whether the group was asked for before the dependency was opened or after that."""

    async def ask(tg: RequestTaskGroup) -> None: ...

    app = FastAPI(dependencies=[Depends(ask)] if asks == "before" else [])

    async def session() -> AsyncIterator[None]:
        yield
        await asyncio.sleep(2)
        log.append("closed")

    async def silence() -> AsyncIterator[str]:
        await asyncio.Event().wait()
        yield "never"

    @app.get("/")
    async def handler(
        request: Request, a: Annotated[None, Depends(session, scope="function")]
    ) -> StreamingResponse:
        request_task_group(request)
        set_deadline(request, 1, stream=3)
        return StreamingResponse(silence())

    install(app)
    run(get(app, log=log))
    assert log == ["closed", "start 504", 'body {"detail":"Gateway Timeout"}']


@pytest.mark.parametrize("scope", ["request", "function"])
def test_dependency_that_asks_for_the_group_as_it_opens(
    scope: Literal["request", "function"],
) -> None:
    """R3: A dependency that asks for the group by itself, before it yields, closes when the
    children have ended, as others do."""

    async def session(request: Request) -> AsyncIterator[None]:
        request_task_group(request).create_background_task(child())
        try:
            yield
        finally:
            log.append("closed")

    app = FastAPI()

    @app.get("/")
    async def handler(a: Annotated[None, Depends(session, scope=scope)]) -> None:
        await asyncio.sleep(0)
        raise HTTPException(418)

    install(app)
    run(get(app))
    assert log == ["child ended", "closed"]


def test_dependencies_of_a_handler_that_outlives_its_request() -> None:
    """R8: Where somebody below the middleware goes on without waiting for the app, what the handler
    has opened is closed when that ends, as without this package."""
    app, log = FastAPI(), list[str]()

    async def session() -> AsyncIterator[None]:
        yield
        log.append("closed")

    @app.get("/")
    async def handler(tg: RequestTaskGroup, a: Annotated[None, Depends(session)]) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        await asyncio.sleep(60)

    tasks: list[asyncio.Task[None]] = []

    async def gives_up(scope: Scope, receive: Receive, send: Send) -> None:
        tasks.append(asyncio.create_task(app(scope, receive, send)))
        await asyncio.wait(tasks, timeout=1)

    async def main() -> None:
        exchange = Exchange(TaskGroupMiddleware(gives_up))
        await exchange.run()
        assert log == []
        await asyncio.wait(tasks)
        with suppress(RuntimeError):  # it comes too late for a response
            tasks[0].result()
        assert log == ["closed"]

    run(main())


@pytest.mark.parametrize("asks", [True, False])
@pytest.mark.parametrize("fails", [True, False])
@pytest.mark.parametrize("seconds", [0.4, 3600])
def test_dependency_that_closes_while_the_shutdown_cuts(
    *, asks: bool, fails: bool, seconds: float
) -> None:
    """R3, A6: A shutdown whose grace is over gives a dependency that is closing a moment, but no
    more, also where the handler has failed, whose error is answered then."""

    async def session() -> AsyncIterator[None]:
        try:
            yield
        finally:
            await asyncio.sleep(seconds)
            log.append("closed")

    app = FastAPI()

    @app.get("/")
    async def endpoint(request: Request, a: Annotated[None, Depends(session)]) -> str:
        if asks:
            request_task_group(request)
        asyncio.get_running_loop().call_later(0.2, request.scope[REQUEST].cut_off, request)
        if fails:
            raise HTTPException(418)
        return "answer"

    install(app)
    exchange = run(get(app))
    closes = seconds < 1
    assert log == ["closed"] * closes
    assert exchange.status == (200 if not fails else 418 if closes or asks else 503)


@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
def test_dependency_that_closes_after_a_cut_stream_at_a_shutdown(spec_version: str) -> None:
    """R5, A6: So it is with one that closes after the failure of a child has cut its stream."""

    async def session() -> AsyncIterator[None]:
        try:
            yield
        finally:
            await asyncio.sleep(3600)

    async def fails() -> None:
        await asyncio.sleep(1)
        raise ZeroDivisionError

    async def body() -> AsyncIterator[str]:
        yield "piece"
        await asyncio.Event().wait()

    app = FastAPI()

    @app.get("/")
    async def endpoint(request: Request, a: Annotated[None, Depends(session)]) -> StreamingResponse:
        request_task_group(request).create_task(fails())
        asyncio.get_running_loop().call_later(2, request.scope[REQUEST].cut_off, request)
        return StreamingResponse(body())

    async def main() -> float:
        asgi = {"version": "3.0", "spec_version": spec_version}
        assert not (await get(app, asgi=asgi, log=log)).is_complete
        return asyncio.get_running_loop().time()

    install(app)
    assert run(main()) < 60
    assert log[:2] == ["start 200", "chunk piece"]
