"""Work that is handed over and fails: it is told, and it stops nothing."""

import asyncio
import inspect
import logging
from functools import partial
from typing import Any

import pytest

from quattro_web.fastapi import AppTaskGroup
from tests.app.handing import fail, serve


class CustomError(BaseException):
    """Not an Exception, as some libraries' errors are not."""


@pytest.mark.parametrize("function", [fail, lambda: fail(), partial(fail)])
def test_failure_is_logged(function: Any, errors: list[logging.LogRecord]) -> None:
    """A5: A failure of work handed over is logged with traceback, its name and its request."""
    serve(lambda group: group.create_task(function, name="sending mail"))
    [record] = errors
    assert record.levelname == "ERROR"
    assert record.getMessage() == "sending mail, handed over by GET /items/5, failed"
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "the work failed"


@pytest.mark.parametrize("make", [lambda: fail, lambda: fail(), lambda: partial(fail)])
def test_name_is_that_of_the_function(make: Any, errors: list[logging.LogRecord]) -> None:
    """A5: Work handed over without a name has that of its function, in the log too."""
    serve(lambda group: group.create_task(make()))
    assert errors[0].getMessage().startswith("fail, handed over by")


@pytest.mark.parametrize("error", [ZeroDivisionError, CustomError, SystemExit])
def test_failure_stops_nothing(error: type[BaseException], errors: list[logging.LogRecord]) -> None:
    """A5: A failure of work handed over ends neither pumps nor app, and its result is None."""
    log: list[str] = []
    tasks: list[asyncio.Task[Any]] = []

    async def work() -> None:
        raise error

    life = serve(lambda group: tasks.append(group.create_task(work)), log)
    assert log[-3:] == ["pump ends", "resource closes", "shutdown.complete"]
    assert life.error is None
    assert tasks[0].result() is None
    assert len(errors) == 1


def test_failed_work_that_something_cancelled(errors: list[logging.LogRecord]) -> None:
    """A5: Work that ends since a task it awaited was cancelled is logged: it was not done."""

    async def work() -> None:
        task = asyncio.create_task(asyncio.Event().wait())
        asyncio.get_running_loop().call_soon(task.cancel)
        await task

    serve(lambda group: group.create_task(work, name="sending mail"))
    [record] = errors
    message = "sending mail, handed over by GET /items/5, was cancelled by something it awaited"
    assert record.getMessage() == message


def test_cancelling_it_is_no_failure(errors: list[logging.LogRecord]) -> None:
    """A5: Whoever holds the task may cancel it, also before it begins; nothing is logged."""
    tasks: list[asyncio.Task[Any]] = []

    async def work() -> None:
        await asyncio.Event().wait()

    coro = work()

    def hand_over(group: AppTaskGroup) -> None:
        unborn = group.create_task(coro)
        unborn.cancel()
        tasks.extend([unborn, group.create_task(work())])
        asyncio.get_running_loop().call_later(0, tasks[1].cancel)

    serve(hand_over)
    assert [task.cancelled() for task in tasks] == [True, True]
    assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED
    assert errors == []
