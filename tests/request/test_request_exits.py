"""Children that call `sys.exit`, and what runs each child so that it does not end the server."""

from __future__ import annotations

import asyncio
import gc
import sys
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from quattro_core import TaskGroup
from quattro_web import TaskGroupMiddleware, install, request_task_group
from quattro_web._util.task_stacks import where
from tests.request.failing import fail
from tests.support.asgi import Socket, get, run

Start = Callable[[TaskGroup], Awaitable[object] | None]


async def exits() -> None:
    await asyncio.sleep(0)
    sys.exit(3)


async def exits_at_once() -> None:
    sys.exit(3)


def in_foreground(group: TaskGroup) -> None:
    group.create_task(exits())


def as_function(group: TaskGroup) -> None:
    group.create_task(exits)


def in_background(group: TaskGroup) -> Awaitable[object]:
    group.create_background_task(exits())
    return asyncio.sleep(1)


def gathered(group: TaskGroup) -> Awaitable[object]:
    return group.gather(exits_at_once(), asyncio.sleep(1))


async def mapped(group: TaskGroup) -> None:
    async with group.map(lambda _: exits(), [1, 2], limit=1) as results:
        async for _ in results:
            pass


def wrapping(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
    async def wrapper() -> Any:
        return await coro

    return asyncio.Task(wrapper(), loop=loop, **options)


def plain(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
    return asyncio.Task(coro, loop=loop, **options)


FACTORIES: list[Any] = [None, plain, wrapping]
if sys.version_info >= (3, 12):
    FACTORIES.append(asyncio.eager_task_factory)


def app_of(handler: Callable[[Request], Any], **options: Any) -> Starlette:
    app = Starlette(routes=[Route("/", handler)])
    install(app, **options)
    return app


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("options", [{}, {"concurrency_limit": 1}])
@pytest.mark.parametrize("start", [in_foreground, as_function, in_background, gathered, mapped])
def test_exit_in_a_child(
    start: Start, options: Any, factory: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """R4: `sys.exit()` in a child is the request's failure, and the server goes on."""

    async def handler(request: Request) -> Response:
        await (start(request_task_group(request)) or asyncio.sleep(0))
        return PlainTextResponse("never seen")

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(factory)
        exchange = await get(app_of(handler, **options))
        assert exchange.status == 500
        assert str(exchange.error) == "SystemExit(3) ends a request, and not the server"
        assert exchange.error is not None
        assert repr(exchange.error.__cause__) == "SystemExit(3)"

    run(main())


@pytest.mark.parametrize("asks", [True, False])
def test_exit_in_a_handler(asks: bool) -> None:
    """R4: So it is in a handler, whether it has asked for its group or not."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if asks:
            request_task_group(scope)
        await exits()

    exchange = run(get(TaskGroupMiddleware(app)))
    assert str(exchange.error) == "SystemExit(3) ends a request, and not the server"
    assert exchange.error is not None
    assert repr(exchange.error.__cause__) == "SystemExit(3)"


@pytest.mark.parametrize("factory", FACTORIES)
def test_exit_in_the_clean_up_of_a_child(factory: Any) -> None:
    """R4: So it is in the clean-up of a child that is cancelled."""

    async def exits_at_last() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            sys.exit(3)

    async def handler(request: Request) -> Response:
        tg = request_task_group(request)
        tg.create_task(exits_at_last())
        await asyncio.sleep(1)
        tg.cancel()
        return PlainTextResponse("never seen")

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(factory)
        exchange = await get(app_of(handler))
        assert str(exchange.error) == "SystemExit(3) ends a request, and not the server"

    run(main())


def test_exit_in_a_child_that_is_awaited() -> None:
    """R4: Who awaits a child that calls `sys.exit()` sees the request's failure."""

    async def handler(request: Request) -> Response:
        try:
            await request_task_group(request).create_task(exits())
        except RuntimeError as exc:
            return PlainTextResponse(str(exc))
        raise AssertionError

    assert run(get(app_of(handler))).body == b"SystemExit(3) ends a request, and not the server"


def test_exit_in_a_child_of_a_websocket() -> None:
    """R10: `sys.exit()` in a child of a WebSocket closes that one with 1011."""

    async def handler(websocket: WebSocket) -> None:
        await websocket.accept()
        request_task_group(websocket).create_task(exits())
        await websocket.receive_text()

    app = Starlette(routes=[WebSocketRoute("/", handler)])
    install(app)
    socket = run(Socket(app).run())
    assert socket.log == ["accept", "close 1011", "raised RuntimeError"]


def test_ctrl_c_in_a_child() -> None:
    """C5: KeyboardInterrupt in a child leaves the event loop, as everywhere in asyncio."""

    async def handler(request: Request) -> None:
        request_task_group(request).create_task(fail(KeyboardInterrupt()))
        await asyncio.sleep(1)

    with pytest.raises(KeyboardInterrupt):
        run(get(app_of(handler)))


@pytest.mark.parametrize("factory", [None, plain, wrapping])
@pytest.mark.parametrize("method", ["create_task", "create_background_task"])
@pytest.mark.parametrize("is_function", [False, True])
def test_child_that_is_cancelled_before_it_begins(
    method: str, factory: Any, *, is_function: bool
) -> None:
    """C5: A child that the app cancels before it has begun does not begin, is nobody's failure, and
    no coroutine is "never awaited"."""
    begun = []

    async def child() -> None:
        begun.append(1)

    async def handler(request: Request) -> Response:
        create = getattr(request_task_group(request), method)
        for _ in range(3):
            create(child if is_function else child()).cancel()
        return PlainTextResponse("fine")

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(factory)
        exchange = await get(app_of(handler))
        assert (exchange.status, exchange.body, begun) == (200, b"fine", [])

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(main())
        gc.collect()


def test_child_that_asyncio_refuses(caplog: pytest.LogCaptureFixture) -> None:
    """C5: A child that can't be made, such as one with a bad name, is an error where it is created:
    it is closed, and the group goes on."""

    class BadName(str):
        __slots__ = ()

        def __str__(self) -> str:
            raise ZeroDivisionError

    async def handler(request: Request) -> Response:
        group = request_task_group(request)
        with pytest.raises(ZeroDivisionError):
            group.create_task(asyncio.sleep(0), name=BadName())
        await group.create_task(asyncio.sleep(0))
        return PlainTextResponse("fine")

    exchange = run(get(app_of(handler)))
    assert (exchange.status, exchange.error) == (200, None)
    assert "Exception in callback" not in caplog.text


@pytest.mark.parametrize("kind", ["create_task", "create_background_task"])
@pytest.mark.parametrize("factory", [None, plain])
def test_name_and_place_of_a_child(factory: Any, kind: str) -> None:
    """R8: What runs a child is in no log: it is named by its own function, and where it hangs."""

    async def handler(request: Request) -> Response:
        group = request_task_group(request)
        task: asyncio.Task[Any] = getattr(group, kind)(exits())
        coro: Any = task.get_coro()
        seen = [where(task), coro.__qualname__]
        await asyncio.sleep(0)
        return PlainTextResponse(" ".join([*seen, where(task)]))

    async def exits() -> None:
        await forever()

    async def forever() -> None:
        await asyncio.sleep(1)

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(factory)
        text = (await get(app_of(handler))).body.decode()
        name = "test_name_and_place_of_a_child.<locals>."
        assert text.startswith(f"not started {name}exits {name}forever, {__file__}:")

    run(main())


def test_child_of_an_event_loop_that_has_ended(caplog: pytest.LogCaptureFixture) -> None:
    """C5: The coroutine of a child that is destroyed with its event loop is closed, and tells
    nobody of an end: asyncio says that the task was pending, and no more."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request_task_group(scope).create_task(asyncio.sleep(3600))
        await asyncio.sleep(3600)

    async def main() -> None:
        asyncio.get_running_loop().create_task(get(TaskGroupMiddleware(app)))
        for _ in range(5):
            await asyncio.sleep(0)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    gc.collect()  # whatever a coroutine raises when it is closed fails the test
    assert {record.getMessage().partition("\n")[0] for record in caplog.records} == {
        "Task was destroyed but it is pending!"
    }
