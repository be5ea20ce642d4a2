"""The client of the testing kit: the lifespan of the app."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette

from quattro_web.testing import AppClient
from tests.kit.apps import Shop
from tests.kit.running import run, visit


@pytest.fixture
def shop() -> Shop:
    return Shop()


def test_lifespan_is_around(shop: Shop) -> None:
    """The app starts before the block, and has ended after it; its pumps run meanwhile."""

    async def test(client: AppClient) -> None:
        assert shop.log == ["opens", "poll"]
        assert (await client.get("/readyz")).status_code == 200
        assert client.health.is_ready

    visit(shop.app, test)
    assert shop.log == ["opens", "poll", "poll ends", "closes"]


def test_app_that_does_not_start(shop: Shop) -> None:
    """What keeps an app from starting is raised as it is."""

    async def pump(*, task_status: Any) -> None:
        raise ZeroDivisionError

    async def main() -> None:
        client = AppClient(Shop(pumps=[pump]).app)
        with pytest.raises(ZeroDivisionError):
            await client.__aenter__()
        with pytest.raises(RuntimeError, match="no longer running"):
            await client.get("/echo")

    run(main)


@pytest.mark.parametrize("part", ["startup", "shutdown"])
def test_app_that_refuses(part: str) -> None:
    """An app that answers a part of its lifespan with a failure is an error with its message."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for name in ("startup", "shutdown"):
            await receive()
            how = "failed" if name == part else "complete"
            await send({"type": f"lifespan.{name}.{how}", "message": "not today"})

    async def test(client: AppClient) -> None:
        assert part == "shutdown"

    with pytest.raises(RuntimeError, match="not today"):
        visit(app, test)


def test_error_of_the_lifespan_is_raised() -> None:
    """What the lifespan raises when it ends is raised at the end of the block."""

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        yield
        raise ZeroDivisionError

    app = Starlette(lifespan=lifespan)

    async def test(client: AppClient) -> None:
        pass

    with pytest.raises(ZeroDivisionError):
        visit(app, test)


def test_timeout_of_the_startup() -> None:
    """A start that is given up has been cleaned up when the test goes on."""
    log: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        try:
            await asyncio.sleep(10)
            yield
        finally:
            await asyncio.sleep(1)
            log.append("closed")

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1), AppClient(Starlette(lifespan=lifespan)):
                raise AssertionError
        assert log == ["closed"]

    run(main)


def test_lifespan_that_is_not_answered(caplog: pytest.LogCaptureFixture) -> None:
    """An app that fails before it answers its lifespan runs without, as on a server: that is said,
    since it may be a mistake."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["path"]
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    async def test(client: AppClient) -> None:
        assert (await client.get("/")).status_code == 204

    visit(app, test)
    assert "the app has not answered its lifespan" in caplog.text
    assert "KeyError: 'path'" in caplog.text


def test_lifespan_that_fails_the_test() -> None:
    """What is no `Exception`, such as `pytest.fail`, is raised from the lifespan all the same."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        pytest.fail("said by the lifespan")

    async def test(client: AppClient) -> None:
        pass

    with pytest.raises(pytest.fail.Exception, match="said by the lifespan"):
        visit(app, test)
