"""Responses of a real server: when they leave, and what a failure makes of them."""

from itertools import pairwise

import pytest

from tests.e2e.conftest import APPS, PROTOCOLS
from tests.support.server import Server, uvicorn
from tests.support.wire import Wire

ORIGIN = [("origin", "https://elsewhere.example")]


@pytest.fixture(params=[(app, http) for app in APPS for http in PROTOCOLS])
def gated(request: pytest.FixtureRequest) -> Server:
    """A server of its own, since the gate opens once."""
    app, http = request.param
    return Server(uvicorn(f"tests.e2e.apps:{app}", "--http", http))


def test_ordinary_response_waits_for_the_children(gated: Server) -> None:
    """R2: No byte of an ordinary response leaves before its children have ended."""
    with gated, Wire(gated.port) as held, Wire(gated.port) as other:
        held.ask("/hold")
        while "handler returned" not in other.get("/notes").text:
            pass
        assert other.get("/notes").text == "handler returned"
        assert not held.has_data()
        other.get("/open")
        assert held.answer().text == "held"
        assert other.get("/notes").text == "handler returned, child ended"


def test_streamed_chunks_leave_as_they_are_made(gated: Server) -> None:
    """R2: A chunk of a stream leaves while the child that makes the next one is at work."""
    with gated, Wire(gated.port) as stream, Wire(gated.port) as other:
        stream.ask("/stream")
        assert stream.head().status == 200
        assert stream.chunk() == b"one"
        assert not stream.has_data()
        other.get("/open")
        assert stream.chunk() == b"two"
        assert stream.chunk() == b""


def test_http_exception_of_a_child(server: Server) -> None:
    """R4: An HTTPException of a child is the answer, with its status, detail and headers."""
    with Wire(server.port) as wire:
        answer = wire.get("/refuse")
    assert answer.status == 403
    assert "not yours" in answer.text
    assert answer.headers["x-why"] == "the owner"
    assert answer.is_complete


def test_cors_headers_of_a_failure(server: Server) -> None:
    """R4: The headers that a middleware adds are on the answer to a child's failure."""
    with Wire(server.port) as wire:
        answer = wire.get("/refuse", headers=ORIGIN)
    assert answer.status == 403
    assert answer.headers["access-control-allow-origin"] == "*"


def test_bug_of_a_child(server: Server) -> None:
    """R4: A bug in a child is a 500, and its own traceback is in the server's log."""
    with Wire(server.port) as wire:
        answer = wire.get("/blunder")
    assert answer.status == 500
    log = server.wait_for(r"(?s)Traceback.*raise ZeroDivisionError.*^ZeroDivisionError: a bug in")[
        0
    ]
    assert "scenes.py" in log
    assert "ExceptionGroup" not in log


def test_chunked_response_is_cut(server: Server) -> None:
    """R5: A chunked response whose child fails lacks its last chunk: the client can tell."""
    with Wire(server.port) as wire:
        answer = wire.get("/cut")
        assert answer.status == 200
        assert answer.body.startswith(b"one")
        assert not answer.is_complete
        assert wire.is_at_end()
    server.wait_for("ZeroDivisionError: too late for a status")


@pytest.mark.parametrize("length", [6, 100])
def test_response_with_a_length_is_cut(server: Server, length: int) -> None:
    """R5: A response with a Content-Length whose child fails ends before that length."""
    with Wire(server.port) as wire:
        answer = wire.get(f"/cut?length={length}")
        assert answer.status == 200
        assert answer.headers["content-length"] == str(length)
        assert not answer.is_complete
        assert wire.is_at_end()


def test_connection_goes_on_after_a_failure(server: Server) -> None:
    """R4: The connection is kept alive after the answer to a failed child."""
    with Wire(server.port) as wire:
        statuses = [wire.get(path).status for path in ("/refuse", "/visit", "/refuse", "/visit")]
    assert statuses == [403, 200, 403, 200]


def test_a_cut_harms_no_other_connection(server: Server) -> None:
    """R5: Other connections go on when a response is cut."""
    with Wire(server.port) as other:
        assert other.get("/visit").status == 200
        with Wire(server.port) as wire:
            assert not wire.get("/cut").is_complete
        assert other.get("/visit").status == 200


def test_keep_alive_requests_have_groups_of_their_own(server: Server) -> None:
    """R11: One request after the other on a connection: neither group nor variable leaks."""
    with Wire(server.port) as wire:
        answers = [wire.get("/visit?name=ann").text, wire.get("/visit").text]
    _assert_apart(answers)


def test_pipelined_requests_have_groups_of_their_own(server: Server) -> None:
    """R1: Requests that are sent at once on one connection have groups of their own (trap: group
    in a ContextVar)."""
    with Wire(server.port) as wire:
        wire.ask("/visit?name=ann", "/visit?name=ben", "/visit?name=cat")
        answers = [wire.answer().text for _ in range(3)]
    groups = [text.partition(",")[0] for text in answers]
    assert all(one != other for one, other in pairwise(groups))
    assert [text.split()[-1] for text in answers] == ["ann", "ben", "cat"]


def test_large_bodies_leak_nothing(server: Server) -> None:
    """R11: A request with a body above the server's buffer leaks nothing into the next one."""
    with Wire(server.port) as wire:
        wire.ask("/visit?name=ann", method="POST", body=b"x" * 200_000)
        answers = [wire.answer().text]
        wire.ask("/visit", method="POST", body=b"x" * 200_000)
        answers.append(wire.answer().text)
    _assert_apart(answers)


def _assert_apart(answers: list[str]) -> None:
    first, second = (text.split(", ") for text in answers)
    assert first[0] != second[0]
    assert [first[1], second[1]] == ["visitor ann", "visitor nobody"]
