"""Pumps that end by what is no Exception, by a cancellation, or at their end."""

import asyncio
import logging
import signal
from dataclasses import dataclass
from typing import Any

import pytest
from starlette.applications import Starlette

from quattro_core import TaskStatus
from quattro_web import ShutdownGrace, app_health, install
from tests.pumps.failing import Pump, broken, live
from tests.support.apps import pump_of, settle, soon
from tests.support.asgi import run
from tests.support.clock import VirtualClockLoop
from tests.support.lifespan import Life
from tests.support.signals import server_handlers


class CustomError(BaseException):
    """Not an Exception, as some libraries' errors are not."""


@dataclass(frozen=True)
class FrozenError(Exception):
    """One that takes no attribute, such as a note, and is false."""

    text: str

    def __bool__(self) -> bool:
        return False


@pytest.mark.parametrize("error", [CustomError, SystemExit, GeneratorExit])
def test_failure_that_is_no_exception(
    error: type[BaseException], errors: list[logging.LogRecord]
) -> None:
    """A3: An error that is no Exception, such as that of sys.exit, is a failure like others."""
    log: list[str] = []

    async def pump() -> None:
        await soon()
        raise error

    life = live(pump, pump_of(log), log=log)
    assert "pump failed: the server must stop" in errors[0].getMessage()
    assert isinstance(life.error, RuntimeError)
    assert isinstance(life.error.__cause__, error)
    assert log.index("startup.complete") < log.index("pump ends") < log.index("resource closes")


