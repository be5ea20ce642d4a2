"""A response as an app sends it."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import Message

# Responses that end with their headers.
_WITHOUT_BODY = frozenset({204, 304})


class Reply:
    """What an app sends as its response, held against what servers let pass.

    Args:
        has_body: Whether what it sends as the body goes to the client: not where that asked for the
            HEAD alone.
        prefix: What its messages begin with: the refusal of a WebSocket has some of its own.

    Attributes:
        is_begun: Whether its status and its headers are there.
        is_complete: Whether all of it is there.
        status_code: Its status.
        headers: Its headers.
    """

    def __init__(self, *, has_body: bool = True, prefix: str = "") -> None:
        self._has_body = has_body
        self._prefix = prefix
        self._left: int | None = None
        self.is_begun = False
        self.is_complete = False
        self.status_code = 0
        self.headers = Headers()

    def take(self, message: Message) -> bytes:
        """Take in a message of the app, and return what it has for the client to read.

        Raises:
            RuntimeError: If it is none that servers expect.
        """
        if self.is_complete:
            expect(message)
        if not self.is_begun:
            expect(message, f"{self._prefix}http.response.start")
            self._begin(message)
            return b""
        expect(message, f"{self._prefix}http.response.body")
        body = bytes(message.get("body", b"")) if self._has_body else b""
        is_last = not message.get("more_body", False)
        self._count(len(body), is_last=is_last)
        self.is_complete = is_last
        return body

    def fail(self) -> bytes:
        """Answer as servers do for an app that has failed, unless it has begun; return the body."""
        if self.is_begun:
            return b""
        self._begin({"status": 500, "headers": [(b"content-type", b"text/plain; charset=utf-8")]})
        self.is_complete = True
        return b"Internal Server Error" if self._has_body else b""

    def _begin(self, start: Message) -> None:
        self.is_begun = True
        self.status_code = int(start["status"])
        self.headers = headers_of(start)
        length = self.headers.get("content-length")
        if not self._has_body or self.status_code in _WITHOUT_BODY:
            self._left = 0
        elif length is not None:
            self._left = int(length)

    def _count(self, size: int, *, is_last: bool) -> None:
        if self._left is None:
            return
        self._left -= size
        if self._left < 0 or (self._left > 0 and is_last):
            how = "longer" if self._left < 0 else "shorter"
            msg = f"the body is {how} than the status or the Content-Length of the response says"
            raise RuntimeError(msg)


def expect(message: Message, *kinds: str) -> None:
    """Check that a message is of one of some kinds.

    Raises:
        RuntimeError: If it is not.
    """
    if message["type"] not in kinds:
        expected = " or ".join(map(repr, kinds)) or "nothing more"
        msg = f"the app has sent {message['type']!r} where a server expects {expected}"
        raise RuntimeError(msg)


def headers_of(message: Message) -> Headers:
    """Return the headers of a message; servers send their names in lower case."""
    return Headers(raw=[(name.lower(), value) for name, value in message.get("headers", ())])
