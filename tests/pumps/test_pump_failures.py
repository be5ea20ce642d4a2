"""What becomes of a pump that fails, where there is no server that could be asked to stop."""

import asyncio
import logging
import threading

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from quattro_core import TaskReturnedError
from quattro_web import ShutdownEvent, app_task_group, install, shutdown_event
from tests.pumps.failing import broken, live, untidy
from tests.support.apps import lifespan_of, pump_of, settle, soon
from tests.support.asgi import run
from tests.support.lifespan import Life
from tests.support.server import PATIENCE


def test_failure_is_logged_once(errors: list[logging.LogRecord]) -> None:
    """A3: A pump that fails is logged once, as critical, by its name and with its traceback."""
    live(broken)
    record, _ = errors  # the other one: nobody could be asked to stop
    assert record.levelname == "CRITICAL"
    assert record.getMessage() == "pump broken failed: the server must stop"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)
    assert record.exc_info[2] is not None


def test_the_others_go_on() -> None:
    """A3: The failure of a pump ends no other: they go on until the shutdown (trap: pump in the
    lifespan's group)."""
    log: list[str] = []

    async def main() -> None:
        app = Starlette(lifespan=lifespan_of(log))
        install(app, pumps=[broken, pump_of(log)])
        async with Life(app, log=log):
            await settle()
            log.append("still serving")

    run(main())
    assert log[1:5] == ["pump starts", "startup.complete", "still serving", "pump ends"]


def test_failure_is_raised_where_no_server_is() -> None:
    """A3: Where no server can be told, the failure comes out of the lifespan when it ends."""
    log: list[str] = []
    life = live(broken, log=log)
    assert log[-2:] == ["resource closes", "shutdown.failed"]
    assert isinstance(life.error, ZeroDivisionError)
    assert "the pump is broken" in life.sent[-1]["message"]


def test_failure_comes_out_of_a_test_client() -> None:
    """A3: A test with Starlette's TestClient fails when a pump does, with the pump's error."""
    fails = threading.Event()

    async def failing() -> None:
        try:
            await broken()
        finally:
            fails.set()

    app = Starlette()
    install(app, pumps=[failing])
    with pytest.raises(ZeroDivisionError, match="the pump is broken"), TestClient(app):
        assert fails.wait(PATIENCE)  # it runs in another thread


def test_several_failures_come_out_together() -> None:
    """A3: When several pumps have failed, all of their errors come out of the lifespan."""

    async def other() -> None:
        await soon()
        raise LookupError

    life = live(broken, other)
    assert isinstance(life.error, ExceptionGroup)
    assert [type(error) for error in life.error.exceptions] == [ZeroDivisionError, LookupError]


def test_failure_in_clean_up(errors: list[logging.LogRecord]) -> None:
    """A3: A pump that fails while it is ended is logged, and the lifespan raises its error."""
    log: list[str] = []
    life = live(untidy, pump_of(log), log=log)
    assert [record.getMessage() for record in errors] == [
        "pump untidy failed while it was being stopped"
    ]
    assert isinstance(life.error, ZeroDivisionError)
    assert log[-3:] == ["pump ends", "resource closes", "shutdown.failed"]


def test_pump_that_returns_has_failed(errors: list[logging.LogRecord]) -> None:
    """A3: A pump that returns, although it should run for ever, has failed: it is as dead."""
    life = live(soon)
    record, _ = errors
    assert record.levelname == "CRITICAL"
    assert record.getMessage() == "pump soon failed: the server must stop"
    assert isinstance(life.error, TaskReturnedError)
    assert "soon" in str(life.error)


def test_pump_that_fails_while_work_is_awaited(errors: list[logging.LogRecord]) -> None:
    """A3: A pump that fails in the shutdown, while work still uses it, is logged and raised."""
    fail, failed = asyncio.Event(), asyncio.Event()

    async def pump() -> None:
        await fail.wait()
        failed.set()
        raise ZeroDivisionError

    async def work(shutdown: ShutdownEvent) -> None:
        await shutdown.wait()
        fail.set()
        await failed.wait()
        await settle()

    async def main() -> Life:
        app = Starlette()
        install(app, pumps=[pump])
        async with Life(app) as life:
            scope = (await life.get()).scope
            app_task_group(scope).create_task(work(shutdown_event(scope)))
        return life

    life = run(main())
    assert "failed during the shutdown" in errors[0].getMessage()
    assert isinstance(life.error, ZeroDivisionError)