def test_keyboard_interrupt_of_a_pump(
    errors: list[logging.LogRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A3: Where the server takes Ctrl-C, a KeyboardInterrupt is a failure of the pump that raises
    it: it is logged, and the app's resources are closed."""
    log: list[str] = []
    monkeypatch.setattr(signal, "getsignal", lambda _: None)

    async def pump() -> None:
        await soon()
        raise KeyboardInterrupt

    life = live(pump, pump_of(log), log=log)
    assert "pump failed: the server must stop" in errors[0].getMessage()
    assert isinstance(life.error, KeyboardInterrupt)
    assert log.index("startup.complete") < log.index("pump ends") < log.index("resource closes")


def test_ctrl_c_that_meets_a_pump(errors: list[logging.LogRecord]) -> None:
    """A3: Where nobody takes Ctrl-C, it ends the event loop, as ever, and the log names the pump
    that it has met."""

    async def pump() -> None:
        await soon()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    loop = VirtualClockLoop()
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(_stay(pump))
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(1))
    finally:
        loop.close()
        signal.signal(signal.SIGINT, before)
    assert "pump failed: the server must stop" in errors[0].getMessage()


async def _stay(pump: Pump) -> None:
    app = Starlette()
    install(app, pumps=[pump])
    async with Life(app):
        await asyncio.Event().wait()


def test_pump_whose_event_loop_was_closed(errors: list[logging.LogRecord]) -> None:
    """A3: A pump whose event loop was closed before it has ended has not failed when it is
    collected: nothing stops the server that runs in the same process by then."""
    app, loop = Starlette(), VirtualClockLoop()
    install(app, pumps=[pump_of([], "feed")], shutdown_grace=ShutdownGrace(resources=None))
    life = Life(app)
    loop.run_until_complete(life.start())
    [task] = [task for task in asyncio.all_tasks(loop) if task.get_name().startswith("pump ")]
    coroutine = task.get_coro()
    assert coroutine is not None
    with server_handlers() as got, pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        coroutine.close()
    assert (got, errors) == ([], [])
    loop.run_until_complete(life.stop())
    loop.close()


def test_pump_that_something_cancelled(errors: list[logging.LogRecord]) -> None:
    """A3: A pump that ends since a task it awaited was cancelled has failed, and is logged."""

    async def pump() -> None:
        await soon()
        task = asyncio.create_task(asyncio.Event().wait())
        asyncio.get_running_loop().call_soon(task.cancel)
        await task

    life = live(pump)
    record, _ = errors
    assert record.levelname == "CRITICAL"
    assert record.exc_info is not None
    assert "was cancelled by something it awaited" in str(record.exc_info[1])
    assert isinstance(life.error, RuntimeError)


def test_ending_a_pump_is_no_failure(errors: list[logging.LogRecord]) -> None:
    """A3: A pump that is cancelled at shutdown has not failed: nothing is logged or raised."""
    life = live(pump_of([]), pump_of([]))
    assert errors == []
    assert life.error is None


def test_pump_that_returns_at_its_end_is_not_logged(errors: list[logging.LogRecord]) -> None:
    """A3: A pump that takes its cancellation as a reason to return does as it should."""

    async def obedient() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    assert live(obedient).error is None
    assert errors == []


def test_pump_that_somebody_cancels(errors: list[logging.LogRecord]) -> None:
    """A3: A pump whose task is cancelled while the app runs has failed, and is not silent."""

    async def pump() -> None:
        await soon()
        current = asyncio.current_task()
        assert current is not None
        current.cancel()
        await asyncio.Event().wait()

    async def main() -> Life:
        app = Starlette()
        install(app, pumps=[pump])
        async with Life(app) as life:
            await settle()
        return life

    life = run(main())
    assert "failed: the server must stop" in errors[0].getMessage()
    assert "was cancelled while the app is running" in str(life.error)


async def frozen() -> None:
    raise FrozenError("broken")


async def frozen_before_it_is_ready(*, task_status: TaskStatus) -> None:
    await soon()
    raise FrozenError("broken")


@pytest.mark.parametrize("pump", [frozen, frozen_before_it_is_ready])
def test_error_of_a_start_up_that_takes_no_note(pump: Any, errors: list[logging.LogRecord]) -> None:
    """A2, A3: A pump that fails before the app has started is a failed start-up with its own error
    and its name, also if that error refuses what is set on it, as a frozen dataclass does."""

    async def main() -> Life:
        app = Starlette()  # without a lifespan of its own: contextlib sets a traceback
        install(app, pumps=[pump])
        life = Life(app)
        assert await life.start() == "startup.failed"
        await life.stop()
        return life

    life = run(main())
    assert life.error == FrozenError("broken")
    note = f"raised by pump {pump.__qualname__}, before the app has started"
    assert life.error.__notes__ == [note]
    assert errors == []


class NoError(Exception):
    """One that is false, and fails to say anything."""

    def __len__(self) -> int:
        return 0

    def __str__(self) -> str:
        raise LookupError


def test_error_that_is_false(errors: list[logging.LogRecord]) -> None:
    """A3: An error that is false, as a collection of errors that is empty, is logged with its
    traceback, and health knows it."""

    async def pump() -> None:
        await soon()
        raise NoError

    app = Starlette()
    install(app, pumps=[pump])

    async def main() -> None:
        async with Life(app):
            await settle()
            assert isinstance(app_health(app).pumps[0].last_error, NoError)

    run(main())
    assert "failed: the server must stop" in errors[0].getMessage()
    assert "in pump" in logging.Formatter().format(errors[0])


def test_error_of_a_shutdown_that_says_nothing() -> None:
    """A3: The server is told of a pump that fails at its end, also if its error fails to say what
    it is."""

    async def pump() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise NoError

    life = live(pump)
    assert isinstance(life.error, NoError)
    assert life.sent[-1] == {
        "type": "lifespan.shutdown.failed",
        "message": "its message could not be made (LookupError)",
    }


def test_error_of_every_start_up() -> None:
    """A3: An error that a module keeps has one note for each pump, however often it is raised."""
    error = ZeroDivisionError()

    async def pump() -> None:
        raise error

    for _ in range(3):
        assert live(pump).error is error
    assert len(error.__notes__) == 1


def cancel_task(name: str) -> None:
    """Cancel a task of this package's, as a program that cancels all of its tasks does."""
    [task] = [task for task in asyncio.all_tasks() if task.get_name() == name]
    task.cancel()


def test_task_of_the_app_that_somebody_cancels(errors: list[logging.LogRecord]) -> None:
    """A3: If the task of the app's group is cancelled, and so its pumps are, that is a failure that
    is logged and asks the server to stop, the app is not ready any more, and the lifespan fails."""

    async def main() -> Life:
        app = Starlette()
        install(app, pumps=[pump_of([])])
        async with Life(app) as life:
            cancel_task("quattro_web app")
            await settle()
            assert not app_health(app).is_ready
        return life

    life = run(main())
    first, second = (record.getMessage() for record in errors)
    assert first == "the task group of the app failed: the server must stop"
    assert second.startswith("the server could not be asked to stop")
    assert "the task group of the app has ended while the app is running" in str(life.error)


def test_task_of_an_app_without_pumps_that_somebody_cancels(
    errors: list[logging.LogRecord],
) -> None:
    """A3, A5: So it is in an app without pumps, which takes no more work and is not ready."""

    async def main() -> Life:
        app = Starlette()
        install(app)
        async with Life(app) as life:
            cancel_task("quattro_web app")
            await settle()
            assert not app_health(app).is_ready
        return life

    assert isinstance(run(main()).error, RuntimeError)
    assert errors[0].levelname == "CRITICAL"


@pytest.mark.parametrize("is_new", [True, False])
def test_task_of_the_app_that_is_cancelled_in_the_start_up(*, is_new: bool) -> None:
    """A2, A3: A start-up whose group is cancelled fails at once, instead of waiting for ever."""

    async def never(*, task_status: TaskStatus) -> None:
        await asyncio.Event().wait()

    async def main() -> Life:
        app = Starlette()
        install(app, pumps=[never])
        life = Life(app)
        starting = asyncio.create_task(life.start())
        while not any(task.get_name() == "quattro_web app" for task in asyncio.all_tasks()):
            await asyncio.sleep(0)
        if not is_new:
            await settle()
        cancel_task("quattro_web app")
        assert await asyncio.wait_for(starting, 1) == "startup.failed"
        await life.stop()
        return life

    why = "the task group of the app has ended"
    assert why in str(run(main()).error)


def test_log_that_fails_when_a_pump_does() -> None:
    """A3: Whatever else ends the group of the app is a failure too, such as a filter of the log
    that raises when it gets the failure of a pump."""

    class Filter(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            if "pump broken failed" in record.getMessage():
                raise LookupError
            return True

    logger, broken_log = logging.getLogger("quattro_web"), Filter()
    logger.addFilter(broken_log)
    try:
        life = live(broken, pump_of([]))
    finally:
        logger.removeFilter(broken_log)
    assert "the task group of the app has ended" in str(life.error)


def test_lifespan_that_somebody_cancels(errors: list[logging.LogRecord]) -> None:
    """A3: A lifespan that is cancelled while the app is running, after which servers go on without
    it, ends the pumps, and that is logged and asks the server to stop."""

    grace = ShutdownGrace(resources=None)  # the last resort would count on

    async def main() -> None:
        app = Starlette()
        install(app, pumps=[pump_of([])], shutdown_grace=grace)
        life = Life(app)
        await life.start()
        await life.give_up()

    with server_handlers() as got:
        run(main())
    assert errors[0].getMessage() == "the task group of the app failed: the server must stop"
    assert got == [signal.SIGTERM]


def test_shutdown_that_somebody_cancels(errors: list[logging.LogRecord]) -> None:
    """A3, A6: A shutdown that is cancelled has not waited, and says so."""

    async def main() -> None:
        app = Starlette()
        install(app, pumps=[pump_of([])])
        life = Life(app)
        await life.start()
        stopping = asyncio.create_task(life.stop())
        while not any(task.get_name() == "quattro_web shutdown" for task in asyncio.all_tasks()):
            await asyncio.sleep(0)
        cancel_task("quattro_web shutdown")
        await stopping
        await settle()

    run(main())
    assert "something cancelled the app's shutdown" in errors[0].getMessage()
