"""Pumps that end by what is no Exception, by a cancellation, or at their end."""

import asyncio
import logging
import signal

import pytest
from starlette.applications import Starlette

from quattro_web import install
from tests.app.apps import pump_of, settle, soon
from tests.app.failing import Pump, live
from tests.support.asgi import run
from tests.support.clock import VirtualClockLoop
from tests.support.lifespan import Life


class CustomError(BaseException):
    """Not an Exception, as some libraries' errors are not."""


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
    assert "pump failed: the server has to stop" in errors[0].getMessage()
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
    assert "pump failed: the server has to stop" in errors[0].getMessage()
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
    assert "pump failed: the server has to stop" in errors[0].getMessage()


async def _stay(pump: Pump) -> None:
    app = Starlette()
    install(app, pumps=[pump])
    async with Life(app):
        await asyncio.Event().wait()


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
    assert "failed: the server has to stop" in errors[0].getMessage()
    assert "was cancelled while the app is running" in str(life.error)
