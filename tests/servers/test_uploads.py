"""Bodies that arrive while their client is watched, on each server."""

import hashlib

from tests.servers.matrix import Matrixed
from tests.support.wire import Wire

PIECES = [bytes([65 + number]) * 5_000 for number in range(6)]
DIGEST = hashlib.sha256(b"".join(PIECES)).hexdigest()


def test_slow_upload_with_a_length(server: Matrixed, key: str) -> None:
    """R7: A body that comes in pieces while its client is watched arrives whole and in order."""
    with Wire(server.port) as wire:
        wire.ask(f"/upload/{key}", method="POST", headers=[("content-length", "30000")])
        server.wait_for_note(key, "watched")
        for number, piece in enumerate(PIECES, 1):
            wire.send(piece)
            server.wait_for_note(key, f"has {number * 5_000}")
        assert wire.answer().text == DIGEST


def test_slow_upload_in_chunks(server: Matrixed, key: str) -> None:
    """R7: So does one in chunks."""
    with Wire(server.port) as wire:
        chunked = [("transfer-encoding", "chunked")]
        wire.ask(f"/upload/{key}", method="POST", headers=chunked)
        server.wait_for_note(key, "watched")
        for number, piece in enumerate(PIECES, 1):
            wire.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            server.wait_for_note(key, f"has {number * 5_000}")
        wire.send(b"0\r\n\r\n")
        assert wire.answer().text == DIGEST


def test_upload_larger_than_all_buffers(server: Matrixed, key: str) -> None:
    """R7: So does one that is sent as fast as it is taken."""
    body = bytes(range(256)) * 8_000
    with Wire(server.port) as wire:
        wire.ask(f"/upload/{key}", method="POST", body=body)
        assert wire.answer().text == hashlib.sha256(body).hexdigest()


def test_multipart_upload(server: Matrixed, key: str) -> None:
    """R7: A form with a file, of which half was there when the watch began, arrives whole."""
    file = bytes(range(256)) * 1_000
    head = b"--edge\r\ncontent-disposition: form-data; name="
    body = b"".join(
        (
            head + b'"name"\r\n\r\nann\r\n',
            head + b'"file"; filename="a.bin"\r\n\r\n' + file + b"\r\n--edge--\r\n",
        )
    )
    with Wire(server.port) as wire:
        fields = [("content-type", "multipart/form-data; boundary=edge")]
        fields.append(("content-length", str(len(body))))
        wire.ask(f"/form/{key}", method="POST", headers=fields)
        wire.send(body[:1_000])
        server.wait_for_note(key, "watched")
        wire.send(body[1_000:])
        assert wire.answer().text == f"ann a.bin {hashlib.sha256(file).hexdigest()}"


def test_upload_that_waits_for_a_go_ahead(server: Matrixed, key: str) -> None:
    """R7: A client that expects 100 Continue gets it when the handler begins to read."""
    with Wire(server.port) as wire:
        fields = [("content-length", "5"), ("expect", "100-continue")]
        wire.ask(f"/upload/{key}", method="POST", headers=fields)
        assert wire.head().status == 100
        wire.send(b"hello")
        assert wire.answer().text == hashlib.sha256(b"hello").hexdigest()
