"""The pumps of an app under the testing kit."""

import asyncio

import pytest
from starlette.applications import Starlette

from quattro_web import Pump, install
from quattro_web.testing import AppClient, advance
from tests.kit.apps import Shop
from tests.kit.running import visit


def app_of(*pumps: Pump) -> Starlette:
    app = Starlette()
    install(app, pumps=pumps)
    return app


def test_failed_pump_shuts_down() -> None:
    """A3: A pump that fails begins the shutdown, and its error is raised at the end of the block:
    no signal is sent to the process of the tests."""

    async def broken() -> None:
        await asyncio.sleep(5)
        raise ZeroDivisionError

    app = app_of(Pump(broken))

    async def test(client: AppClient) -> None:
        assert client.health.is_ready
        await advance(5)
        assert client.health.is_shutting_down

    with pytest.raises(ZeroDivisionError):
        visit(app, test)


def test_pumps_one_step() -> None:
    """A2: Pumps that were not started run in the test itself, for as long as it says."""
    beats: list[float] = []

    async def beat() -> None:
        while True:
            beats.append(asyncio.get_running_loop().time())
            await asyncio.sleep(60)

    async def once() -> None:
        beats.append(-1)

    app = app_of(Pump(beat, name="beat"), Pump(once, name="once", on_return="ok"))

    async def test(client: AppClient) -> None:
        await advance(100)
        assert beats == []
        await client.run_pump("beat", seconds=61)
        assert len(beats) == 2
        await client.run_pump("once")
        assert beats[-1] == -1
        with pytest.raises(LookupError, match="nobody"):
            await client.run_pump("nobody")

    visit(app, test, pumps=False)


def test_pump_with_a_timeout_of_its_own() -> None:
    """A2: What a pump raises is raised to the test, also where that is a timeout, and in time."""

    async def impatient() -> None:
        async with asyncio.timeout(1):
            await asyncio.sleep(2)

    app = app_of(Pump(impatient, name="impatient"))

    async def test(client: AppClient) -> None:
        with pytest.raises(TimeoutError):
            await client.run_pump("impatient", seconds=60)

    visit(app, test, pumps=False)


def test_pump_that_runs_already() -> None:
    """A2: Only the pumps that are named start; one that runs is not run twice."""
    shop = Shop()

    async def test(client: AppClient) -> None:
        assert "poll" in shop.log
        with pytest.raises(LookupError, match="poll"):
            await client.run_pump("poll")

    visit(shop.app, test, pumps=["poll"])
