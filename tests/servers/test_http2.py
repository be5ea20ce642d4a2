"""Several requests at once on one connection of HTTP/2."""

import hashlib
import signal
import sys
from collections.abc import Iterator

import pytest

from tests.servers.living import Living
from tests.servers.matrix import Matrixed, need
from tests.support.http2 import HTTP2Wire
from tests.support.limitations import Limitation

REASON = "the client has disconnected"


@pytest.fixture(scope="module", params=["hypercorn-workers-0", "granian"])
def server(request: pytest.FixtureRequest) -> Iterator[Matrixed]:
    """A server that speaks HTTP/2 without an upgrade; after all tests nothing may be left in it."""
    name: str = request.param
    need(name.partition("-")[0], "h2")
    with Matrixed(name) as server:
        yield server
        assert server.get("tasks", "the-end") == "", "tasks are left"


def test_each_response_waits_for_its_own_children(server: Matrixed, key: str) -> None:
    """R2: Of several requests on one connection, each is answered when its own children have
    ended, in whatever order that is."""
    keys = [f"{key}-{number}" for number in range(3)]
    with HTTP2Wire(server.port) as wire:
        streams = {key: wire.ask(f"/hold/{key}") for key in keys}
        for each in keys:
            server.wait_for_note(each, "handler returned")
        for each in reversed(keys):
            assert not streams[each].has_ended
            server.open(each)
            answer = wire.answer(streams[each])
            assert (answer.status, answer.body, answer.is_complete) == (200, b"held", True)


def test_failures_are_answered(server: Matrixed, key: str) -> None:
    """R4: A child's failure is answered as over HTTP/1.1, and others of the connection go on."""
    other = f"{key}-other"
    with HTTP2Wire(server.port) as wire:
        held = wire.ask(f"/hold/{other}")
        refused = wire.answer(wire.ask(f"/refuse/{key}"))
        assert (refused.status, refused.body) == (403, b'{"detail":"not yours"}')
        failed = wire.answer(wire.ask(f"/blunder/{key}"))
        assert (failed.status, failed.body) == (500, b"Internal Server Error")
        server.open(other)
        assert wire.answer(held).status == 200


def test_deadline_of_one_request(server: Matrixed, key: str) -> None:
    """R8: The deadline of one request cancels no other of its connection."""
    other = f"{key}-other"
    with HTTP2Wire(server.port) as wire:
        held = wire.ask(f"/hold/{other}")
        assert wire.answer(wire.ask(f"/late/{key}")).status == 504
        server.open(other)
        assert wire.answer(held).status == 200


def test_upload(server: Matrixed, key: str) -> None:
    """R7: An upload arrives whole and in order while its client is watched."""
    body = b"x" * 10_000 + b"y"
    with HTTP2Wire(server.port) as wire:
        stream = wire.ask(f"/upload/{key}", method="POST", more=True)
        server.wait_for_note(key, "watched")
        wire.send(stream, body[:-1])
        server.wait_for_note(key, "has 10000")
        wire.send(stream, body[-1:], more=False)
        assert wire.answer(stream).body == hashlib.sha256(body).hexdigest().encode()


def test_reset_of_one_stream(server: Matrixed, key: str) -> None:
    """R7: A client that resets a stream has left that request, and no other of its connection."""
    other = f"{key}-other"
    with server.quiet(), HTTP2Wire(server.port) as wire:
        hung, held = wire.ask(f"/hang/{key}"), wire.ask(f"/hold/{other}")
        server.wait_for_note(key, "handler began")
        server.wait_for_note(other, "handler returned")
        wire.reset(hung)
        notes = server.notes(key)
        server.open(other)
        assert wire.answer(held).body == b"held"
    assert notes[-1] == "the app returned"
    for name in ("handler", "child", "pump"):
        assert notes.count(f"{name} cancelled: {REASON}") == 1
        assert notes.count(f"{name} ended") == 1


def test_reset_of_a_stream_that_sends(server: Matrixed, key: str) -> None:
    """R7: A client that resets a stream in the middle of its response cancels what makes that."""
    with server.quiet(), HTTP2Wire(server.port) as wire:
        stream = wire.ask(f"/endless/{key}")
        wire.wait_until(lambda: stream.body == b"one")
        wire.reset(stream)
        notes = server.notes(key)
    assert notes[-1] == "the app returned"
    assert f"child cancelled: {REASON}" in notes


def test_client_that_closes_its_connection(server: Matrixed, key: str) -> None:
    """R7: A client that leaves cancels all requests of its connection, and they end: hypercorn
    would wait for ever to send what they are answered with."""
    keys = [f"{key}-{number}" for number in range(2)]
    with HTTP2Wire(server.port) as wire:
        for each in keys:
            wire.ask(f"/hang/{each}")
            server.wait_for_note(each, "handler began")
        wire.close()
        for each in keys:
            notes = server.notes(each)
            assert f"handler cancelled: {REASON}" in notes
            assert notes[-1] == "the app returned"


