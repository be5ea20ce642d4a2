"""Clients of WebSockets: one that keeps to the protocol, and one that may vanish."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.servers.matrix import Matrixed
from tests.support.server import PATIENCE
from tests.support.wire import Wire


@contextmanager
def connected(server: Matrixed, path: str) -> Iterator[ClientConnection]:
    """Open a WebSocket, and close it after the block."""
    url = f"ws://127.0.0.1:{server.port}/ws/{path}"
    with connect(url, open_timeout=PATIENCE, close_timeout=PATIENCE) as websocket:
        yield websocket


def code_of(websocket: ClientConnection) -> int:
    """Wait for the end, and return the code of the close frame; 1006 if there was none."""
    with pytest.raises(ConnectionClosed) as caught:
        websocket.recv(PATIENCE)
    close = caught.value.rcvd
    return 1006 if close is None else close.code


def upgrade(wire: Wire, path: str) -> None:
    """Open a WebSocket by hand, for a client that ends without a closing handshake."""
    fields = [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")]
    wire.ask(f"/ws/{path}", headers=[*fields, ("sec-websocket-key", "MDEyMzQ1Njc4OWFiY2RlZg==")])
    assert wire.head().status == 101
