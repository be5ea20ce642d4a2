"""When responses leave, on each server."""

from tests.servers.matrix import Matrixed
from tests.support.wire import Wire

LEAVES = "http.response.start leaves"


def test_ordinary_response_leaves_after_the_children(server: Matrixed, key: str) -> None:
    """R2: No byte of an ordinary response leaves before its children have ended."""
    with Wire(server.port) as wire:
        wire.ask(f"/hold/{key}")
        server.wait_for_note(key, "handler returned")
        server.barrier()
        assert not wire.has_data()
        server.open(key)
        assert wire.answer().text == "held"
    assert server.notes(key) == ["handler returned", "child ended", LEAVES, "the app returned"]


def test_chunks_leave_as_they_are_made(server: Matrixed, key: str) -> None:
    """R2: Chunks of a stream leave as its children make them, and its end waits for these."""
    with Wire(server.port) as wire:
        wire.ask(f"/stream/{key}")
        assert wire.head().status == 200
        assert wire.chunk() == b"one"
        assert not wire.has_data()
        server.open(key)
        assert wire.chunk() == b"two"
        server.wait_for_note(key, "body ended")
        server.barrier()
        assert not wire.has_data()
        server.open(key)
        assert wire.chunk() == b""
    assert server.notes(key) == [LEAVES, "body ended", "child ended", "the app returned"]


def test_requests_in_a_row(server: Matrixed, key: str) -> None:
    """R2: A connection serves one request after the other, also after one that has failed."""
    with Wire(server.port) as wire:
        statuses = []
        for number, path in enumerate(("after", "refuse", "late", "after", "refuse")):
            statuses.append(wire.get(f"/{path}/{key}-{number}").status)
            server.open(f"{key}-{number}")
    assert statuses == [200, 403, 504, 200, 403]


def test_pipelined_requests(server: Matrixed, key: str) -> None:
    """R2: Requests that are sent at once are answered in order, each after its own children."""
    with Wire(server.port) as wire:
        wire.ask(f"/hold/{key}-1", f"/refuse/{key}-2", f"/hold/{key}-3")
        server.wait_for_note(f"{key}-1", "handler returned")
        assert not wire.has_data()
        server.open(f"{key}-3")
        server.open(f"{key}-1")
        assert [wire.answer().status for _ in range(3)] == [200, 403, 200]
    assert server.notes(f"{key}-3")[:2] == ["handler returned", "child ended"]
