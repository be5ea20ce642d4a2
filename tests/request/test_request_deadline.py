"""A request that takes too long is cancelled and answered with a 504."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send

from quattro_web import (
    CancelReason,
    DeadlineExceededError,
    TaskGroupMiddleware,
    cancel_reason,
    install,
    request_task_group,
    set_deadline,
)
from quattro_web.fastapi import RequestTaskGroup
from tests.request.timed import app_of, slow, timed
from tests.support.asgi import Exchange, get, run


def test_deadline_of_the_app() -> None:
    """R8: The request is cancelled at the deadline of the app, and the client gets a 504."""
    exchange, seconds = run(timed(app_of(slow, deadline=5)))
    assert (exchange.status, exchange.body, seconds) == (504, b"Gateway Timeout", 5)
    assert exchange.error is None


def test_deadline_of_one_route() -> None:
    """R8: One route may have a deadline of its own, shorter, longer or none."""

    async def endpoint(request: Request) -> Response:
        seconds = request.query_params["seconds"]
        set_deadline(request, None if seconds == "none" else float(seconds))
        return await slow(request)

    app = app_of(endpoint, deadline=5)
    for own, seen in (("1", (504, 1)), ("10", (504, 10)), ("none", (200, 60))):
        exchange, seconds = run(timed(app, path=f"/?seconds={own}"))
        assert (exchange.status, seconds) == seen


def test_client_that_leaves_after_the_deadline() -> None:
    """R7, R8: A request is cancelled once: a client that leaves while the handler cleans up after
    its deadline changes neither the reason nor the answer."""
    log: list[object] = []

    async def endpoint(request: Request) -> Response:
        try:
            return await slow(request)
        finally:
            await asyncio.sleep(10)
            log.append(cancel_reason(request))

    async def main() -> Exchange:
        app = app_of(endpoint, deadline=5, cancel_on_disconnect=True)
        return await Exchange(app).disconnect_after(7).run()

    exchange = run(main())
    assert (exchange.status, log) == (504, [CancelReason.DEADLINE])


def test_deadline_after_a_failure() -> None:
    """R4, R8: A child that fails before the deadline is answered with its error alone, though
    another one still cleans up when the deadline comes."""

    async def fails() -> None:
        raise ZeroDivisionError

    async def cleans_up() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(10)

    async def endpoint(request: Request) -> Response:
        request_task_group(request).create_task(cleans_up())
        await asyncio.sleep(0)
        request_task_group(request).create_task(fails())
        return await slow(request)

    exchange, seconds = run(timed(app_of(endpoint, deadline=5)))
    assert (exchange.status, repr(exchange.error), seconds) == (500, "ZeroDivisionError()", 10)


def test_deadline_of_a_group_that_was_cancelled() -> None:
    """R3, R8: The clean-up of the dependencies of a handler that has cancelled its own group is not
    cut by the deadline, and the response is that of the failure."""
    log: list[str] = []
    app = FastAPI()
    install(app, deadline=5)

    async def session() -> AsyncIterator[None]:
        try:
            yield
        finally:
            await asyncio.sleep(10)
            log.append("session closed")

    @app.get("/", dependencies=[Depends(session)])
    async def handler(tg: RequestTaskGroup) -> None:
        tg.cancel()
        await asyncio.sleep(60)

    exchange, seconds = run(timed(app))
    assert log == ["session closed"]
    assert (seconds, str(exchange.error)) == (
        10,
        "the request's task group was cancelled before the response was complete",
    )


def test_children_are_cancelled_too() -> None:
    """R8: Children are cancelled with the handler, with a reason of its own, and are awaited."""
    log: list[str] = []

    async def child() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError as exc:
            log.append(f"child: {exc}")
            raise

    async def endpoint(request: Request) -> Response:
        request_task_group(request).create_task(child())
        try:
            await asyncio.sleep(60)
        finally:
            log.append(f"handler: {cancel_reason(request)}")
        raise AssertionError

    run(get(app_of(endpoint, deadline=5), log=log))
    reason = CancelReason.DEADLINE.value
    assert sorted(log[:2]) == [f"child: {reason}", f"handler: {reason}"]
    assert log[2:] == ["start 504", "body Gateway Timeout"]


def test_children_count_after_the_handler_has_returned() -> None:
    """R8: The deadline holds for the children that the response waits for, too."""

    async def endpoint(request: Request) -> Response:
        request_task_group(request).create_task(asyncio.sleep(60))
        return PlainTextResponse("never seen")

    exchange, seconds = run(timed(app_of(endpoint, deadline=5)))
    assert (exchange.status, seconds) == (504, 5)


@pytest.mark.parametrize("make", [Starlette, FastAPI])
@pytest.mark.parametrize("returns", [True, False])
def test_deadline_comes_before_what_it_has_caused(
    make: Any, returns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """R8, R4: What a child makes of its cancellation at the deadline, such as a 404, does not
    replace the 504, and is logged."""
    not_found = HTTPException(404)

    async def child() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise not_found

    async def endpoint(request: Request) -> Response:
        request_task_group(request).create_task(child())
        return PlainTextResponse("never seen") if returns else await slow(request)

    app = make()
    (app.add_api_route if make is FastAPI else app.add_route)("/", endpoint)
    install(app, deadline=5)
    with caplog.at_level(logging.ERROR, "quattro_web"):
        exchange, seconds = run(timed(app))
    assert (exchange.status, exchange.error, seconds) == (504, None, 5)
    assert [record.exc_info[1] for record in caplog.records if record.exc_info] == [not_found]


@pytest.mark.parametrize("key", [504, DeadlineExceededError, HTTPException])
def test_app_answers_with_its_own_handler(key: Any) -> None:
    """R8: The app's handlers answer: by status, by class, or by HTTPException."""

    async def handler(request: Request, exc: Exception) -> Response:
        return PlainTextResponse(f"own {type(exc).__name__}", 599)

    exchange = run(get(app_of(slow, deadline=5, handlers={key: handler})))
    assert (exchange.status, exchange.body) == (599, b"own DeadlineExceededError")


