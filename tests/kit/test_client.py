"""The client of the testing kit: the app that it runs."""

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.applications import Starlette

from quattro_web.testing import AppClient, advance
from tests.kit.apps import Shop
from tests.kit.running import run, visit


@pytest.fixture
def shop() -> Shop:
    return Shop()


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
            with pytest.raises(RuntimeError, match="is no longer running"):
                client.start("GET", "/")
        with pytest.raises(RuntimeError, match="create another"):
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
        with pytest.raises(RuntimeError, match=r"call quattro_web\.install\(app\)"):
            await client.shut_down()
        client.start("GET", "/hangs")
        await asyncio.sleep(1)
        for use in (lambda: client.health, lambda: client.app_task_group, client.begin_shutdown):
            with pytest.raises(RuntimeError, match=r"call quattro_web\.install\(app\)"):
                use()

    visit(app, test)


def test_timeout_of_a_request(shop: Shop) -> None:
    """A test that loses its patience with a request leaves it as a client does."""

    async def test(client: AppClient) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await client.get("/slow")
        await advance(0)
        assert "cancelled: the client has disconnected" in shop.log

    visit(shop.app, test)


def test_state_is_a_requests_own() -> None:
    """What a request puts into its state is not in that of the next one."""
    app = FastAPI()

    @app.get("/")
    async def endpoint(request: Request) -> bool:
        was_there = hasattr(request.state, "mine")
        request.state.mine = 1
        return was_there

    async def test(client: AppClient) -> None:
        assert [(await client.get("/")).json() for _ in range(2)] == [False, False]

    visit(app, test)
