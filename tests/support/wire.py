"""An HTTP/1.1 client so plain that it can tell a response that was cut from a complete one."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.support.server import PATIENCE


class CutError(Exception):
    """The server closed the connection in the middle of a response, or before it."""


@dataclass
class Answer:
    """A response, as far as it has come."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_complete: bool

    @property
    def text(self) -> str:
        return self.body.decode()


class Wire:
    """A connection to a server, for one request after the other or several at once.

    Args:
        port: The port on 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        et: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._socket.close()

    def get(self, path: str, *, headers: Iterable[tuple[str, str]] = ()) -> Answer:
        """Make a request, and return what comes of it."""
        self.ask(path, headers=headers)
        return self.answer()

    def ask(
        self,
        path: str,
        *more: str,
        method: str = "GET",
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> None:
        """Send requests, in one piece, without waiting for an answer."""
        fields = [("host", "here"), *headers]
        if body:
            fields.append(("content-length", str(len(body))))
        head = "".join(f"{name}: {value}\r\n" for name, value in fields)
        requests = [f"{method} {each} HTTP/1.1\r\n{head}\r\n".encode() for each in (path, *more)]
        self._socket.sendall(b"".join(requests) + body)

    def send(self, data: bytes) -> None:
        """Send bytes as they are: a piece of a body."""
        self._socket.sendall(data)

    def close(self) -> None:
        """Leave, as a client does that has ended."""
        self._socket.close()

    def reset(self) -> None:
        """Leave, as a client does that has crashed: what it has not read is thrown away."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def half_close(self) -> None:
        """Say that nothing more will be sent, and go on listening."""
        self._socket.shutdown(socket.SHUT_WR)

    def has_data(self) -> bool:
        """Whether anything has arrived that was not read yet, the end included."""
        return bool(self._buffer) or bool(select.select([self._socket], [], [], 0)[0])

    def is_at_end(self) -> bool:
        """Wait for what comes next: nothing but the end of the connection?"""
        return not self._buffer and not self._more()

    def head(self) -> Answer:
        """Read the head of a response."""
        lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return Answer(int(lines[0].split()[1]), headers, b"", is_complete=False)

    def chunk(self) -> bytes:
        """Read a chunk of a body in chunks; the one at its end is empty."""
        size = int(self._until(b"\r\n").partition(b";")[0], 16)
        data = self._exactly(size)
        self._exactly(2)
        return data

    def answer(self) -> Answer:
        """Read a response to its end, or to where it was cut; raise CutError if there is none."""
        answer = self.head()
        try:
            if answer.headers.get("transfer-encoding") == "chunked":
                while data := self.chunk():
                    answer.body += data
            else:
                self._read_body(answer)
        except CutError:
            return answer
        answer.is_complete = True
        return answer

    def _read_body(self, answer: Answer) -> None:
        length = int(answer.headers.get("content-length", "0"))
        while len(answer.body) < length:
            if not self._buffer and not self._more():
                raise CutError
            take = length - len(answer.body)
            answer.body += self._buffer[:take]
            self._buffer = self._buffer[take:]

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            if not self._more():
                raise CutError
        data, _, self._buffer = self._buffer.partition(mark)
        return data

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            if not self._more():
                raise CutError
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def _more(self) -> bool:
        try:
            data = self._socket.recv(65536)
        except ConnectionResetError:
            data = b""
        self._buffer += data
        return bool(data)