def test_handler_that_is_not_cancelled(server: Matrixed, key: str, limitation: Limitation) -> None:
    """R7: A handler that goes on when its client has closed the connection ends; on hypercorn its
    response never does, whatever the app, until the shutdown cancels it."""
    with HTTP2Wire(server.port) as wire:
        wire.ask(f"/stay/{key}")
        server.wait_for_note(key, "handler began")
    server.open(key)
    server.wait_for_note(key, "http.response.start leaves")
    server.barrier()
    server.barrier()
    remains = "the app returned" not in server.notes_so_far(key)
    if server.brand == "hypercorn":
        what = "waits for ever to send a response to a connection of HTTP/2 that was closed"
        limitation("hypercorn", what, remains=remains)
    else:
        assert not remains


def test_stream_that_is_cut(server: Matrixed, key: str, limitation: Limitation) -> None:
    """R5: A stream that is cut never seems to be complete; hypercorn leaves it open as long as its
    connection has others."""
    other = f"{key}-other"
    with HTTP2Wire(server.port) as wire:
        held, stream = wire.ask(f"/hold/{other}"), wire.ask(f"/cut/{key}")
        wire.wait_until(lambda: stream.body == b"one")
        server.open(key)
        assert server.notes(key)[-1] == "the app raised ZeroDivisionError"
        server.open(other)
        assert wire.answer(held).body == b"held"
        assert not stream.is_complete
        if server.brand == "hypercorn":
            what = "neither ends nor resets a stream of HTTP/2 that was cut"
            limitation("hypercorn", what, remains=not stream.is_reset)
        else:
            assert stream.is_reset


def frame(text: bytes) -> bytes:
    """Return a text message, masked with zeros."""
    return bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text


def test_websockets(server: Matrixed, key: str) -> None:
    """R6: A WebSocket on a stream of HTTP/2, which only hypercorn has, ends as any other."""
    if server.brand == "granian":
        pytest.skip("granian has none")
    keys = [f"{key}-{number}" for number in range(4)]
    with HTTP2Wire(server.port) as wire:
        chat, failing, coded, pushed = (
            wire.open_websocket(f"/ws/{scene}/{each}")
            for scene, each in zip(("chat", "fail", "code", "push"), keys, strict=True)
        )
        wire.send(chat, frame(b"hi"))
        wire.wait_until(lambda: chat.body == b"\x81\x02hi")
        server.open(keys[1])
        assert wire.answer(failing).body == b"\x88\x02\x03\xf3"  # 1011
        server.open(keys[2])
        assert wire.answer(coded).body == b"\x88\x0e\x10\xe1for a reason"  # 4321
        server.wait_for_note(keys[3], "accepted")
        wire.reset(pushed)
        assert f"handler cancelled: {REASON}" in server.notes(keys[3])
        wire.reset(chat)
        notes = server.notes(keys[0])
        assert notes.index("handler saw the end") < notes.index("child ended")


@pytest.mark.parametrize("name", ["hypercorn", "hypercorn-0", "granian"])
def test_shutdown(name: str, limitation: Limitation) -> None:
    """A6: A shutdown with requests of HTTP/2 open on one connection ends them as others: those that
    may finish do, and what goes on is cancelled after its grace, with a 503."""
    with Living(name) as server, HTTP2Wire(server.port) as wire:
        stream, told = wire.ask("/events"), wire.ask("/told")
        slow, short = wire.ask("/slow"), wire.ask("/slow?seconds=1")
        wire.wait_until(lambda: stream.body != b"")
        server.wait_for("told waits")
        server.wait_for_each("slow begins", 2)
        server.send(signal.SIGTERM)
        assert wire.answer(told).body == b"goodbye"
        assert wire.answer(short).body == b"slow"
        answer = wire.answer(slow)
        assert (answer.status, answer.is_complete) == (503, True)
        has_end = wire.answer(stream).is_complete
        assert server.wait() == 0
    if name.startswith("hypercorn"):
        what = "loses the end of the last stream on a connection of HTTP/2 at a shutdown"
        limitation("hypercorn", what, remains=not has_end)
    else:
        assert has_end
    [lines] = server.said().values()
    assert lines[-2:] == ["pump ends", "resources close"]


def test_server_that_is_less_patient() -> None:
    """A6: Where hypercorn's own time for open requests is over first, it ends the sending of all
    responses on a connection of HTTP/2: those that are open then end the shutdown in time, without
    a body. It has no such time on Python 3.12 and newer."""
    waits = sys.version_info >= (3, 12, 1)  # as in test_shutdown.py
    app = "app" if waits else "patient"
    with Living("hypercorn-0", app, "--graceful-timeout", "1") as server:
        with HTTP2Wire(server.port) as wire:
            slow = wire.ask("/slow")
            server.wait_for("slow begins")
            server.send(signal.SIGTERM)
            wire.wait_until(lambda: wire.is_closed)
        server.wait()  # with 1, since it fails to note that the connection is idle
    assert slow.status == 503
    assert "has not ended within" not in server.log
    [lines] = server.said().values()
    assert lines[-3:] == ["slow is cancelled", "pump ends", "resources close"]
