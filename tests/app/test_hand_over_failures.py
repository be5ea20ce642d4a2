"""Work that is handed over and fails: it is told, and it stops nothing."""

import asyncio
import inspect
import logging
import signal
from functools import partial
from typing import Any, Self

import pytest

from quattro_web.fastapi import AppTaskGroup
from tests.app.handing import app_with, fail, serve
from tests.support.apps import settle
from tests.support.asgi import run
from tests.support.clock import VirtualClockLoop
from tests.support.lifespan import Life


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


class Work:
    """Work that has no name."""

    async def __call__(self) -> None:
        raise ZeroDivisionError


def test_work_without_a_name(errors: list[logging.LogRecord]) -> None:
    """A5: Work that has no name, as its object has none, has that which asyncio gives to tasks."""
    serve(lambda group: group.create_task(Work()))
    assert errors[0].getMessage().startswith("Task-")


class AwkwardError(Exception):
    """One that is false, and whose traceback can't be set in the ordinary way."""

    def __bool__(self) -> bool:
        return False

    def with_traceback(self, _: object) -> Self:
        raise LookupError


@pytest.mark.parametrize("error", [ZeroDivisionError, CustomError, SystemExit, AwkwardError])
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
    assert errors[0].exc_info is not None


@pytest.mark.parametrize("function", [dict, lambda: 3])
def test_function_that_returns_no_coroutine(function: Any, errors: list[logging.LogRecord]) -> None:
    """A5: Work whose function returns something else has failed with what it has returned."""
    serve(lambda group: group.create_task(function))
    [record] = errors
    assert record.exc_info is not None
    message = f"{function!r} was expected to return a coroutine, got {function()!r}"
    assert str(record.exc_info[1]) == message


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


def test_work_that_the_end_of_the_loop_cancels(errors: list[logging.LogRecord]) -> None:
    """A5: Work that is lost, as the server is out of patience and lets its event loop end, is
    named in the log."""
    life = Life(app_with(lambda group: group.create_task(asyncio.Event().wait, name="mail"), []))

    async def main() -> None:
        await life.start()
        await life.get("/items/5")
        await settle()

    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        runner.run(main())
    messages = [record.getMessage() for record in errors]
    lost = (
        "mail, handed over by GET /items/5, was cancelled unfinished, because the event loop ended"
    )
    assert lost in messages


def test_what_cancelled_work_hands_over_is_cancelled_too(errors: list[logging.LogRecord]) -> None:
    """A5: Work that is handed over by work that the shutdown has cancelled is cancelled as well,
    and has ended before the pumps do."""
    log: list[str] = []

    async def late() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            log.append("late work cancelled")
            raise

    def hand_over(group: AppTaskGroup) -> None:
        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                group.create_task(late())
                await asyncio.sleep(0)

        group.create_task(work())

    serve(hand_over, log)
    assert log.index("late work cancelled") < log.index("pump ends")
    assert not [record for record in errors if "no longer waits" in record.getMessage()]


def test_clean_up_that_other_work_waits_for() -> None:
    """A5, C5: The shutdown cancels work once: a clean-up is not cut by other work that waits for
    its end, and is cancelled as well."""
    log: list[str] = []

    def hand_over(group: AppTaskGroup) -> None:
        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.01)
                log.append("work cleaned up")

        async def wait(task: asyncio.Task[None]) -> None:
            await task

        async def waits(task: asyncio.Task[None]) -> None:
            async with asyncio.TaskGroup() as inner:
                inner.create_task(wait(task))

        task = group.create_task(work())
        group.create_task(waits(task))

    serve(hand_over, log)
    assert log.index("work cleaned up") < log.index("pump ends")


def test_failure_that_can_not_be_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A5: Nor does a failure stop anything that a filter of the log chokes on: it is reported to
    the event loop."""

    class Filter(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            if "handed over" in record.getMessage():
                raise LookupError
            return True

    log: list[str] = []
    logger, broken_log = logging.getLogger("quattro_web"), Filter()
    logger.addFilter(broken_log)
    try:
        life = serve(lambda group: group.create_task(fail), log)
    finally:
        logger.removeFilter(broken_log)
    assert life.error is None
    assert log[-3:] == ["pump ends", "resource closes", "shutdown.complete"]
    [record] = caplog.records
    assert record.name == "asyncio"
    assert "the failure of handed-over work could not be logged" in record.getMessage()
    assert "the work failed" in caplog.text


class Circle(asyncio.Future[None]):
    """What a task awaits that awaits itself: a cancellation of it never ends."""

    def cancel(self, msg: Any = None) -> bool:
        raise RecursionError


def test_work_that_nothing_can_cancel(errors: list[logging.LogRecord]) -> None:
    """A5, A6: Work that waits for itself, as when two tasks await each other, is given up when the
    shutdown can't cancel it, and pumps and resources end as ever."""
    log: list[str] = []
    circles: list[Circle] = []

    async def work() -> None:
        circles.append(Circle(loop=asyncio.get_running_loop()))
        await circles[0]

    life = Life(app_with(lambda group: group.create_task(work, name="in a circle"), log))

    async def main() -> None:
        async with life:
            await life.get("/items/5")
        circles[0].set_result(None)
        await settle()

    run(main())
    assert life.error is None
    assert log[-2:] == ["pump ends", "resource closes"]
    given_up = "no longer waits for handed-over work that was cancelled: in a circle"
    assert given_up in errors[-1].getMessage()


def test_keyboard_interrupt_of_work(
    errors: list[logging.LogRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A5: Where the server takes Ctrl-C, a KeyboardInterrupt is a failure like others."""
    monkeypatch.setattr(signal, "getsignal", lambda _: None)
    log: list[str] = []

    async def work() -> None:
        raise KeyboardInterrupt

    life = serve(lambda group: group.create_task(work), log)
    assert life.error is None
    assert "work, handed over by GET /items/5, failed" in errors[0].getMessage()
    assert log[-3:] == ["pump ends", "resource closes", "shutdown.complete"]
