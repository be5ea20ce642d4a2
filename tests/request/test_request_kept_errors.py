"""Errors that a module keeps and raises again and again, and those that take no attributes."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from quattro_core import TaskGroup
from quattro_web import app_task_group, install, request_task_group
from quattro_web.fastapi import RequestTaskGroup
from tests.request.failing import answer, fail
from tests.support.apps import settle
from tests.support.asgi import Socket, get, run
from tests.support.lifespan import Life

NOT_FOUND = HTTPException(404)
CONFLICT = HTTPException(409)

Way = Callable[[TaskGroup], Awaitable[None]]


async def returns(tg: TaskGroup) -> None:
    tg.create_task(fail(NOT_FOUND))


async def waits(tg: TaskGroup) -> None:
    tg.create_task(fail(NOT_FOUND))
    await asyncio.Event().wait()


async def awaits(tg: TaskGroup) -> None:
    await tg.create_task(fail(NOT_FOUND))


async def gathers(tg: TaskGroup) -> None:
    await tg.gather(fail(NOT_FOUND), fail(CONFLICT))


async def several(tg: TaskGroup) -> None:
    tg.create_task(fail(NOT_FOUND))
    tg.create_task(fail(CONFLICT))


async def several_in_a_group(tg: TaskGroup) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(fail(NOT_FOUND))
        group.create_task(fail(CONFLICT))


async def raises(tg: TaskGroup) -> None:
    tg.create_task(fail(CONFLICT))
    await asyncio.sleep(0)
    raise NOT_FOUND


WAYS: list[Way] = [returns, waits, awaits, gathers, several, several_in_a_group, raises]


@pytest.fixture(autouse=True)
def fresh() -> None:
    for error in (NOT_FOUND, CONFLICT):
        error.__traceback__ = None


def starlette(way: Way, **options: Any) -> Starlette:
    async def endpoint(request: Request) -> Response:
        await way(request_task_group(request))
        return Response()

    app = Starlette(routes=[Route("/", endpoint)], **options)
    install(app)
    return app


def fastapi(way: Way, **options: Any) -> FastAPI:
    app = FastAPI(**options)

    @app.get("/")
    async def handler(tg: RequestTaskGroup) -> None:
        await way(tg)

    install(app)
    return app


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("make", [starlette, fastapi])
def test_error_that_was_answered(make: Callable[[Way], Any], way: Way) -> None:
    """R4: An error that was answered, or logged beside that, keeps nothing of its request, as with
    Starlette: a module may raise the same one for each."""
    assert run(get(make(way))).status in (404, 409)
    assert NOT_FOUND.__traceback__ is None
    assert CONFLICT.__traceback__ is None


def test_group_that_was_answered() -> None:
    """R4: So it is with the errors in a group that an exception handler of the app's gets."""
    app = starlette(several, exception_handlers={ExceptionGroup: answer("group")})
    assert run(get(app)).status == 499
    assert NOT_FOUND.__traceback__ is None
    assert CONFLICT.__traceback__ is None


def test_error_that_has_closed_a_websocket() -> None:
    """R6: So it is with an error for which an exception handler has closed a WebSocket."""
    error = LookupError()

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        request_task_group(websocket).create_task(fail(error))

    async def handler(websocket: WebSocket, exc: Exception) -> None:
        await websocket.close(4000)

    app = Starlette(
        routes=[WebSocketRoute("/", endpoint)],
        exception_handlers={LookupError: handler},
    )
    install(app)
    socket = Socket(app)
    run(socket.run())
    assert socket.log == ["accept", "close 4000"]
    assert error.__traceback__ is None


def test_error_of_handed_over_work(errors: list[logging.LogRecord]) -> None:
    """A5: So it is with the error of handed-over work, when it was logged with its traceback."""

    async def endpoint(request: Request) -> Response:
        app_task_group(request).create_task(fail(NOT_FOUND))
        return Response()

    async def main() -> None:
        app = Starlette(routes=[Route("/", endpoint)])
        install(app)
        async with Life(app) as life:
            await life.get()
            await settle()

    run(main())
    [record] = errors
    assert record.exc_info is not None
    assert record.exc_info[2] is not None
    assert NOT_FOUND.__traceback__ is None


@dataclass(frozen=True)
class FrozenError(Exception):
    """One that takes no attribute, and is false."""

    text: str

    def __bool__(self) -> bool:
        return False


async def returns_broken(tg: TaskGroup) -> None:
    tg.create_task(fail(FrozenError("broken")))


async def waits_for_broken(tg: TaskGroup) -> None:
    tg.create_task(fail(FrozenError("broken")))
    await asyncio.Event().wait()


async def groups_broken(tg: TaskGroup) -> None:
    async with TaskGroup() as inner:
        inner.create_task(fail(FrozenError("broken")))


# In FastAPI, while the handler runs, contextlib sets what such an error refuses.
@pytest.mark.parametrize("make", [starlette, fastapi])
@pytest.mark.parametrize("way", [returns_broken, waits_for_broken, groups_broken])
def test_error_that_takes_no_attributes(make: Callable[..., Any], way: Way) -> None:
    """R4: A child's error that refuses what is set on it, as a frozen dataclass does, is answered
    as itself."""
    app = make(way, exception_handlers={FrozenError: answer("frozen")})
    assert run(get(app)).body == b"frozen: FrozenError(text='broken')"


class UnwillingError(Exception):
    """One that has made something else of what an exception can do."""

    def __bool__(self) -> bool:
        raise AssertionError

    def with_traceback(self, tb: object) -> NoReturn:
        raise AssertionError


async def returns_unwilling(tg: TaskGroup) -> None:
    tg.create_task(fail(UnwillingError()))


async def raises_unwilling(tg: TaskGroup) -> None:
    tg.create_task(asyncio.Event().wait())
    raise UnwillingError


@pytest.mark.parametrize("make", [starlette, fastapi])
@pytest.mark.parametrize("way", [returns_unwilling, raises_unwilling])
def test_error_whose_class_has_odd_methods(make: Callable[..., Any], way: Way) -> None:
    """R4: An error whose class replaces what exceptions can do is answered as itself."""
    app = make(way, exception_handlers={UnwillingError: answer("unwilling")})
    assert run(get(app)).body == b"unwilling: UnwillingError()"
