"""Pumps that say when they are ready, and the start-up that waits for them."""

import asyncio
import gc
import logging
from typing import Any

import pytest
from starlette.applications import Starlette

from quattro_core import TaskStatus
from quattro_web import Pump, PumpState, app_health, install
from tests.support.apps import lifespan_of
from tests.support.asgi import run
from tests.support.lifespan import Life


async def forever() -> None:
    await asyncio.Event().wait()


async def slow_start(*, task_status: TaskStatus) -> None:
    await asyncio.sleep(5)
    task_status.started()
    await forever()


def start(*pumps: object) -> tuple[list[str], Life, float]:
    """Start an app up, and return its log, its life, and how long that took."""
    log: list[str] = []
    app = Starlette(lifespan=lifespan_of(log))
    install(app, pumps=pumps)  # type: ignore[arg-type]
    life = Life(app, log=log)

    async def main() -> float:
        await life.start()
        time = asyncio.get_running_loop().time()
        await life.stop()
        return time

    return log, life, run(main())


def test_start_up_waits_for_readiness() -> None:
    """A2: The app starts when every pump that says when it is ready has said so."""
    log, _, seconds = start(slow_start, forever)
    assert log[:2] == ["resource opens", "startup.complete"]
    assert seconds == 5


def test_pump_that_is_never_ready() -> None:
    """A2: A pump that is not ready in time is a failed start-up that names it: no half of an app
    is started, and what was opened is closed."""

    async def never(*, task_status: TaskStatus) -> None:
        await forever()

    log, life, seconds = start(Pump(never, name="the feed", ready_timeout=7), slow_start)
    assert log == ["resource opens", "resource closes", "startup.failed"]
    assert "the feed" in life.sent[-1]["message"]
    assert "7" in str(life.error)
    assert isinstance(life.error, TimeoutError)
    assert seconds == 7


def test_pump_that_fails_at_start_up() -> None:
    """A2, A3: A pump that fails before the app has started is a failed start-up, at once, with its
    own error, and its name."""

    async def broken(*, task_status: TaskStatus) -> None:
        await asyncio.sleep(1)
        raise ZeroDivisionError

    log, life, seconds = start(Pump(broken, name="the feed"), slow_start)
    assert log == ["resource opens", "resource closes", "startup.failed"]
    assert isinstance(life.error, ZeroDivisionError)
    assert life.error.__notes__ == ["raised by pump the feed, before the app has started"]
    assert seconds == 1


def test_pump_that_fails_in_its_first_step() -> None:
    """A3: A pump that fails at once is a failed start-up, though nothing waits for it."""

    async def broken() -> None:
        raise ZeroDivisionError

    log, life, _ = start(broken)
    assert log == ["resource opens", "resource closes", "startup.failed"]
    assert isinstance(life.error, ZeroDivisionError)


def test_two_pumps_that_fail_at_start_up(errors: list[logging.LogRecord]) -> None:
    """A3: When two fail before the app has started, one is the reason and the other is logged."""

    async def broken() -> None:
        raise ZeroDivisionError

    _, life, _ = start(broken, broken)
    assert isinstance(life.error, ZeroDivisionError)
    [record] = errors
    assert record.getMessage() == (
        f"pump {broken.__qualname__} (2) failed as well, before the start-up"
    )


def test_restart_during_the_start_up() -> None:
    """A2, A3: A pump may be restarted before it is ready: the start-up waits for it."""
    attempts: list[int] = []

    async def flaky(*, task_status: TaskStatus) -> None:
        attempts.append(1)
        if len(attempts) < 3:
            raise ZeroDivisionError
        task_status.started()
        await forever()

    log, life, _ = start(Pump(flaky, on_failure="restart"))
    assert log[:2] == ["resource opens", "startup.complete"]
    assert life.error is None
    assert len(attempts) == 3


def test_pump_is_not_ready_while_the_app_starts() -> None:
    """A2: As long as the start-up waits, the app is not ready, and its pump is starting."""

    async def main() -> None:
        app = Starlette()
        install(app, pumps=[slow_start])
        life = Life(app)
        starting = asyncio.create_task(life.start())
        await asyncio.sleep(1)
        health = app_health(app)
        assert (health.is_ready, health.pumps[0].state) == (False, PumpState.STARTING)
        await starting
        assert app_health(app).is_ready
        await life.stop()

    run(main())


@pytest.mark.parametrize("pumps", [[forever], [slow_start], [slow_start, forever]])
def test_start_up_under_a_task_factory_that_wraps(pumps: list[Any]) -> None:
    """A2: A start-up leaves no coroutine that was never awaited, also if a task factory puts each
    into another one, as those of tracing libraries do."""

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        async def traced() -> Any:
            return await coro

        return asyncio.Task(traced(), loop=loop, **options)

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(factory)
        app = Starlette()
        install(app, pumps=pumps)
        async with Life(app) as life:
            assert life.log == ["startup.complete"]

    run(main())
    gc.collect()


@pytest.mark.parametrize("why", ["never ready", "cancelled"])
def test_clean_up_that_fails_after_the_start_up(why: str, caplog: pytest.LogCaptureFixture) -> None:
    """A3: What a pump raises as it is ended, since another one was never ready or the server has
    cancelled the start-up, is logged."""

    async def broken() -> None:
        try:
            await forever()
        finally:
            raise ZeroDivisionError

    async def never(*, task_status: TaskStatus) -> None:
        await forever()

    log: list[str] = []
    app = Starlette(lifespan=lifespan_of(log))
    install(app, pumps=[broken, Pump(never, ready_timeout=7)])

    async def main() -> None:
        life = Life(app, log=log)
        starting = asyncio.create_task(life.start())
        if why == "cancelled":
            await asyncio.sleep(1)
            await life.give_up()
        await starting

    run(main())
    [record] = [record for record in caplog.records if record.exc_info is not None]
    assert "broken failed as well, before the start-up" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError
