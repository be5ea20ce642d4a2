"""What the end of a pump means, by its policies."""

import asyncio
import logging

from starlette.applications import Starlette

from quattro_core import RestartLimitError
from quattro_web import Pump, PumpState, RestartPolicy, app_health, install
from tests.support.apps import settle, soon
from tests.support.asgi import run
from tests.support.lifespan import Life


async def forever() -> None:
    await asyncio.Event().wait()


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
    """A3: A pump with on_failure="ignore" ends with an error in the log; the app is ready."""

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
