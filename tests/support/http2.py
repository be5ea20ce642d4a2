"""An HTTP/2 client so plain that it can reset a stream, and tell one that was cut from others."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from h2.config import H2Configuration
from h2.connection import (
    ConnectionInputs,
    ConnectionState,
    H2Connection,
    H2ConnectionStateMachine,
)
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)

from tests.support.server import PATIENCE

# h2 takes nothing any more after a GOAWAY, with which a server lets open streams end (RFC 9113).
H2ConnectionStateMachine._transitions[ConnectionState.CLIENT_OPEN, ConnectionInputs.RECV_GOAWAY] = (
    None,
    ConnectionState.CLIENT_OPEN,
)


@dataclass
class Stream:
    """A request, and what has come of its response."""

    number: int
    status: int = 0
    body: bytes = b""
    is_complete: bool = False
    is_reset: bool = False

    @property
    def has_ended(self) -> bool:
        return self.is_complete or self.is_reset


class HTTP2Wire:
    """A connection to a server, for any number of requests at once, without an upgrade.

    Args:
        port: The port on 127.0.0.1.

    Attributes:
        is_closed: Whether the server has closed it.
    """

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self._http2 = H2Connection(H2Configuration(header_encoding=None))
        self._http2.initiate_connection()
        self._streams: dict[int, Stream] = {}
        self.is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        et: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        headers: Iterable[tuple[str, str]] = (),
        more: bool = False,
    ) -> Stream:
        """Make a request, without waiting for its response; *more* says that a body follows."""
        fields = [(":method", method), (":scheme", "http"), (":authority", "here")]
        number = self._http2.get_next_available_stream_id()
        self._http2.send_headers(number, [*fields, (":path", path), *headers], end_stream=not more)
        self._flush()
        stream = self._streams[number] = Stream(number)
        return stream

    def open_websocket(self, path: str) -> Stream:
        """Open a WebSocket (RFC 8441), and wait until it is accepted."""
        headers = [(":protocol", "websocket"), ("sec-websocket-version", "13")]
        stream = self.ask(path, method="CONNECT", headers=headers, more=True)
        self.wait_until(lambda: bool(stream.status))
        return stream

    def send(self, stream: Stream, data: bytes, *, more: bool = True) -> None:
        """Send a piece of a body."""
        self._http2.send_data(stream.number, data, end_stream=not more)
        self._flush()

    def reset(self, stream: Stream) -> None:
        """Leave one request."""
        self._http2.reset_stream(stream.number, ErrorCodes.CANCEL)
        self._flush()

    def close(self) -> None:
        """Leave all requests."""
        self._socket.close()

    def answer(self, stream: Stream) -> Stream:
        """Wait until the response has ended, in whatever way."""
        self.wait_until(lambda: stream.has_ended or self.is_closed)
        return stream

    def wait_until(self, condition: Callable[[], bool], patience: float = PATIENCE) -> None:
        """Read until something is so.

        Raises:
            TimeoutError: If nothing comes any more.
        """
        self._socket.settimeout(patience)
        while not condition():
            data = self._socket.recv(2**16)
            self.is_closed = not data
            for event in self._http2.receive_data(data):
                self._take(event)
            self._flush()

    def _flush(self) -> None:
        if data := self._http2.data_to_send():
            self._socket.sendall(data)

    def _take(self, event: Event) -> None:
        stream = self._streams.get(getattr(event, "stream_id", None) or 0)
        if isinstance(event, ConnectionTerminated) or stream is None:
            return
        if isinstance(event, ResponseReceived):
            stream.status = int(dict(event.headers)[b":status"])
        elif isinstance(event, DataReceived):
            stream.body += event.data
            self._http2.acknowledge_received_data(event.flow_controlled_length, stream.number)
        elif isinstance(event, StreamEnded):
            stream.is_complete = True
        elif isinstance(event, StreamReset):
            stream.is_reset = True
