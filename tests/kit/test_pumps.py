"""The pumps of an app under the testing kit."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.applications import Starlette

from quattro_web import Pump, install, task_group_lifespan
from quattro_web.testing import AppClient, advance
from tests.kit.apps import Shop
from tests.kit.running import run, visit


async def forever() -> None:
    await asyncio.Event().wait()


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


def test_request_after_the_end_by_a_failed_pump() -> None:
    """A3: An app that a failed pump has shut down takes no request any more, as no server would
    have any for it."""

    async def broken() -> None:
        await asyncio.sleep(5)
        raise ZeroDivisionError

    async def test(client: AppClient) -> None:
        assert (await client.get("/")).status_code == 404
        await advance(60)
        with pytest.raises(RuntimeError, match="the app is no longer running"):
            client.start("GET", "/")
        with pytest.raises(RuntimeError, match="the app is no longer running"):
            client.websocket("/")
        with pytest.raises(RuntimeError, match="the app is no longer running"):
            await client.asgi({"type": "http"}, None, None)  # type: ignore[arg-type]

    with pytest.raises(ZeroDivisionError):
        visit(app_of(Pump(broken)), test)


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


@pytest.mark.parametrize(
    ("pumps", "known"),
    [
        ([], r"\[\]"),
        ([Pump(forever, name="poll"), Pump(forever, name="beat")], r"\['beat', 'poll'\]"),
    ],
)
def test_pumps_that_are_not_there(pumps: list[Pump], known: str) -> None:
    """A2: A name that no pump has is an error before the block begins, which tells the names that
    there are; what has started till then has ended."""
    events: list[str] = []

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        events.append("closed")

    app = Starlette(lifespan=lifespan)
    install(app, pumps=pumps)

    async def main() -> None:
        client = AppClient(app, pumps=[*(pump.name for pump in pumps), "pol"])
        with pytest.raises(LookupError, match=f"no pump 'pol'; the app has {known}"):
            await client.__aenter__()
        assert events == ["closed"]
        with pytest.raises(RuntimeError, match="is no longer running"):
            client.start("GET", "/")

    run(main)


def test_pumps_of_apps_that_share_a_lifespan() -> None:
    """A2: A pump may be that of any app that runs in the lifespan."""
    app = Starlette(lifespan=task_group_lifespan(pumps=[Pump(forever, name="inner")]))
    install(app, pumps=[Pump(forever, name="outer")])

    async def test(client: AppClient) -> None:
        assert [pump.name for pump in client.health.pumps] == ["inner"]

    visit(app, test, pumps=["inner"])
    visit(app, test, pumps={"inner"})
