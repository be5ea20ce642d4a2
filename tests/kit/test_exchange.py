"""The client of the testing kit: clients that leave, and upload piece by piece."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from quattro_web.testing import AppClient, HTTPExchange, ResponseCutError, advance
from tests.kit.apps import Shop
from tests.kit.running import visit

Wait = Callable[[HTTPExchange], Coroutine[Any, Any, Any]]


@pytest.fixture
def shop() -> Shop:
    return Shop()


def test_disconnect_in_mid_request(shop: Shop) -> None:
    """A client that leaves cancels the request that has asked for that."""

    async def test(client: AppClient) -> None:
        exchange = client.start("GET", "/slow")
        await advance(1)
        with pytest.raises(RuntimeError, match="has not begun"):
            assert exchange.status_code
        assert repr(exchange) == "<HTTPExchange GET /slow: no response yet>"
        exchange.disconnect()
        await exchange.wait_finished()
        assert shop.log[-1] == "cancelled: the client has disconnected"
        assert not exchange.is_complete
        with pytest.raises(ResponseCutError, match="the client has left GET /slow after 0 bytes"):
            await exchange.response()
        with pytest.raises(ResponseCutError):
            await exchange.chunk()
        with pytest.raises(ResponseCutError):
            await exchange.wait_started()

    visit(shop.app, test)


@pytest.mark.parametrize("wait", [HTTPExchange.wait_started, HTTPExchange.chunk])
def test_wait_of_a_client_that_has_left(shop: Shop, wait: Wait) -> None:
    """A client that has left gets nothing any more, however long the app still goes on."""

    async def test(client: AppClient) -> None:
        exchange = client.start("GET", "/stubborn")
        waiting = asyncio.create_task(wait(exchange))
        await advance(1)
        exchange.disconnect()
        with pytest.raises(ResponseCutError, match="the client has left"):
            await waiting
        assert "stubborn ends" not in shop.log

    visit(shop.app, test)


@pytest.mark.parametrize(
    "wait", [HTTPExchange.wait_started, HTTPExchange.chunk, HTTPExchange.wait_finished]
)
def test_wait_for_an_app_that_fails(wait: Wait) -> None:
    """What the app raises instead of a response is raised by what waits for it, once."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            raise ZeroDivisionError

    async def test(client: AppClient) -> None:
        with pytest.raises(ZeroDivisionError):
            await wait(client.start("GET", "/"))

    visit(app, test)


def test_app_that_goes_on_after_its_response() -> None:
    """The last chunk is the last one, though the app has not finished; the end of the block, which
    waits for that, has read all of it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"one", "more_body": True})
            await send({"type": "http.response.body", "body": b"two"})
            await asyncio.sleep(10)

    async def test(client: AppClient) -> None:
        now = asyncio.get_running_loop().time
        async with client.start("GET", "/") as exchange:
            assert [chunk async for chunk in exchange] == [b"one", b"two"]
            assert now() == 0
        assert now() == 10
        async with client.start("GET", "/") as exchange:
            assert await exchange.chunk() == b"one"
            await advance(1)
            assert exchange.content == b"one"
        assert exchange.content == b"onetwo"

    visit(app, test)


def test_request_that_goes_on_without_its_client(shop: Shop) -> None:
    """A request that has not asked for it goes on when its client leaves, as on a server."""

    async def test(client: AppClient) -> None:
        async with client.start("GET", "/stubborn") as exchange:
            await advance(1)
        assert shop.log[-1] == "stubborn ends"
        assert not exchange.is_complete
        assert exchange.error is None

    visit(shop.app, test)


def test_failed_block_leaves_at_once(shop: Shop) -> None:
    """A block around a request that fails does not wait for the request."""

    async def test(client: AppClient) -> None:
        with pytest.raises(ZeroDivisionError):
            async with client.start("GET", "/stubborn"):
                raise ZeroDivisionError
        assert "stubborn ends" not in shop.log

    visit(shop.app, test)


def test_upload_piece_by_piece(shop: Shop) -> None:
    """The body of a request arrives in the pieces in which it is sent, before a disconnect."""

    async def test(client: AppClient) -> None:
        exchange = client.start("POST", "/upload", content=b"one", more_content=True)
        exchange.upload(b"two")
        await advance(5)
        exchange.upload(b"three", more=False)
        response = await exchange.response()
        assert [piece for piece in response.json() if piece] == ["one", "two", "three"]
        with pytest.raises(RuntimeError, match="is complete"):
            exchange.upload(b"four")

    visit(shop.app, test)


def test_drop_in_mid_upload(shop: Shop) -> None:
    """An app that reads a body whose client leaves fails as on a server; that is no failure of
    the test, which has let it leave."""

    async def test(client: AppClient) -> None:
        exchange = client.start("POST", "/upload", more_content=True)
        await advance(1)
        exchange.disconnect()
        with pytest.raises(RuntimeError, match="the client has left"):
            exchange.upload(b"too late")
        await exchange.wait_finished()
        assert not exchange.is_complete
        assert isinstance(exchange.error, ClientDisconnect)

    visit(shop.app, test)


def test_client_that_has_not_left(shop: Shop) -> None:
    """An app that takes its client for gone, while it is there, has failed."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            raise ClientDisconnect

    async def test(client: AppClient) -> None:
        with pytest.raises(ClientDisconnect):
            await client.get("/")

    visit(app, test)


def test_failure_after_the_client_has_left(shop: Shop) -> None:
    """What else an app raises when its client has left is raised to the test."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            while (await receive())["type"] != "http.disconnect":
                pass
            raise ExceptionGroup("both", [ClientDisconnect(), ZeroDivisionError()])

    async def test(client: AppClient) -> None:
        exchange = client.start("GET", "/")
        await advance(1)
        exchange.disconnect()
        with pytest.raises(ExceptionGroup, match="both"):
            await exchange.wait_finished()

    visit(app, test)


def test_open_clients_leave_at_the_end(shop: Shop) -> None:
    """When the block of the client ends, whoever is still there leaves first."""

    async def test(client: AppClient) -> None:
        client.start("GET", "/slow")
        await client.websocket("/socket").__aenter__()
        client.start("GET", "/endless")
        await asyncio.sleep(1)

    visit(shop.app, test)
    assert "cancelled: the client has disconnected" in shop.log
    assert "disconnected 1006" in shop.log
