"""Apps and servers that are in the middle of an answer to a failure."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from quattro_core import TaskGroup
from quattro_web import TaskGroupMiddleware, install, request_task_group
from quattro_web._request.handlers import end_children_first
from tests.request.failing import Teapot, fail
from tests.request.gated import app_of, ticks
from tests.support.asgi import Exchange, get, run


def test_app_that_answers_for_another_one() -> None:
    """R2, R4: An app that answers for the failed one around it is not done for by that:
    its own children are awaited, though an exception is being handled as it sends its response."""
    log: list[str] = []

    async def handler(request: Request) -> Response:
        request_task_group(request).create_task(ticks(log, "child"))
        return PlainTextResponse("instead")

    fallback = TaskGroupMiddleware(Starlette(routes=[Route("/", handler)]))

    async def answer(_: Request, __: Exception) -> ASGIApp:
        return fallback

    handlers: Any = {404: answer}
    run(get(Starlette(exception_handlers=handlers), log=log))
    assert log == ["child", "start 200", "body instead"]


def test_answer_that_is_cancelled_from_outside() -> None:
    """R4: A server that cancels a request while its failure is answered cancels it."""

    async def answer(request: Request, exc: Exception) -> Response:
        return await asyncio.sleep(3600, PlainTextResponse("never seen"))

    async def endpoint(request: Request) -> Response:
        async def fail() -> None:
            raise ZeroDivisionError

        request_task_group(request).create_task(fail())
        return PlainTextResponse("never seen")

    app = app_of(endpoint)
    app.add_exception_handler(ZeroDivisionError, answer)

    async def main() -> Exchange:
        exchange = Exchange(app)
        serving = asyncio.create_task(exchange.run())
        await asyncio.sleep(1)
        serving.cancel("the server")
        with pytest.raises(asyncio.CancelledError, match="the server"):
            await serving
        return exchange

    assert run(main()).sent == []


def test_app_that_answers_for_a_handler() -> None:
    """R3, R4: A handler that has raised does not wait for its children, also where an app with a
    middleware of its own answers for it."""
    log: list[str] = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            log.append("child")

    async def handler(request: Request) -> Response:
        request_task_group(request).create_task(forever())
        await asyncio.sleep(0)
        raise HTTPException(404)

    async def answer(_: Request, __: Exception) -> ASGIApp:
        return TaskGroupMiddleware(PlainTextResponse("instead", 404))

    handlers: Any = {404: answer}
    app = Starlette(routes=[Route("/", handler)], exception_handlers=handlers)
    install(app)
    run(get(app, log=log))
    assert log == ["child", "start 404", "body instead"]


def test_app_that_is_first_asked_in_two_threads() -> None:
    """R4: An exception handler of the app's is called once, also if the first requests of the app
    come in two event loops at once, each of which gets ready for its children."""
    calls: list[str] = []

    async def endpoint(request: Request) -> Response:
        tables = request.scope["starlette.exception_handlers"]
        request_task_group(request)
        end_children_first(tables)  # as the other thread does, which has looked before
        raise LookupError

    async def handler(request: Request, exc: Exception) -> Response:
        calls.append(repr(exc))
        return Response(status_code=418)

    app = Starlette(routes=[Route("/", endpoint)], exception_handlers={LookupError: handler})
    install(app)
    assert run(get(app)).status == 418
    assert calls == ["LookupError()"]
    middleware: Any = app.middleware_stack
    while not hasattr(middleware, "_exception_handlers"):
        middleware = middleware.app
    assert middleware._exception_handlers[LookupError].quattro_web_handler is handler


@pytest.mark.parametrize("asks", [True, False])
def test_answer_that_takes_its_time(asks: bool) -> None:
    """R4: Of a response that has failed after its start, which was held back, nothing leaves while
    an exception handler reads the body and takes its time for the answer."""

    class Endpoint:
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if asks:
                request_task_group(Request(scope, receive, send))
            await send({"type": "http.response.start", "status": 200, "headers": []})
            async with TaskGroup() as tg:
                tg.create_task(fail(Teapot()))

    async def slow(request: Request, exc: Exception) -> Response:
        await request.body()
        return await asyncio.sleep(1, PlainTextResponse("instead", 418))

    app = Starlette(routes=[Route("/", Endpoint())], exception_handlers={Teapot: slow})
    install(app)
    log: list[str] = []
    run(get(app, log=log))
    assert log == ["start 418", "body instead"]


@pytest.mark.parametrize("how", ["not installed", "installed", "asks for its group"])
@pytest.mark.parametrize("raises", [Teapot, LookupError])
def test_handler_that_raises_again(how: str, raises: type[Exception]) -> None:
    """R10: An exception handler that raises the error again, or another one that it would answer
    as well, is called as often as without this package: once by each of Starlette's two layers."""
    calls: list[Exception] = []

    async def handler(request: Request, exc: Exception) -> Response:
        calls.append(exc)
        raise raises

    async def endpoint(request: Request) -> Response:
        if how == "asks for its group":
            request_task_group(request)
        raise Teapot

    handlers = {Teapot: handler, LookupError: handler}
    app = Starlette(routes=[Route("/", endpoint)], exception_handlers=handlers)
    if how != "not installed":
        install(app)
    exchange = run(get(app))
    assert (exchange.status, type(exchange.error)) == (500, raises)
    assert len(calls) == 2


