"""Clients that leave the streams and WebSockets of the pages, on a real server.

Whatever a client does as clients do, the log of the server complains of nothing.
"""

import re
import socket
from typing import Any

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

from tests.docs.live import live
from tests.support.server import PATIENCE, Server

WEBSOCKETS = [
    ("docs/streams.md", "app", "/ticks"),
    ("docs/tutorial-starlette.md", "app", "/prices"),
]
STREAMS = [
    ("docs/how-to/llm-stream.md", "app", "/answers?prompt=tea"),
    ("docs/streams.md", "app", "/events"),
    ("docs/shutdown.md", "app", "/ticks"),
    ("docs/tutorial-starlette.md", "app", "/prices/live"),
]
COMPLAINT = re.compile(r"Traceback|Error|Exception|WARNING|ERROR|CRITICAL|Disconnect")
IMPLEMENTATIONS = ("websockets", "websockets-sansio", "wsproto")


def close(websocket: ClientConnection) -> None:
    """Leave with a closing handshake."""
    websocket.close()


def go_away(websocket: ClientConnection) -> None:
    """Leave as a browser does whose page is closed."""
    websocket.close(1001)


def vanish(websocket: ClientConnection) -> None:
    """Leave without a word, as a client whose network is gone."""
    websocket.socket.shutdown(socket.SHUT_RDWR)


def stop(websocket: ClientConnection) -> None:
    """Say that it is enough, and let the server close."""
    websocket.send("stop")


def complaints(server: Server) -> list[str]:
    """Stop the server, which waits for its connections, and return the lines that complain."""
    server.stop()
    return [line for line in server.log.splitlines() if COMPLAINT.search(line)]


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request: pytest.FixtureRequest) -> Any:
    """Each of uvicorn's implementations of WebSockets."""
    return request.param


@pytest.mark.parametrize(("page", "app", "path"), WEBSOCKETS)
def test_leaving_a_websocket(page: str, app: str, path: str, implementation: str) -> None:
    """R6: A client that leaves a WebSocket of the pages, however it does, leaves nothing in the
    log."""
    with live(page, app, "--ws", implementation) as server:
        for leave in (close, go_away, vanish, stop):
            url = f"ws://127.0.0.1:{server.port}{path}"
            with connect(url, open_timeout=PATIENCE, close_timeout=PATIENCE) as websocket:
                assert websocket.recv(PATIENCE)
                leave(websocket)
        assert complaints(server) == []


@pytest.mark.parametrize(("page", "app", "path"), STREAMS)
def test_leaving_a_stream(page: str, app: str, path: str) -> None:
    """A client that leaves a stream of the pages leaves nothing in the log."""
    with live(page, app) as server:
        for _ in range(3):
            url = f"http://127.0.0.1:{server.port}{path}"
            with httpx.stream("GET", url, timeout=PATIENCE) as response:
                assert next(response.iter_raw())
        assert complaints(server) == []
