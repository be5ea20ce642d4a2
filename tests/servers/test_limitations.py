"""What a server can't tell: clients whose leaving it does not notice."""

import time

import pytest

from tests.servers.clients import code_of, connected, upgrade
from tests.servers.matrix import Matrixed
from tests.support.wire import Wire


def _leave_unnoticed(server: Matrixed, wire: Wire, key: str) -> None:
    """Leave, and assert that the handler is there until its gate opens.

    No event can tell that nothing happens: the time is several times what a notice takes.
    """
    wire.close()
    time.sleep(0.3)
    assert server.notes_so_far(key) == ["handler began"]
    server.open(key)
    assert server.notes(key)[1] == "reading"


def test_large_body_that_is_not_read_hides_that_its_client_has_left(
    server: Matrixed, key: str
) -> None:
    """R7: A request with a large body that nobody reads goes on when its client leaves."""
    with Wire(server.port) as wire:
        wire.ask(f"/gate/{key}", method="POST", headers=[("content-length", "1000000")])
        server.wait_for_note(key, "handler began")
        wire.send(b"x" * 200_000)
        _leave_unnoticed(server, wire, key)


def test_pipelined_requests_hide_that_their_client_has_left(server: Matrixed, key: str) -> None:
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
            _leave_unnoticed(server, wire, key)
            server.open(waiting)
    assert "child cancelled" not in " ".join(server.notes_so_far(waiting))


def test_close_waits_for_a_reader(server: Matrixed, key: str) -> None:
    """R6: A child's own close arrives while the handler waits for a message; not on granian,
    which sends it when the next message has come."""
    with connected(server, f"hang-up/{key}") as websocket:
        server.open(key)
        server.wait_for_note(key, "child closes")
        if server.brand == "granian":
            with pytest.raises(TimeoutError):
                websocket.recv(0.3)  # no event can tell that nothing comes
            websocket.send("hello")
        assert code_of(websocket) == 4000
    assert server.notes(key)[-1] == "the app returned"


def test_send_to_a_client_that_has_left(server: Matrixed, key: str) -> None:
    """R6: Only uvicorn tells a handler that sends, and is not watched, that its client has left:
    by a WebSocketDisconnect, which is logged if the handler lets it out."""
    with Wire(server.port) as wire:
        upgrade(wire, f"speak/{key}")
        server.wait_for_note(key, "accepted")
    server.open(key)
    end = "raised WebSocketDisconnect" if server.brand == "uvicorn" else "returned"
    assert server.notes(key)[-1] == f"the app {end}"
