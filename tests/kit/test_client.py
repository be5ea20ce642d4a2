"""The client of the testing kit: the app that it runs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
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


def test_requests_run_in_tasks_of_their_own() -> None:
    """Each request has a task of its own, which is not the test's, as on a server."""
    tasks: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        tasks.append(asyncio.current_task())
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    async def test(client: AppClient) -> None:
        assert (await client.get("/")).status_code == (await client.get("/")).status_code == 204
        tasks.append(asyncio.current_task())

    visit(app, test)
    assert len(set(tasks)) == 4  # with that of the lifespan


def test_background_tasks_are_waited_for(shop: Shop) -> None:
    """A response is returned when the app has finished with it, its background tasks included."""

    async def test(client: AppClient) -> None:
        await client.get("/later")
        assert "background task" in shop.log

    visit(shop.app, test)


def test_app_that_does_not_start(shop: Shop) -> None:
    """What keeps an app from starting is raised as it is."""

    async def pump(*, task_status: Any) -> None:
        raise ZeroDivisionError

    async def main() -> None:
        client = AppClient(Shop(pumps=[pump]).app)
        with pytest.raises(ZeroDivisionError):
            await client.__aenter__()
        with pytest.raises(RuntimeError, match="does not run"):
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


def test_only_while_the_app_runs(shop: Shop) -> None:
    """Before and after the block the client says that the app does not run."""

    async def main() -> None:
        client = AppClient(shop.app)
        for use in (
            lambda: client.start("GET", "/"),
            lambda: client.websocket("/"),
            lambda: client.health,
        ):
            with pytest.raises(RuntimeError, match="use `async with AppClient"):
                use()
        async with client:
            await client.shut_down()
            with pytest.raises(RuntimeError, match="does not run any more"):
                client.start("GET", "/")
        with pytest.raises(RuntimeError, match="make another"):
            await client.__aenter__()

    run(main)


def test_pumps_is_no_name(shop: Shop) -> None:
    """The names of pumps are a collection: one name alone is a mistake."""
    with pytest.raises(TypeError, match="got 'poll'"):
        AppClient(shop.app, pumps="poll")


def test_httpx_in_the_same_run(shop: Shop) -> None:
    """Another client can make requests in the same run of the app."""

    async def test(client: AppClient) -> None:
        transport = httpx.ASGITransport(app=client.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as other:
            assert (await other.get("/echo")).json()["state"] == "shop"

    visit(shop.app, test)


def test_app_that_is_not_installed() -> None:
    """An app without groups is served all the same; what needs them says so."""

    async def endpoint(request: Any) -> Any:
        await asyncio.Event().wait()

    app = Starlette()
    app.add_route("/hangs", endpoint)

    async def test(client: AppClient) -> None:
        assert (await client.get("/")).status_code == 404
        client.start("GET", "/hangs")
        await asyncio.sleep(1)
        for use in (lambda: client.health, lambda: client.app_group, client.begin_shutdown):
            with pytest.raises(RuntimeError, match=r"call quattro_web\.install\(app\)"):
                use()

    visit(app, test)


def test_timeout_of_a_request(shop: Shop) -> None:
    """A test that loses its patience with a request leaves it as a client does."""

    async def test(client: AppClient) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await client.get("/slow")

    visit(shop.app, test)
    assert "cancelled: the client has disconnected" in shop.log


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
