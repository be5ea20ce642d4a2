"""Clients that leave, on each server."""

import pytest

from tests.servers.matrix import Matrixed
from tests.support.limitations import Limitation
from tests.support.wire import CutError, Wire

REASON = "the client has disconnected"
LEAVING = pytest.mark.parametrize("leave", [Wire.close, Wire.reset, Wire.half_close])


@LEAVING
def test_handler_and_children_are_cancelled(server: Matrixed, key: str, leave: object) -> None:
    """R7: A client that leaves, in any way, cancels the handler and all children, once."""
    assert callable(leave)
    with server.quiet(), Wire(server.port) as wire:
        wire.ask(f"/hang/{key}")
        server.wait_for_note(key, "handler began")
        leave(wire)
        notes = server.notes(key)
    assert notes[-1] == "the app returned"
    for name in ("handler", "child", "pump"):
        assert notes.count(f"{name} cancelled: {REASON}") == 1
        assert notes.count(f"{name} ended") == 1
    assert notes.index("noticed") < notes.index(f"handler cancelled: {REASON}")


@pytest.mark.parametrize("leave", [Wire.close, Wire.reset])
def test_stream_ends_with_its_client(server: Matrixed, key: str, leave: object) -> None:
    """R7: A client that leaves in the middle of a stream cancels what makes its chunks."""
    assert callable(leave)
    with server.quiet(), Wire(server.port) as wire:
        wire.ask(f"/endless/{key}")
        assert wire.head().status == 200
        assert wire.chunk() == b"one"
        leave(wire)
        notes = server.notes(key)
    assert notes[-1] == "the app returned"
    assert f"child cancelled: {REASON}" in notes
    assert "child ended" in notes
    assert any(note.startswith("body cancelled") for note in notes)


def test_where_it_was_not_asked_for(server: Matrixed, key: str) -> None:
    """R7: A handler that has not asked for it goes on to its end when the client has left."""
    with server.quiet(), Wire(server.port) as wire:
        wire.ask(f"/stay/{key}")
        server.wait_for_note(key, "handler began")
        wire.close()
        server.open(key)
        notes = server.notes(key)
    assert "handler ended" in notes
    assert notes[-1] == "the app returned"


def test_answer_after_a_half_close(server: Matrixed, key: str, limitation: Limitation) -> None:
    """R7: Only hypercorn answers a client that has shut down its sending side, where no
    disconnect cancels the handler; the others close the connection at once."""
    with Wire(server.port) as wire:
        wire.ask(f"/stay/{key}")
        server.wait_for_note(key, "handler began")
        wire.half_close()
        server.barrier()  # its own connection comes after the end of that one
        server.open(key)
        try:
            text = wire.answer().text
        except CutError:
            text = ""
        if server.brand != "hypercorn":
            what = "closes the connection of a client that has shut down its sending side"
            limitation(server.brand, f"({server.parts}) {what}", remains=not text)
    assert text == "stayed" or (not text and server.brand != "hypercorn")
    assert "handler ended" in server.notes(key)


def test_nothing_is_cancelled_after_the_response(server: Matrixed, key: str) -> None:
    """R7: A client that has its answer may leave: the BackgroundTasks run to their end."""
    with server.quiet(), Wire(server.port) as wire:
        assert wire.get(f"/after/{key}").text == "done"
        wire.close()
        server.open(key)
        notes = server.notes(key)
    assert notes[-2:] == ["background task done", "the app returned"]
    assert "noticed" not in notes


def test_client_that_leaves_in_mid_upload(server: Matrixed, key: str) -> None:
    """R7: A client that leaves in the middle of its upload cancels the handler that reads it."""
    with server.quiet(), Wire(server.port) as wire:
        wire.ask(f"/upload/{key}", method="POST", headers=[("content-length", "1000")])
        server.wait_for_note(key, "watched")
        wire.send(b"x" * 10)
        server.wait_for_note(key, "has 10")
        wire.close()
        notes = server.notes(key)
    assert notes[-1] == "the app returned"


def test_client_whose_body_is_not_read(server: Matrixed, key: str) -> None:
    """R7: A small body that the handler does not read hides nothing: its client is missed."""
    with server.quiet(), Wire(server.port) as wire:
        wire.ask(f"/gate/{key}", method="POST", body=b"x" * 10)
        server.wait_for_note(key, "handler began")
        wire.close()
        notes = server.notes(key)
    assert f"handler cancelled: {REASON}" in notes
