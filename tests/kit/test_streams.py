"""The client of the testing kit: streams, read chunk by chunk."""

from typing import Any

import pytest

from quattro_web.testing import AppClient, ResponseCutError, advance
from tests.kit.apps import Shop
from tests.kit.running import visit


@pytest.fixture
def shop() -> Shop:
    return Shop()


def test_drop_in_mid_stream(shop: Shop) -> None:
    """A stream that never ends is read chunk by chunk, and ends when the client leaves."""

    async def test(client: AppClient) -> None:
        async with client.start("GET", "/endless") as exchange:
            assert (await exchange.wait_started()).status_code == 200
            first = [await exchange.chunk() for _ in range(2)]
            assert first == [b"0;" + b"x" * 1000, b"1;" + b"x" * 1000]
            assert exchange.content == b"".join(chunk for chunk in first if chunk)
            assert repr(exchange) == "<HTTPExchange GET /endless: 200>"
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
        await exchange.wait_finished()

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
    """What breaks a stream is raised where the test reads on, once, or else by the block."""

    async def test(client: AppClient) -> None:
        async with client.start("GET", "/cut") as exchange:
            assert await exchange.chunk() == b"half"
            with pytest.raises(ConnectionError):
                await exchange.chunk()
        with pytest.raises(ConnectionError):
            async with client.start("GET", "/cut") as exchange:
                assert await exchange.chunk() == b"half"
                await advance(1)

    visit(shop.app, test)


def test_long_response_is_read_on(shop: Shop) -> None:
    """A test that waits for a whole response reads it, however long it is."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200})
            for _ in range(10):
                body = b"x" * 65536
                await send({"type": "http.response.body", "body": body, "more_body": True})
            await send({"type": "http.response.body"})

    async def test(client: AppClient) -> None:
        assert len((await client.get("/")).content) == 10 * 65536
        exchange = client.start("GET", "/")
        await advance(1)
        assert len((await exchange.response()).content) == 10 * 65536

    visit(app, test)
