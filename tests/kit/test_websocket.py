"""The client of the testing kit: WebSockets."""

from typing import Any

import pytest
from fastapi import FastAPI, WebSocket
from starlette.websockets import WebSocketDisconnect

from quattro_web.testing import AppClient, WebSocketRefusedError, advance
from tests.kit.apps import Shop
from tests.kit.running import visit


@pytest.fixture
def shop() -> Shop:
    return Shop()


def test_websocket_messages(shop: Shop) -> None:
    """Text, bytes and JSON are sent and received."""

    async def test(client: AppClient) -> None:
        async with client.websocket("/socket", headers={"x-one": "1"}) as socket:
            await socket.send_text("text")
            assert await socket.receive_text() == "text"
            await socket.send_bytes(b"bytes")
            assert await socket.receive_bytes() == b"bytes"
            await socket.send_json({"a": 1})
            assert await socket.receive_json() == {"a": 1}
            await socket.send_bytes(b"[1]")
            assert await socket.receive_json() == [1]
            await socket.send_text("text")
            with pytest.raises(TypeError, match="message with bytes was expected, got 'text'"):
                await socket.receive_bytes()
            await socket.send_bytes(b"bytes")
            with pytest.raises(TypeError, match="message with text was expected, got b'bytes'"):
                await socket.receive_text()
            assert repr(socket) == "<WebSocketExchange WebSocket /socket: open>"
        assert "disconnected 1000" in shop.log
        assert repr(socket) == "<WebSocketExchange WebSocket /socket: closed>"
        with pytest.raises(WebSocketDisconnect):
            await socket.send_text("too late")

    visit(shop.app, test)


@pytest.mark.parametrize(("leaves", "code"), [("close", 4001), ("drop", 1006)])
def test_websocket_that_its_client_ends(shop: Shop, leaves: str, code: int) -> None:
    """A client closes with a code, or its connection is lost."""

    async def test(client: AppClient) -> None:
        async with client.websocket("/socket") as socket:
            if leaves == "close":
                socket.close(4001, "I have to go")
                socket.close(4002, "and have gone")
            else:
                socket.drop()
            await socket.wait_finished()
            assert shop.log[-2:] == [f"disconnected {code}", "socket ends"]

    visit(shop.app, test)


def test_websocket_that_the_app_ends(shop: Shop) -> None:
    """R6: A close by the app has its code and its reason."""

    async def test(client: AppClient) -> None:
        async with client.websocket("/socket") as socket:
            await socket.send_text("close")
            with pytest.raises(WebSocketDisconnect) as closed:
                await socket.receive_text()
            assert (closed.value.code, closed.value.reason) == (4000, "as you wish")
            assert (socket.close_code, socket.close_reason) == (4000, "as you wish")

    visit(shop.app, test)


def test_websocket_that_fails(shop: Shop) -> None:
    """R6: A failure of the handler is raised to the test, once; else it is a lost connection."""

    async def raised(client: AppClient) -> None:
        async with client.websocket("/socket") as socket:
            await socket.send_text("fail")
            with pytest.raises(ZeroDivisionError):
                await socket.wait_finished()

    async def raised_where_it_reads(client: AppClient) -> None:
        async with client.websocket("/socket") as socket:
            await socket.send_text("fail")
            with pytest.raises(ZeroDivisionError):
                await socket.receive_text()

    async def told(client: AppClient) -> None:
        async with client.websocket("/socket") as socket:
            await socket.send_text("fail")
            with pytest.raises(WebSocketDisconnect):
                await socket.receive_text()

    async def forgotten(client: AppClient) -> None:
        async with client.websocket("/socket") as socket:
            await socket.send_text("fail")
            await advance(1)

    visit(shop.app, raised)
    visit(Shop().app, raised_where_it_reads)
    with pytest.raises(ZeroDivisionError):
        visit(Shop().app, forgotten)
    visit(Shop().app, told, raise_app_exceptions=False)


def test_websocket_that_returns(shop: Shop) -> None:
    """A handler that returns without a close has lost the connection."""

    async def test(client: AppClient) -> None:
        async with client.websocket("/socket") as socket:
            await socket.send_text("return")
            with pytest.raises(WebSocketDisconnect):
                await socket.receive_text()

    visit(shop.app, test)


@pytest.mark.parametrize(("path", "status"), [("/nowhere", 403), ("/denied", 401)])
def test_websocket_that_is_refused(shop: Shop, path: str, status: int) -> None:
    """A refused WebSocket is an error with the response that a server gives."""

    async def test(client: AppClient) -> None:
        with pytest.raises(WebSocketRefusedError, match=f"refused with status {status}") as refused:
            async with client.websocket(path):
                raise AssertionError
        assert refused.value.response.status_code == status
        assert refused.value.response.text == ("no entry" if status == 401 else "")

    visit(shop.app, test)


def test_websocket_that_talks(shop: Shop) -> None:
    """An app that talks to a client that does not listen has to wait, and sees that it leaves."""

    async def test(client: AppClient) -> None:
        async with client.websocket("/talks", subprotocols=["chat"]) as socket:
            assert socket.subprotocol == "chat"
            await advance(1)
            sent = shop.log.count("sent")
            assert 60 < sent < 70
            assert await socket.receive_bytes() == b"x" * 1000
            await advance(1)
            assert shop.log.count("sent") == sent + 1
            socket.drop()
            await socket.wait_finished()
            assert isinstance(socket.error, WebSocketDisconnect)

    visit(shop.app, test)


def test_message_after_the_close() -> None:
    """An app that sends after its close has failed, and one that receives is told of the close."""
    received: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            received.append(await receive())
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close", "code": 4002})
            received.append(await receive())
            await send({"type": "websocket.send", "text": "late"})

    async def test(client: AppClient) -> None:
        async with client.websocket("/") as socket:
            with pytest.raises(RuntimeError, match="a server expects nothing more"):
                await socket.wait_finished()

    visit(app, test)
    assert received[1] == {"type": "websocket.disconnect", "code": 4002, "reason": ""}


def test_handler_that_learns_of_the_end_by_an_error() -> None:
    """A handler that ends by the `WebSocketDisconnect` of its client's leaving has not failed."""
    app = FastAPI()

    @app.websocket("/echo")
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            await websocket.send_text(await websocket.receive_text())

    async def test(client: AppClient) -> None:
        async with client.websocket("/echo") as socket:
            await socket.send_text("hello")
            assert await socket.receive_text() == "hello"
        assert isinstance(socket.error, WebSocketDisconnect)
        await client.websocket("/echo").__aenter__()  # and one that is left to the end

    visit(app, test)


def test_failed_block_leaves_at_once(shop: Shop) -> None:
    """A block around a WebSocket that fails closes it, and does not wait for the app."""

    async def test(client: AppClient) -> None:
        with pytest.raises(KeyError):
            async with client.websocket("/socket"):
                raise KeyError
        assert "socket ends" not in shop.log
        await advance(0)
        assert shop.log[-2:] == ["disconnected 1000", "socket ends"]

    visit(shop.app, test)
