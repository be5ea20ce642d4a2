"""How far a response has got, by the messages that were sent."""

from __future__ import annotations

from typing import Any

from starlette.types import Message

BODY_LESS = frozenset({204, 304})


class Progress:
    """What has left of a response, and which message is its end.

    Plain bookkeeping that is also kept while nobody asks for a group, since a group may be made in
    the middle of a stream.
    """

    __slots__ = ("_expected", "_method", "_received", "complete", "started")

    def __init__(self, method: str | None) -> None:
        self._method = method
        self._expected: int | None = None  # bytes of body, once they are known
        self._received = 0
        self.started = False
        self.complete = False

    def note(self, message: Message) -> None:
        """Take in a message that is sent on."""
        kind: str = message["type"]
        if kind.endswith("http.response.start"):
            self.started = True
            self.expect(message)
        elif kind.endswith("http.response.body"):
            self._received += len(message.get("body", b""))
            self.complete = not message.get("more_body", False)
        elif kind == "websocket.accept":
            self.started = True
        elif kind in ("http.response.pathsend", "websocket.close"):
            self.complete = True
        elif kind == "http.response.zerocopysend":
            self.complete = not message.get("more_body", False)

    def expect(self, start: Message) -> None:
        """Learn from the start of a response, sent or held back, how long its body will be."""
        self._expected = self._length(start)

    @property
    def is_open_ended(self) -> bool:
        """Whether the start has not announced how long the body will be."""
        return self._expected is None

    def ends_with(self, message: Message) -> bool:
        """Whether the client has the whole response when it has this message.

        That is so with the last message, and with the last byte that Content-Length announces:
        BaseHTTPMiddleware sends an ordinary body as a stream, with an empty message at its end.
        """
        if not message.get("more_body", False):
            return True
        if self._expected is None:
            return False
        return self._received + len(message.get("body", b"")) >= self._expected

    def _length(self, start: Message) -> int | None:
        if self._method == "HEAD" or start["status"] in BODY_LESS:
            return 0
        for name, value in start.get("headers", ()):
            if name.lower() == b"content-length":
                return _int_or_none(value)
        return None


def _int_or_none(value: Any) -> int | None:
    try:
        return int(value)
    except ValueError:  # the server's to complain about
        return None
