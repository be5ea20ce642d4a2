"""The options of a pump."""

import asyncio
import logging

import pytest
from starlette.applications import Starlette

from quattro_core import RestartLimitError, TaskStatus
from quattro_web import Pump, PumpState, RestartPolicy, app_health, install
from tests.app.apps import lifespan_of, settle, soon
from tests.support.asgi import run
from tests.support.lifespan import Life


async def forever() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("name", ["on_failure", "on_return"])
def test_unknown_policy(name: str) -> None:
    """A3: A policy that does not exist is an error that names those that do."""
    with pytest.raises(
        ValueError, match=f"{name} must be one of 'stop', 'restart', '.*', got 'no'"
    ):
        Pump(forever, **{name: "no"})  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_bad_ready_timeout(seconds: float) -> None:
    """A2: A time-out that is no time is an error that names it."""
    with pytest.raises(ValueError, match="ready_timeout must be a positive number"):
        Pump(forever, ready_timeout=seconds)


def test_restart_that_is_no_policy() -> None:
    """A3: A number instead of a RestartPolicy is an error that names the argument."""
    with pytest.raises(TypeError, match="restart must be a RestartPolicy or None, got 5"):
        Pump(forever, restart=5)  # type: ignore[arg-type]


def test_restart_that_is_never_used() -> None:
    """A3: A RestartPolicy of a pump that is never restarted is an error that names the way out."""
    needs = r'restart=RestartPolicy\(.*\) needs on_failure="restart" or on_return="restart"'
    for options in ({}, {"on_failure": "ignore", "on_return": "ok"}):
        with pytest.raises(ValueError, match=needs):
            Pump(forever, restart=RestartPolicy(), **options)  # type: ignore[arg-type]
    assert Pump(forever, on_return="restart", restart=RestartPolicy()).on_failure == "stop"


@pytest.mark.parametrize("once", [True, "lock", object])
def test_once_that_is_no_lock(once: object) -> None:
    """A7: Something else than a lock is an error that names the argument and a lock."""
    with pytest.raises(TypeError, match=r"once must be a lock such as FileLock\(\), got"):
        Pump(forever, once=once)  # type: ignore[arg-type]


def test_lease_without_a_lock() -> None:
    """A7: A pump that takes a lease but has no lock is an error."""

    async def pump(*, lease: object) -> None: ...

    with pytest.raises(TypeError, match=r"pump .*pump takes a lease, which only a pump with once="):
        Pump(pump)


def test_failed_pump_is_restarted(errors: list[logging.LogRecord]) -> None:
    """A3: A pump with on_failure="restart" is started again, and the app goes on."""
    starts: list[float] = []

    async def flaky() -> None:
        starts.append(asyncio.get_running_loop().time())
        await soon()
        if len(starts) < 3:
            raise ZeroDivisionError
        await forever()

    async def main() -> None:
        app = Starlette()
        install(app, pumps=[Pump(flaky, on_failure="restart")])
        async with Life(app) as life:
            await asyncio.sleep(60)
            [pump] = app_health(app).pumps
            assert (pump.state, pump.restarts) == (PumpState.RUNNING, 2)
            assert isinstance(pump.last_error, ZeroDivisionError)
            assert app_health(app).is_ready
        assert life.error is None

    run(main())
    assert len(starts) == 3
    assert [record.levelname for record in errors] == ["WARNING", "WARNING"]


def test_too_many_restarts_stop_the_server(errors: list[logging.LogRecord]) -> None:
    """A3: A pump that fails too often is as one that is not restarted, with every error."""

    async def broken() -> None:
        await soon()
        raise ZeroDivisionError

    policy = RestartPolicy(base=0.1, ceiling=0.1, max_restarts=2)

    async def main() -> Life:
        app = Starlette()
        install(app, pumps=[Pump(broken, on_failure="restart", restart=policy)])
        async with Life(app) as life:
            await asyncio.sleep(60)
            assert not app_health(app).is_ready
        return life

    life = run(main())
    assert [record.levelname for record in errors] == ["WARNING", "WARNING", "CRITICAL", "CRITICAL"]
    assert isinstance(life.error, RestartLimitError)
    assert len(life.error.errors) == 3


def test_ignored_failure(errors: list[logging.LogRecord]) -> None:
    """A3: A pump with on_failure="ignore" is let go with an error in the log; the app is ready."""

    async def optional() -> None:
        await soon()
        raise ZeroDivisionError

    async def main() -> Life:
        app = Starlette()
        install(app, pumps=[Pump(optional, on_failure="ignore")])
        async with Life(app) as life:
            await settle()
            [pump] = app_health(app).pumps
            assert (pump.state, pump.is_up) == (PumpState.FAILED, True)
            assert app_health(app).is_ready
        return life

    assert run(main()).error is None
    [record] = errors
    assert record.levelname == "ERROR"


def test_return_that_is_expected(errors: list[logging.LogRecord]) -> None:
    """A3: A pump with on_return="ok" may be done: that is no event, and the app is ready."""

    async def main() -> Life:
        app = Starlette()
        install(app, pumps=[Pump(soon, on_return="ok")])
        async with Life(app) as life:
            await settle()
            assert app_health(app).pumps[0].state is PumpState.RETURNED
            assert app_health(app).is_ready
        return life

    assert run(main()).error is None
    assert errors == []


def test_pump_that_returns_at_the_shutdown(errors: list[logging.LogRecord]) -> None:
    """A3: A pump that ends by itself when the shutdown has begun has not failed."""

    async def main() -> Life:
        app = Starlette()
        told = asyncio.Event()
        install(app, pumps=[Pump(told.wait)])
        async with Life(app) as life:
            group = await life.group()

            async def work() -> None:
                await settle()
                told.set()
                await settle()

            group.create_task(work)
        return life

    assert run(main()).error is None
    assert errors == []


# Readiness


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
