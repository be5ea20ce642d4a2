"""What becomes of a child's failure, on each server."""

import pytest

from tests.servers.matrix import Matrixed
from tests.support.wire import Wire


def test_http_exception_of_a_child(server: Matrixed, key: str) -> None:
    """R4: An HTTPException of a child is the answer, and no traceback is logged."""
    with server.quiet(), Wire(server.port) as wire:
        answer = wire.get(f"/refuse/{key}")
        assert answer.status == 403
        assert "not yours" in answer.text
        assert answer.headers["x-why"] == "the owner"
        assert answer.is_complete
    assert "handler ended" in server.notes(key)


def test_bug_of_a_child(server: Matrixed, key: str) -> None:
    """R4: A bug in a child is a 500, and its own traceback is in the server's log."""
    with Wire(server.port) as wire:
        answer = wire.get(f"/blunder/{key}")
    assert answer.status == 500
    assert answer.is_complete
    server.wait_for(rf"ZeroDivisionError: a bug in {key}$")
    assert server.notes(key)[-1] == "the app raised ZeroDivisionError"
    assert "apps.py" in server.log


def test_exit_in_a_child(server: Matrixed, key: str) -> None:
    """R4: `sys.exit()` in a child is a 500, and the server goes on."""
    with Wire(server.port) as wire, Wire(server.port) as other:
        other.ask(f"/hold/{key}-other")
        wire.ask(f"/exit/{key}")
        server.open(key)
        assert wire.answer().status == 500
        server.open(f"{key}-other")
        assert other.answer().text == "held"
    server.wait_for(r"RuntimeError: SystemExit\(3\) ends a request, and not the server$")


def test_chunked_response_is_cut(server: Matrixed, key: str) -> None:
    """R5: A chunked response whose child fails lacks its last chunk: the client can tell."""
    with Wire(server.port) as wire:
        wire.ask(f"/cut/{key}")
        assert wire.head().status == 200
        assert wire.chunk() == b"one"
        server.open(key)
        assert wire.is_at_end()
    server.wait_for(rf"ZeroDivisionError: too late in {key}$")


@pytest.mark.parametrize("length", [6, 100_000])
def test_response_with_a_length_is_cut(server: Matrixed, key: str, length: int) -> None:
    """R5: A response whose child fails ends before the Content-Length that it has announced."""
    with Wire(server.port) as wire:
        wire.ask(f"/cut/{key}?length={length}")
        server.wait_for_note(key, "http.response.start leaves")
        server.open(key)
        answer = wire.answer()
        assert answer.headers["content-length"] == str(length)
        assert answer.body == b"one"
        assert not answer.is_complete
        assert wire.is_at_end()
    server.wait_for(rf"ZeroDivisionError: too late in {key}$")


def test_a_cut_harms_no_other_connection(server: Matrixed, key: str) -> None:
    """R5: Other connections go on when a response is cut."""
    with Wire(server.port) as other, Wire(server.port) as wire:
        other.ask(f"/hold/{key}-held")
        server.open(f"{key}-cut")
        assert not wire.get(f"/cut/{key}-cut").is_complete
        server.open(f"{key}-held")
        assert other.answer().text == "held"


def test_deadline(server: Matrixed, key: str) -> None:
    """R8: A request that has passed its deadline is a 504; the log names what was running."""
    with server.quiet(), Wire(server.port) as wire:
        answer = wire.get(f"/late/{key}")
        assert answer.status == 504
        assert "Gateway Timeout" in answer.text
        assert answer.is_complete
    notes = server.notes(key)
    for name in ("child", "handler"):
        assert notes.count(f"{name} cancelled: the deadline of the request has passed") == 1
        assert notes.index(f"{name} ended") < notes.index("http.response.start leaves")
    server.wait_for(
        rf"GET /late/{key} has passed its deadline after \d+\.\d+ s; "
        r"still running: handler \(.*\.py:\d+\), the slow child \(.*\.py:\d+\)"
    )


def test_deadline_of_a_stream(server: Matrixed, key: str) -> None:
    """R8: A stream that is not complete at its own deadline is cut."""
    with Wire(server.port) as wire:
        wire.ask(f"/late-stream/{key}")
        assert wire.head().status == 200
        assert wire.chunk() == b"one"
        assert wire.is_at_end()
    assert server.notes(key)[-1] == "the app raised DeadlineExceededError"
    server.wait_for(rf"GET /late-stream/{key} has passed its deadline after ")


@pytest.mark.parametrize("length", [0, 6])
def test_deadline_of_a_stream_that_has_begun(server: Matrixed, key: str, length: int) -> None:
    """R8: A stream that has begun goes on when the deadline passes, in chunks and with a length."""
    with server.quiet(), Wire(server.port) as wire:
        answer = wire.get(f"/begun-stream/{key}?length={length}")
        assert (answer.status, answer.body) == (200, b"onetwo")
        assert answer.is_complete
    assert "time left: None" in server.notes(key)
