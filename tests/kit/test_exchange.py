"""The client of the testing kit: clients that leave, upload and read piece by piece."""

import asyncio
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from quattro_web.testing import AppClient, ResponseCutError, advance
from tests.kit.apps import Shop
from tests.kit.running import visit


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
        assert repr(exchange) == "<Exchange GET /slow: no response yet>"
        exchange.disconnect()
        await exchange.finished()
        assert shop.log[-1] == "cancelled: the client has disconnected"
        assert not exchange.is_complete
        with pytest.raises(ResponseCutError, match="the client has left GET /slow after 0 bytes"):
            await exchange.response()
        with pytest.raises(ResponseCutError):
            await exchange.chunk()
        with pytest.raises(ResponseCutError):
            await exchange.started()

    visit(shop.app, test)


def test_request_that_goes_on_without_its_client(shop: Shop) -> None:
    """A request that has not asked for it goes on when its client leaves, as on a server."""

    async def test(client: AppClient) -> None:
        async with client.start("GET", "/stubborn") as exchange:
            await advance(1)
        assert shop.log[-1] == "stubborn ends"
        assert not exchange.is_complete
        assert exchange.error is None

    visit(shop.app, test)


def test_drop_in_mid_stream(shop: Shop) -> None:
    """A stream that never ends is read chunk by chunk, and ends when the client leaves."""

    async def test(client: AppClient) -> None:
        async with client.start("GET", "/endless") as exchange:
            assert (await exchange.started()).status_code == 200
            first = [await exchange.chunk() for _ in range(2)]
            assert first == [b"0;" + b"x" * 1000, b"1;" + b"x" * 1000]
            assert exchange.content == b"".join(chunk for chunk in first if chunk)
            assert repr(exchange) == "<Exchange GET /endless: 200>"
        chunks = len(shop.log)
        await advance(1)
        assert len(shop.log) == chunks
        with pytest.raises(RuntimeError, match="more_content=True"):
            exchange.upload(b"")

    visit(shop.app, test)


def test_stream_waits_for_a_client_that_does_not_read(shop: Shop) -> None:
    """An app that sends faster than its client reads has to wait, as on a server."""

    async def test(client: AppClient) -> None:
        exchange = client.start("GET", "/endless")
        await advance(1)
        sent = len(shop.log)
        assert 60 < sent < 70
        await advance(10)
        assert len(shop.log) == sent
        async for chunk in exchange:
            if chunk.startswith(b"100;"):
                break
        exchange.disconnect()
        await exchange.finished()

    visit(shop.app, test)


def test_stream_to_its_end(shop: Shop) -> None:
    """Iterating over a response gives its chunks, and ends with it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"  # it has no lifespan
        await send({"type": "http.response.start", "status": 200})
        for body in (b"one", b"", b"two"):
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"three"})
        assert (await receive())["type"] == "http.request"
        assert (await receive())["type"] == "http.disconnect"  # since the response is complete

    async def test(client: AppClient) -> None:
        async with client.start("GET", "/") as exchange:
            assert [chunk async for chunk in exchange] == [b"one", b"two", b"three"]
            assert exchange.is_complete
            assert (await exchange.response()).content == b"onetwothree"

    visit(app, test)


def test_response_that_is_cut(shop: Shop) -> None:
    """R5: A stream that fails can be told from a complete one: the client has an error."""

    async def test(client: AppClient) -> None:
        exchange = client.start("GET", "/cut")
        assert await exchange.chunk() == b"half"
        with pytest.raises(ResponseCutError, match="the app has cut GET /cut after 4 bytes"):
            await exchange.chunk()
        assert isinstance(exchange.error, Exception)

    visit(shop.app, test, raise_app_exceptions=False)


def test_failure_of_a_stream_is_raised(shop: Shop) -> None:
    """What breaks a stream is raised where the test reads on."""

    async def test(client: AppClient) -> None:
        exchange = client.start("GET", "/cut")
        assert await exchange.chunk() == b"half"
        with pytest.raises(ConnectionError):
            await exchange.chunk()

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
        await exchange.finished()
        assert not exchange.is_complete
        assert isinstance(exchange.error, ClientDisconnect)

    visit(shop.app, test)


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
            await exchange.finished()

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
