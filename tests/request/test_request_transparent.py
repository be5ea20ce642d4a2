"""An app that does not ask for its group does not notice the middleware."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from typing import Any

import pytest
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quattro_web import NoTaskGroupError, TaskGroupMiddleware, install, request_task_group
from tests.support.asgi import get, run


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def test_under_trio() -> None:
    """R10: Under trio, an app that asks for no group works; one that asks is told why not."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError

    async def asking(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(RuntimeError, match="asyncio"):
            request_task_group(scope)
        await hello(scope, receive, send)

    for app in (hello, asking):
        trio.run(TaskGroupMiddleware(app), {"type": "http", "method": "GET"}, receive, send)
    assert [message["type"] for message in sent] == [
        "http.response.start",
        "http.response.body",
    ] * 2


class Begins:
    """An endpoint that fails when it has begun its response."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ZeroDivisionError


@pytest.mark.parametrize("path", ["/fails", "/begins"])
def test_failure_under_trio_after_children_under_asyncio(path: str) -> None:
    """R10: An app whose requests have had children under asyncio fails under trio as without us."""

    async def asks(request: Request) -> Response:
        request_task_group(request).create_task(asyncio.sleep(1))
        return Response()

    async def fails(request: Request) -> Response:
        raise ZeroDivisionError

    app = Starlette(routes=[Route("/", asks), Route("/fails", fails), Route("/begins", Begins())])
    install(app)
    assert run(get(app)).status == 200
    client = TestClient(app, backend="trio")
    with pytest.raises(ZeroDivisionError) as caught:
        client.get(path)
    assert caught.value.__context__ is None


def test_lifespan_under_trio() -> None:
    """R10: Under trio, an app without pumps has its lifespan; one with pumps is told why not."""

    async def pump() -> None: ...

    with TestClient(TaskGroupMiddleware(Starlette()), backend="trio") as client:
        assert client.get("/").status_code == 404
    with (
        pytest.raises(RuntimeError, match="pumps need asyncio"),
        TestClient(TaskGroupMiddleware(Starlette(), pumps=[pump]), backend="trio"),
    ):
        pass


def test_send_of_the_server_may_return_any_awaitable() -> None:
    """R9, R10: What the server's send() returns need not be a coroutine (granian's is not), and no
    task is made for it."""
    made: list[asyncio.Future[None]] = []
    sent: list[Message] = []

    def send(message: Message) -> Awaitable[None]:
        sent.append(message)
        made.append(asyncio.get_running_loop().create_future())
        made[-1].set_result(None)
        return made[-1]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start)
        await send(piece)
        await send(end)

    async def receive() -> Message:
        raise AssertionError

    async def main() -> None:
        for end["more_body"] in (False, True):
            await TaskGroupMiddleware(app)({"type": "http", "method": "GET"}, receive, send)
        assert len(asyncio.all_tasks()) == 1

    start: Message = {"type": "http.response.start", "status": 200, "headers": []}
    piece: Message = {"type": "http.response.body", "body": b"a", "more_body": True}
    end: Message = {"type": "http.response.body", "body": b"b"}
    run(main())
    assert sent == [start, piece, end] * 2


def test_base_exception_leaves_as_itself() -> None:
    """R10: A BaseException of the app leaves as itself, with and without a group."""

    class Base(BaseException):
        pass

    error = Base()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/asks":
            request_task_group(scope)
        raise error

    async def main(path: str) -> None:
        with pytest.raises(Base) as caught:
            await get(TaskGroupMiddleware(app), path)
        assert caught.value is error

    run(main("/asks"))
    run(main("/"))


def test_exception_leaves_with_its_context() -> None:
    """R10: An exception of the app leaves as it is: its cause and context are not ours."""
    cause = KeyError("cause")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request_task_group(scope)
        raise ValueError from cause

    exchange = run(get(TaskGroupMiddleware(app)))
    assert isinstance(exchange.error, ValueError)
    assert exchange.error.__cause__ is cause
    assert exchange.error.__context__ is None


def test_app_called_from_an_except_block() -> None:
    """R10: What is being handled around the app is not taken for an error of its handler."""
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def child() -> None:
            await asyncio.sleep(0)
            log.append("child")

        request_task_group(scope).create_task(child())
        await hello(scope, receive, send)

    async def retrying(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            raise KeyError
        except KeyError:
            assert sys.exception() is not None
            await TaskGroupMiddleware(app)(scope, receive, send)

    run(get(retrying, log=log))
    assert log == ["child", "start 200", "body hello"]


def test_other_scope_types_pass() -> None:
    """R10: What is neither HTTP nor a WebSocket passes untouched."""
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        raise AssertionError

    run(TaskGroupMiddleware(app)({"type": "custom"}, receive, send))
    assert seen == ["custom"]


def test_stream_without_children_makes_no_task_to_wait_for_them() -> None:
    """R9: A stream that Starlette sends in a task makes as many tasks as without us if there are no
    children when it ends."""

    async def endpoint(request: Request) -> Response:
        with suppress(NoTaskGroupError):
            request_task_group(request)
        return StreamingResponse(pieces())

    async def pieces() -> AsyncIterator[str]:
        yield "piece"

    async def made(app: ASGIApp) -> list[str]:
        names: list[str] = []

        def factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> Any:
            names.append(coro.__qualname__)
            return asyncio.Task(coro, loop=loop, **options)

        asyncio.get_running_loop().set_task_factory(factory)
        assert (await get(app)).is_complete
        return names.copy()

    app = Starlette(routes=[Route("/", endpoint)])
    assert run(made(TaskGroupMiddleware(app))) == run(made(app))
