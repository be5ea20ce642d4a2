"""How WebSockets end, on each server."""

import pytest
from websockets.exceptions import InvalidStatus

from tests.servers.clients import code_of, connected, upgrade
from tests.servers.matrix import Matrixed
from tests.support.limitations import Limitation
from tests.support.server import PATIENCE
from tests.support.wire import Wire


def test_failure_of_a_child(server: Matrixed, key: str) -> None:
    """R6: A child's failure closes with 1011, and its traceback is logged."""
    with connected(server, f"fail/{key}") as websocket:
        server.open(key)
        assert code_of(websocket) == 1011
    server.wait_for(rf"ZeroDivisionError: a bug in {key}$")


def test_failure_of_the_handler(server: Matrixed, key: str) -> None:
    """R6: A handler that raises closes with 1011, when its children have ended."""
    with connected(server, f"blunder/{key}") as websocket:
        server.open(key)
        assert code_of(websocket) == 1011
    notes = server.notes(key)
    assert notes.index("child ended") < notes.index("websocket.close leaves")
    server.wait_for(rf"ZeroDivisionError: a bug in {key}$")


def test_code_of_a_child(server: Matrixed, key: str) -> None:
    """R6: A WebSocketException of a child closes with its own code and reason."""
    with server.quiet(), connected(server, f"code/{key}") as websocket:
        server.open(key)
        assert code_of(websocket) == 4321
        assert websocket.close_reason == "for a reason"
    assert "handler ended" in server.notes(key)


def test_child_that_denies(server: Matrixed, key: str) -> None:
    """R6: An HTTPException of a child before the WebSocket is accepted is an HTTP response."""
    with server.quiet(), pytest.raises(InvalidStatus) as caught:
        with connected(server, f"deny/{key}"):
            raise AssertionError
    assert caught.value.response.status_code == 403
    assert b"not yours" in (caught.value.response.body or b"")


def test_deadline_of_a_websocket(server: Matrixed, key: str) -> None:
    """R8: A WebSocket that was given a deadline is closed with 1011."""
    with server.quiet(), connected(server, f"late/{key}") as websocket:
        assert code_of(websocket) == 1011
    assert "child cancelled: the deadline of the request has passed" in server.notes(key)


def test_children_end_before_the_close(server: Matrixed, key: str) -> None:
    """R6: Children are awaited, and pumps cancelled, before the handler's close leaves."""
    with server.quiet(), connected(server, f"linger/{key}") as websocket:
        websocket.send("close")
        server.wait_for_note(key, "handler returns")
        with pytest.raises(TimeoutError):
            websocket.recv(0)
        server.open(key)
        assert code_of(websocket) == 4000
    notes = [note for note in server.notes(key) if "cancelled" not in note]
    assert notes == [
        "handler returns",
        "child ended",
        "pump ended",
        "websocket.close leaves",
        "the app returned",
    ]


@pytest.mark.parametrize("scene", ["part", "part-with-children"])
def test_close_while_the_client_is_watched(server: Matrixed, key: str, scene: str) -> None:
    """R6, R7: A handler's close arrives, though the server is being asked for what comes next in
    order to know when the client leaves."""
    with server.quiet(), connected(server, f"{scene}/{key}") as websocket:
        assert code_of(websocket) == 4000
        assert server.notes(key)[-1] == "the app returned"


def test_handler_that_returns_without_a_close(
    server: Matrixed, key: str, limitation: Limitation
) -> None:
    """R6: A handler that returns without a close: the end waits for the children, and the
    server chooses the code: uvicorn sends none, hypercorn 1011, granian an empty one."""
    with server.quiet(), connected(server, f"linger/{key}") as websocket:
        websocket.send("return")
        server.wait_for_note(key, "handler returns")
        with pytest.raises(TimeoutError):
            websocket.recv(0)
        server.open(key)
        code = code_of(websocket)
    odd = {"uvicorn": 1006, "hypercorn": 1011, "granian": 1005}[server.brand]
    assert code in {odd, 1000}
    what = f"ends a WebSocket with {odd} if its handler returns without a close"
    limitation(server.brand, f"({server.parts}) {what}", remains=code == odd)
    assert {"child ended", "pump ended"} <= {*server.notes(key)}


@pytest.mark.parametrize("scene", ["chat", "push"])
def test_client_that_closes(server: Matrixed, key: str, scene: str) -> None:
    """R6, R7: A client that closes ends the children, whether the handler reads or, where it
    asked for that, only sends."""
    with server.quiet(), connected(server, f"{scene}/{key}") as websocket:
        if scene == "chat":
            websocket.send("hello")
        assert websocket.recv(PATIENCE) == "hello"
        websocket.close()
        notes = server.notes(key)
    assert notes[-1] == "the app returned"
    assert notes.count("child ended") == 1


@pytest.mark.parametrize("scene", ["chat", "push"])
@pytest.mark.parametrize("leave", [Wire.close, Wire.reset])
def test_client_that_vanishes(server: Matrixed, key: str, scene: str, leave: object) -> None:
    """R6, R7: So does a client that vanishes without a closing handshake."""
    assert callable(leave)
    with server.quiet(), Wire(server.port) as wire:
        upgrade(wire, f"{scene}/{key}")
        server.wait_for_note(key, "accepted")
        leave(wire)
        notes = server.notes(key)
    assert notes[-1] == "the app returned"
    assert notes.count("child ended") == 1


def test_other_end_of_a_silent_handler(server: Matrixed, key: str) -> None:
    """R7: A handler that only sends is cancelled with a reason when its client closes."""
    with connected(server, f"push/{key}") as websocket:
        assert websocket.recv(PATIENCE) == "hello"
    notes = server.notes(key)
    for name in ("handler", "child"):
        assert notes.count(f"{name} cancelled: the client has disconnected") == 1
