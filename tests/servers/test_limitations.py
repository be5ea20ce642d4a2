"""What a server can't tell: clients whose leaving it does not notice.

Each of these tests passes where its server has learnt it, and the end of the run says so.
"""

import platform
import sys
import time
from importlib.metadata import version

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.servers.clients import code_of, connected, upgrade
from tests.servers.matrix import Matrixed, need
from tests.support.limitations import PROPERTY, Limitation, line, summary
from tests.support.server import PATIENCE, Server, granian
from tests.support.wire import Wire

# No event can tell that nothing happens: several times what a notice takes, in seconds. Where a
# machine is so busy that it takes longer, a limitation that is gone seems to be there; no more.
A_WHILE = 0.3


def _leaves_unnoticed(server: Matrixed, wire: Wire, key: str) -> bool:
    """Leave, and tell whether the handler was there until its gate opened."""
    wire.close()
    time.sleep(A_WHILE)
    server.open(key)
    began, then, *_ = server.notes(key)
    assert began == "handler began"
    assert then in {"reading", "noticed"}
    return then == "reading"


def test_large_body_that_is_not_read_hides_that_its_client_has_left(
    server: Matrixed, key: str, limitation: Limitation
) -> None:
    """R7: A request with a large body that nobody reads goes on when its client leaves."""
    with Wire(server.port) as wire:
        wire.ask(f"/gate/{key}", method="POST", headers=[("content-length", "1000000")])
        server.wait_for_note(key, "handler began")
        wire.send(b"x" * 200_000)
        remains = _leaves_unnoticed(server, wire, key)
    what = "does not see a client leave behind a large body that is not read"
    limitation(server.brand, f"({server.parts}) {what}", remains=remains)


def test_pipelined_requests_hide_that_their_client_has_left(
    server: Matrixed, key: str, limitation: Limitation
) -> None:
    """R7: While requests wait behind this one, only uvicorn with h11 notices that their client
    has left; the others notice when their turn comes."""
    waiting = f"{key}-waiting"
    with Wire(server.port) as wire:
        wire.ask(f"/gate/{key}", f"/hold/{waiting}")
        server.wait_for_note(key, "handler began")
        if server.name.startswith("uvicorn-h11"):
            wire.close()
            assert "handler cancelled: the client has disconnected" in server.notes(key)
        else:
            remains = _leaves_unnoticed(server, wire, key)
            what = "does not see a client leave behind pipelined requests"
            limitation(server.brand, f"({server.parts}) {what}", remains=remains)
            server.open(waiting)
    assert "child cancelled" not in " ".join(server.notes_so_far(waiting))


def test_close_waits_for_a_reader(server: Matrixed, key: str, limitation: Limitation) -> None:
    """R6: A child's own close arrives while the handler waits for a message; not on granian
    before 2.8.9, which sends it when the next message has come."""
    with connected(server, f"hang-up/{key}") as websocket:
        server.open(key)
        server.wait_for_note(key, "child closes")
        if server.brand == "granian":
            try:
                websocket.recv(2)  # longer than A_WHILE, since the one that is repaired waits less
            except TimeoutError:
                remains = True
                websocket.send("hello")
            except ConnectionClosed:
                remains = False
            what = "sends a WebSocket's close only after the next message, if that is awaited"
            limitation("granian", what, remains=remains)
        assert code_of(websocket) == 4000
    assert server.notes(key)[-1] == "the app returned"


def test_websocket_in_debug_mode(limitation: Limitation) -> None:
    """granian serves WebSockets under uvloop in asyncio's debug mode, but on Python 3.15: there it
    answers nothing after the handshake, whatever the app. Its other tests run without that mode."""
    need("granian", "uvloop")
    with Server(granian("tests.servers.plain:app", "--loop", "uvloop")) as server:
        with connect(f"ws://127.0.0.1:{server.port}/", close_timeout=1) as websocket:
            try:
                websocket.recv(5 if sys.version_info >= (3, 15) else PATIENCE)
            except TimeoutError:
                remains = True
            except ConnectionClosed:
                remains = False
    if sys.version_info >= (3, 15):
        what = "under uvloop answers nothing over WebSockets in debug mode (so it is off in tests)"
        limitation("granian", what, remains=remains)
    else:
        assert not remains


def test_send_to_a_client_that_has_left(server: Matrixed, key: str, limitation: Limitation) -> None:
    """R6: Only uvicorn tells a handler that sends, and is not watched, that its client has left:
    by a WebSocketDisconnect, which is logged if the handler lets it out."""
    with Wire(server.port) as wire:
        upgrade(wire, f"speak/{key}")
        server.wait_for_note(key, "accepted")
    server.open(key)
    if server.brand != "uvicorn":
        time.sleep(A_WHILE)
        server.open(key)  # it is not told, and may end
    is_told = server.notes(key)[-1] == "the app raised WebSocketDisconnect"
    if server.brand != "uvicorn":
        what = "does not tell a WebSocket's handler that sends that its client has left"
        limitation(server.brand, f"({server.parts}) {what}", remains=not is_told)
    else:
        assert is_told


def test_what_a_run_says_of_limitations() -> None:
    """The end of a run has a line for each limitation that was met, with the version of whose it
    is, and says which are repaired."""
    lines = [
        line("granian", "hangs", remains=False),
        line("CPython", "hangs", remains=True),
        line("granian", "hangs", remains=False),
    ]
    reports = [
        pytest.TestReport(
            "a_test", ("", 0, ""), {}, "passed", None, "call", user_properties=[(PROPERTY, each)]
        )
        for each in lines
    ]
    assert summary([*reports, "no report"]) == [
        f"CPython {platform.python_version()} hangs: still there",
        f"granian {version('granian')} hangs: repaired",
    ]
