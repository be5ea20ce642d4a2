"""The client leaves, and its request is cancelled, where that was asked for."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from fastapi import Depends, FastAPI
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from quattro_web import (
    CancelReason,
    TaskGroupMiddleware,
    cancel_on_disconnect,
    cancel_reason,
    install,
    request_task_group,
    uninterrupted,
)
from tests.request.watched import app_of, hang
from tests.support.asgi import Exchange, run

REASON = CancelReason.DISCONNECT.value

# What is sent to a client that has left.
NOT_READ = ["start 499", "body"]


def test_handler_and_children_are_cancelled_with_a_reason() -> None:
    """R7: The handler and its children are cancelled at the notice, with a reason of its own."""
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        request_task_group(request).create_task(hang(log, "child"))
        try:
            await hang(log, "handler")
        finally:
            log.append(repr(cancel_reason(request)))
        raise AssertionError

    async def main() -> Exchange:
        return await Exchange(app_of(endpoint), log=log).disconnect_after(1).run()

    exchange = run(main())
    assert log[-2:] == NOT_READ
    assert sorted(log[:-2]) == [
        f"<CancelReason.DISCONNECT: {REASON!r}>",
        f"child cancelled after 1.00 s: {REASON}",
        f"handler cancelled after 1.00 s: {REASON}",
    ]
    assert exchange.error is None, "nothing for the server's log"


def test_client_that_left_before_it_was_watched() -> None:
    """R7: A client that leaves at once is noticed within 100 ms."""
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        await hang(log, "handler")
        raise AssertionError

    async def main() -> None:
        exchange = Exchange(app_of(endpoint), log=log)
        exchange.disconnect()
        await exchange.run()

    run(main())
    assert log == [f"handler cancelled after 0.05 s: {REASON}", *NOT_READ]


def test_app_that_answers_nothing_to_a_client_that_has_left() -> None:
    """R7: An app that ends without a response, since it has read that its client has left, leaves
    no children waiting: they are cancelled."""
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request_task_group(scope).create_task(hang(log, "child"))
        while (await receive())["type"] != "http.disconnect":
            pass

    async def main() -> None:
        await Exchange(TaskGroupMiddleware(app)).disconnect_after(1).run()

    run(main())
    [entry] = log
    assert entry.startswith("child cancelled after 1.00 s")


def test_nothing_is_cancelled_where_it_was_not_asked_for() -> None:
    """R7: By default, a handler goes on when its client has left."""
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        await asyncio.sleep(2)
        log.append("done")
        return Response()

    async def main() -> None:
        app = app_of(endpoint, cancel_on_disconnect=False)
        await Exchange(app, log=log).disconnect_after(1).run()

    run(main())
    assert log[0] == "done"


@pytest.mark.parametrize("on", [True, False])
def test_one_route_asks_for_itself(on: bool) -> None:
    """R7: One route may ask for it, or refuse it, whatever holds for the app."""
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        cancel_on_disconnect(request, on=on)
        await asyncio.sleep(2)
        log.append("done")
        return Response()

    async def main() -> None:
        app = app_of(endpoint, cancel_on_disconnect=not on)
        await Exchange(app, log=log).disconnect_after(1).run()

    run(main())
    assert ("done" in log) is not on


def test_complete_response_is_never_cancelled() -> None:
    """R7: What runs after the response is not cancelled (trap: BackgroundTasks cancelled)."""
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        async def background() -> None:
            await asyncio.sleep(5)
            log.append("background task done")

        await asyncio.sleep(1)
        return PlainTextResponse("ok", background=BackgroundTask(background))

    async def main() -> None:
        await Exchange(app_of(endpoint), log=log).disconnect_after(2).run()

    run(main())
    assert log == ["start 200", "body ok", "background task done"]


def test_stream_is_cancelled_with_its_producers() -> None:
    """R7, R2: A stream whose client leaves ends with its producers."""
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        async def chunks() -> AsyncIterator[str]:
            while True:
                yield "tick"
                await asyncio.sleep(10)

        request_task_group(request).create_background_task(hang(log, "producer"))
        return StreamingResponse(chunks())

    async def main() -> Exchange:
        return await Exchange(app_of(endpoint), log=log).disconnect_after(15).run()

    exchange = run(main())
    assert log[:3] == ["start 200", "chunk tick", "chunk tick"]
    assert log[3].startswith("producer cancelled after 15.00 s")
    assert exchange.error is None
    assert not exchange.is_complete


def test_uninterrupted_section_is_finished_first() -> None:
    """R7: A section that must not be cut runs to its end; then the request is cancelled."""
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        with uninterrupted(request):
            await asyncio.sleep(2)
            log.append("charged and stored")
        await hang(log, "handler")
        raise AssertionError

    async def main() -> None:
        await Exchange(app_of(endpoint), log=log).disconnect_after(1).run()

    run(main())
    assert log == ["charged and stored", f"handler cancelled after 2.00 s: {REASON}", *NOT_READ]


def test_handler_that_reads_is_told_by_its_own_read() -> None:
    """R7: A handler that reads the body when its client leaves is cancelled once, and no more."""
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        try:
            await request.body()
        except (ClientDisconnect, asyncio.CancelledError) as exc:
            log.append(type(exc).__name__)
            raise
        raise AssertionError

    async def main() -> Exchange:
        exchange = Exchange(app_of(endpoint), method="POST", body=[b"half"], unfinished=True)
        return await exchange.disconnect_after(1).run()

    exchange = run(main())
    assert len(log) == 1
    assert exchange.error is None


@pytest.mark.parametrize("has_bug", [True, False])
def test_news_in_a_group(has_bug: bool) -> None:
    """R7, R4: What a task in a helper's group was told as it read is no failure either, unless it
    comes with one."""

    async def reads(request: Request) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await request.body()

    async def has_one() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(1)  # the second one that fails
            raise ZeroDivisionError

    async def endpoint(request: Request) -> Response:
        async with asyncio.TaskGroup() as helpers:
            helpers.create_task(reads(request))
            if has_bug:
                helpers.create_task(has_one())
        raise AssertionError

    async def main() -> Exchange:
        exchange = Exchange(app_of(endpoint), method="POST", body=[b"half"], unfinished=True)
        return await exchange.disconnect_after(1).run()

    exchange = run(main())
    if has_bug:
        assert isinstance(exchange.error, ExceptionGroup)
        assert [type(e) for e in exchange.error.exceptions] == [ClientDisconnect, ZeroDivisionError]
    else:
        assert (exchange.log, exchange.error) == (NOT_READ, None)


def test_clean_up_that_fails_is_not_lost(caplog: pytest.LogCaptureFixture) -> None:
    """R7, C5: A bug in the clean-up of a cancelled handler leaves the app, for the server's log."""

    async def endpoint(request: Request) -> Response:
        try:
            await asyncio.Event().wait()
        finally:
            raise ZeroDivisionError

    async def main() -> Exchange:
        return await Exchange(app_of(endpoint)).disconnect_after(1).run()

    with caplog.at_level(logging.INFO, "quattro_web"):
        exchange = run(main())
    assert isinstance(exchange.error, ZeroDivisionError)
    assert [record.getMessage() for record in caplog.records] == [
        "GET /: the client has left, its handler is cancelled"
    ]


@pytest.mark.parametrize("fails", [True, False])
def test_leaving_is_no_bug_of_a_mounted_app(fails: bool) -> None:
    """R7: That the client has left is told to the dependencies of a handler, and not to the mounted
    app around it, which would take it for a bug. What they fail with then is one."""
    log: list[str] = []
    sub = FastAPI()

    async def session() -> AsyncIterator[None]:
        try:
            yield
        except Exception as exc:
            log.append(type(exc).__name__)
            if fails:
                raise ZeroDivisionError from exc
            raise

    @sub.get("/", dependencies=[Depends(session)])
    async def handler(request: Request) -> None:
        cancel_on_disconnect(request)
        request_task_group(request)
        await asyncio.Event().wait()

    @sub.exception_handler(Exception)
    async def bug(request: Request, exc: Exception) -> Response:
        log.append("bug")
        return Response(status_code=500)

    app = FastAPI()
    app.mount("/sub", sub)
    install(app)

    async def main() -> Exchange:
        return await Exchange(app, "/sub/").disconnect_after(1).run()

    exchange = run(main())
    assert isinstance(exchange.error, ZeroDivisionError) == fails
    assert log == (["ClientDisconnect", "bug"] if fails else ["ClientDisconnect"])
