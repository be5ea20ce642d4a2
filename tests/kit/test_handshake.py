"""What a WebSocket is opened with."""

import asyncio
from typing import Any

import pytest
from starlette.datastructures import Headers

from quattro_web.testing import AppClient, advance
from tests.kit.running import visit


def test_handshake() -> None:
    """The headers of a handshake reach the app, and those of its answer the client."""
    seen: dict[str, str] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            seen.update(Headers(scope=scope), known=" ".join(scope["subprotocols"]))
            await send({"type": "websocket.accept", "headers": [(b"Set-Cookie", b"a=1")]})

    async def test(client: AppClient) -> None:
        own = {"X-Own": "2"}
        async with client.websocket("/", headers=own, subprotocols=["one", "two"]) as socket:
            assert socket.headers["set-cookie"] == "a=1"

    visit(app, test, headers={"X-Every": "1"})
    assert (seen["x-every"], seen["x-own"]) == ("1", "2")
    assert seen["upgrade"] == "websocket"
    assert seen["sec-websocket-protocol"] == "one, two"
    assert seen["known"] == "one two"


def test_timeout_of_a_handshake() -> None:
    """A test that loses its patience with a handshake leaves it as a client does."""
    received: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while scope["type"] == "websocket":
            received.append((await receive())["type"])
            if received[-1] == "websocket.disconnect":
                return

    async def test(client: AppClient) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1), client.websocket("/"):
                raise AssertionError
        await advance(0)
        assert received == ["websocket.connect", "websocket.disconnect"]

    visit(app, test)