def test_any_asgi_app_is_answered() -> None:
    """R8: An ASGI app without exception handlers gets its 504 as well."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(60)

    exchange = run(get(TaskGroupMiddleware(app, deadline=5)))
    assert (exchange.status, exchange.error) == (504, None)


def test_reason_in_an_app_that_is_mounted() -> None:
    """R8: A mounted app with a middleware of its own is told why its request is cancelled, also if
    the app around it has cancelled it; where there is no middleware, there is no reason."""
    log: list[object] = []

    async def endpoint(request: Request) -> Response:
        log.append(cancel_reason({"type": "http"}))
        try:
            return await slow(request)
        finally:
            log.append(cancel_reason(request))

    app = Starlette(routes=[Mount("/", app_of(endpoint))])
    install(app, deadline=5)
    assert run(get(app)).status == 504
    assert log == [None, CancelReason.DEADLINE]


def test_log_names_what_was_still_running(caplog: pytest.LogCaptureFixture) -> None:
    """R8: The log names the request, how long it took, and each task with the line it hangs at."""

    async def query() -> None:
        await asyncio.sleep(60)

    async def endpoint(request: Request) -> Response:
        request_task_group(request).create_task(query(), name="the query")
        await asyncio.sleep(60)
        raise AssertionError

    async def main() -> None:
        await asyncio.sleep(100)  # the time is that of the request, and not that of the loop
        await get(app_of(endpoint, deadline=5))

    with caplog.at_level(logging.WARNING, "quattro_web"):
        run(main())
    [message] = [record.getMessage() for record in caplog.records]
    assert message.startswith("GET / has passed its deadline after 5.000 s; still running: handler")
    assert "endpoint, " in message
    assert f"the query ({query.__qualname__}, {__file__}:" in message


def test_deadline_while_the_children_of_a_failed_handler_end(
    errors: list[logging.LogRecord],
) -> None:
    """R3, R8: A deadline that passes while a handler has raised, and its children clean up, changes
    nothing of what is answered."""

    async def endpoint(request: Request) -> Response:
        async def child() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(2)

        request_task_group(request).create_task(child())
        await asyncio.sleep(0)
        raise HTTPException(403)

    exchange = run(get(app_of(endpoint, deadline=1)))
    assert exchange.status == 403
    assert not [record for record in errors if record.exc_info]


def test_handler_that_has_cancelled_its_group_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """R8: The deadline of a handler that has caught a cancellation does not cut what it does then:
    it is in the log, and answered with its 504 when the handler has ended."""

    async def endpoint(request: Request) -> Response:
        request_task_group(request).cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(60)
        await asyncio.sleep(60)
        return PlainTextResponse("nobody gets this")

    exchange, seconds = run(timed(app_of(endpoint, deadline=5)))
    assert (exchange.status, exchange.body, seconds) == (504, b"Gateway Timeout", 60)
    assert caplog.text.count("has passed its deadline after 5.000 s") == 1
