"""What a server waits for at its shutdown and the app does not see: clients that do not read, and
requests of another app around it."""

import re
import signal
import socket
import sys
from contextlib import closing

import pytest
from websockets.sync.client import connect

from tests.servers.living import Client, Living
from tests.support.limitations import Limitation
from tests.support.server import PATIENCE

# Each as its users start it, with the status of an ordinary stop.
STATUS = {
    "uvicorn": -signal.SIGTERM,
    "uvicorn-2": 0,
    "gunicorn": 0,
    "hypercorn": 0,
    "hypercorn-0": 0,
    "granian": 0,
}
EACH = pytest.mark.parametrize("name", STATUS)


def ends_in_order(server: Living) -> None:
    for lines in server.said().values():
        assert lines[-2:] == ["pump ends", "resources close"]


@EACH
@pytest.mark.parametrize("path", ["/flood", "/heap"])
def test_client_that_does_not_read(name: str, path: str, limitation: Limitation) -> None:
    """A6: A client that has stopped to read a response, be it a stream or a complete one, is named
    in the log, and given up within the grace of requests: the server ends in order, as ever."""
    with Living(name) as server, closing(socket.create_connection(("127.0.0.1", server.port))) as c:
        c.sendall(f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
        server.wait_for(f"{path[1:]} begins")
        assert server.stop() == STATUS[name]
    ends_in_order(server)
    at_the_bound = "has not ended within" in server.log
    if name == "granian":  # of whose connections nothing is seen
        what = "waits for clients that do not read its responses"
        limitation(name, what, remains=at_the_bound)
        assert not at_the_bound or "the server waits for something that" in server.log
        return
    assert not at_the_bound
    assert re.search(
        r"the shutdown drops connections whose clients do not read, after \d+\.\d s: "
        rf"GET {path} from 127\.0\.0\.1:\d+, which has read nothing for \d+\.\d s",
        server.log,
    )


@EACH
def test_websocket_that_does_not_read(name: str, limitation: Limitation) -> None:
    """A6: So it is with a client that has stopped to read a WebSocket."""
    with Living(name) as server:
        url = f"ws://127.0.0.1:{server.port}/torrent"
        with connect(url, open_timeout=PATIENCE, close_timeout=0.1):
            server.wait_for("torrent begins")
            assert server.stop() == STATUS[name]
    if name == "granian" and sys.version_info >= (3, 15):
        # About once in eight times it has dropped an object of Python's in a thread of its own.
        what = "may crash on Python 3.15 as it drops a WebSocket that is not read"
        if limitation(name, what, remains="panicked at" in server.log):
            return
    ends_in_order(server)
    assert "has not ended within" not in server.log
    if name != "granian":  # which drops its WebSockets in any case
        assert re.search(r"do not read, .*: WebSocket /torrent from 127\.0\.0\.1:\d+", server.log)


@EACH
def test_app_around_the_installed_one(name: str) -> None:
    """A6: Requests that another app around the installed one answers have the grace of the others,
    and are cancelled after it: the server ends in order, and the log says where the middleware
    belongs."""
    with Living(name, "outside") as server:
        Client(server, "/poll")
        server.wait_for("poll begins")
        assert server.stop() == STATUS[name]
    ends_in_order(server)
    assert "has not ended within" not in server.log
    assert re.search(r"still open after \d+\.\d s: GET /poll, .*\(outside, .*:\d+\)", server.log)
    assert "TaskGroupMiddleware(socketio.ASGIApp(sio, app))" in server.log


def test_thread_of_an_app_around() -> None:
    """A6, R3: A thread that such a request waits for has ended before it goes on."""
    with Living("uvicorn", "outside") as server:
        Client(server, "/poll?thread")
        Client(server, "/slow")
        server.wait_for("slow begins")
        server.wait_for("work begins")
        server.stop()
    [lines] = server.said().values()
    assert lines[-4:] == ["work is done", "poll ends", "pump ends", "resources close"]


@EACH
def test_middleware_around_everything(name: str) -> None:
    """A6: With the middleware around the other app, its requests are like any other."""
    with Living(name, "inside") as server:
        client = Client(server, "/poll")
        server.wait_for("poll begins")
        assert server.stop() == STATUS[name]
        assert client.result()[0] == 503
    ends_in_order(server)
    assert "has not ended within" not in server.log
    assert "socketio" not in server.log