@pytest.mark.parametrize("is_installed", [True, False])
def test_handler_that_raises_a_group_again(is_installed: bool) -> None:
    """R10: An exception handler for groups that raises them again is called as often as without
    this package: once by each of Starlette's two layers."""
    calls: list[Exception] = []

    async def handler(request: Request, exc: Exception) -> Response:
        calls.append(exc)
        raise exc

    async def endpoint(request: Request) -> Response:
        async with TaskGroup() as tg:
            tg.create_task(fail(Teapot()))
        raise AssertionError

    app = Starlette(routes=[Route("/", endpoint)], exception_handlers={ExceptionGroup: handler})
    if is_installed:
        install(app)
    assert run(get(app)).status == 500
    assert len(calls) == 2


def test_replaced_response_of_an_app_that_was_cancelled_before() -> None:
    """R4: Of a response that the app has replaced when its child had failed nothing leaves, also
    not after the answer, where it has swallowed somebody's cancellation before."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        request_task_group(scope).create_task(fail(Teapot()))
        headers = [(b"content-length", b"5")]
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"never", "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except Teapot:
            await PlainTextResponse("instead", 418)(scope, receive, send)

    log: list[str] = []
    run(get(TaskGroupMiddleware(app), log=log))
    assert log == ["start 418", "body instead"]


def app_with(handler: Any, *, group: bool) -> Starlette:
    """Return an app whose endpoint has failed, maybe in a group of its own, without the request's.

    Args:
        handler: What answers.
        group: Whether it is in one.
    """

    async def endpoint(request: Request) -> Response:
        if not group:
            raise Teapot
        async with TaskGroup() as tg:
            tg.create_task(fail(Teapot()))
        raise AssertionError

    app = app_of(endpoint)
    app.add_exception_handler(Teapot, handler)
    return app


@pytest.mark.parametrize("group", [True, False])
def test_children_of_an_exception_handler(group: bool) -> None:
    """R2: An exception handler that is the first to start children is waited for as a handler is,
    also if what it answers was in a group of the handler's."""
    log: list[str] = []

    async def handler(request: Request, exc: Exception) -> Response:
        request_task_group(request).create_task(ticks(log, "child"))
        return PlainTextResponse("instead", 418)

    run(get(app_with(handler, group=group), log=log))
    assert log == ["child", "start 418", "body instead"]


@pytest.mark.parametrize("group", [True, False])
@pytest.mark.parametrize("who", ["child", "handler"])
def test_exception_handler_with_children_that_fails(who: str, group: bool) -> None:
    """R4: What such an exception handler or its child fails with is answered, and nothing else."""
    log: list[str] = []

    async def handler(request: Request, exc: Exception) -> Response:
        tg = request_task_group(request)
        if who == "handler":
            tg.create_task(asyncio.Event().wait())
            raise HTTPException(404)
        tg.create_task(fail(HTTPException(404)))
        return PlainTextResponse("never seen", 418)

    run(get(app_with(handler, group=group), log=log))
    assert log == ["start 404", "body Not Found"]
