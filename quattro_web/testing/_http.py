"""One HTTP request, as its client sees it, and its response."""

from __future__ import annotations

import json
from collections import deque
from email.message import Message as HeaderFields
from types import TracebackType
from typing import Any, Self

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Scope

from quattro_web._util.scope import describe
from quattro_web.testing._connection import ServedConnection

# Responses that end with their headers.
_WITHOUT_BODY = frozenset({204, 304})


class HTTPExchange(ServedConnection):
    """A request in progress, and its response as it arrives; created by `AppClient.start`.

    The app serves it in its own task. If the block ends before the response is complete, the client
    disconnects, and the block waits until the app has finished::

        async with client.start("GET", "/ticks") as ticks:
            assert await ticks.chunk() == b"tick"

    Iterating over it yields the chunks of the body as the app sends them. If the client does not
    read, the app has to wait once 64 KiB are unread, as on a server.

    .. versionadded:: 0.1
    """

    def __init__(
        self, app: ASGIApp, scope: Scope, body: bytes, *, more: bool, raises: bool
    ) -> None:
        self._state = ResponseState(has_body=scope["method"] != "HEAD")
        self._chunks: deque[bytes] = deque()
        self._content = bytearray()
        self._is_uploading = True
        super().__init__(app, scope, raises=raises)
        self.upload(body, more=more)

    def upload(self, piece: bytes, *, more: bool = True) -> None:
        """Send a piece of the request body.

        Args:
            piece: The piece.
            more: Whether more will follow.

        Raises:
            RuntimeError: If the body is complete, or the client has disconnected.

        .. versionadded:: 0.1
        """
        if not self._is_uploading:
            msg = "the body of this request is complete: start it with more_content=True"
            raise RuntimeError(msg)
        if self._has_left:
            msg = "the client has left this request, so it can't upload any more"
            raise RuntimeError(msg)
        self._is_uploading = more
        self._feed({"type": "http.request", "body": piece, "more_body": more})

    def disconnect(self) -> None:
        """Disconnect: after the uploaded body, the app receives ``http.disconnect``.

        Whatever the app sends from then on is dropped, including the 499 of a cancelled request.

        .. versionadded:: 0.1
        """
        self._leave()

    async def wait_started(self) -> Self:
        """Wait until the response has begun, and its status and headers are known.

        Raises:
            ResponseCutError: If the app ended without a response, or the client has disconnected.
            Exception: Whatever the app raised, if *raise_app_exceptions* is true.

        .. versionadded:: 0.1
        """
        await self._until(lambda: self._state.is_begun or self._is_over)
        if not self._state.is_begun:
            self._raise_error()
            raise ResponseCutError(self._describe_cut())
        return self

    @property
    def status_code(self) -> int:
        """The status of the response; 500 if the app fails and *raise_app_exceptions* is false.

        Raises:
            RuntimeError: If the response has not begun: await `wait_started` first.

        .. versionadded:: 0.1
        """
        return self._begun().status_code

    @property
    def headers(self) -> Headers:
        """The headers of the response.

        Raises:
            RuntimeError: If the response has not begun: await `wait_started` first.

        .. versionadded:: 0.1
        """
        return self._begun().headers

    @property
    def content(self) -> bytes:
        """The part of the body that has been read so far.

        .. versionadded:: 0.1
        """
        return bytes(self._content)

    @property
    def is_complete(self) -> bool:
        """Whether the app has sent the whole response.

        .. versionadded:: 0.1
        """
        return self._state.is_complete

    async def chunk(self) -> bytes | None:
        """Return the next chunk of the body as soon as it arrives; None after the last one.

        Raises:
            ResponseCutError: If the app ended in the middle of the response, or the client has
                disconnected.
            Exception: Whatever the app raised, if *raise_app_exceptions* is true.

        .. versionadded:: 0.1
        """
        await self._until(lambda: self._chunks or self.is_complete or self._is_over)
        if self._chunks:
            return self._read()
        if not self.is_complete:
            self._raise_error()
            raise ResponseCutError(self._describe_cut())
        return None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self.chunk()
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def response(self) -> Response:
        """Read to the end, and return the response once the app has finished the request.

        Raises:
            ResponseCutError: If the app ended in the middle of the response, or the client has
                disconnected.
            Exception: Whatever the app raised, if *raise_app_exceptions* is true.

        .. versionadded:: 0.1
        """
        await self.wait_finished()
        if not self.is_complete:
            raise ResponseCutError(self._describe_cut())
        return Response(self.status_code, self.headers, self.content)

    async def wait_finished(self) -> Self:
        """Wait until the app has finished the request, including its background tasks.

        Reads the rest of the body meanwhile.

        Raises:
            Exception: Whatever the app raised, if *raise_app_exceptions* is true.

        .. versionadded:: 0.1
        """
        await self._wait_finished()
        self._read_rest()
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        et: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if not self.is_complete:
            self.disconnect()
        if exc is None:
            await self._wait_block_end()
            self._read_rest()

    def __repr__(self) -> str:
        status = self._state.status_code or "no response yet"
        return f"<HTTPExchange {describe(self._scope)}: {status}>"

    # The app's end

    @property
    def _is_over(self) -> bool:
        return self._has_left or self._task.done()

    def _begun(self) -> ResponseState:
        if not self._state.is_begun:
            msg = "the response has not begun: await exchange.wait_started() first"
            raise RuntimeError(msg)
        return self._state

    def _read(self) -> bytes:
        chunk = self._chunks.popleft()
        self._unread -= len(chunk)
        self._content += chunk
        self._changed.set()
        return chunk

    def _read_rest(self) -> None:
        while self._chunks:
            self._read()

    def _take(self, message: Message) -> int:
        if self._has_left:
            return 0  # servers look at nothing any more
        return self._offer(self._state.take(message))

    def _answer_failure(self) -> None:
        self._unread += self._offer(self._state.fail())

    def _offer(self, chunk: bytes) -> int:
        if chunk:
            self._chunks.append(chunk)
        return len(chunk)

    def _end_of_input(self) -> Message | None:
        return {"type": "http.disconnect"} if self._has_left or self.is_complete else None

    def _check_end(self) -> None:
        if not self.is_complete and not self._has_left:
            what = "completed" if self._state.is_begun else "begun"
            msg = f"the app has returned before it had {what} its response"
            raise RuntimeError(msg)

    def _describe_cut(self) -> str:
        who = "the client has left" if self._has_left else "the app has cut"
        return f"{who} {describe(self._scope)} after {len(self._content)} bytes of its response"


class Response:
    """A complete response.

    Attributes:
        status_code: Its status.
        headers: Its headers, case-insensitive.
        content: Its body.

    .. versionadded:: 0.1
    """

    def __init__(self, status_code: int, headers: Headers, content: bytes) -> None:
        self.status_code = status_code
        self.headers = headers
        self.content = content

    @property
    def text(self) -> str:
        """The body as text, in the charset of its headers, or else in UTF-8.

        .. versionadded:: 0.1
        """
        fields = HeaderFields()
        fields["content-type"] = self.headers.get("content-type", "text/plain")
        return self.content.decode(fields.get_content_charset("utf-8"), "replace")

    def json(self) -> Any:
        """Return the body, parsed as JSON.

        Raises:
            ValueError: If the body is not JSON.

        .. versionadded:: 0.1
        """
        return json.loads(self.content)

    def __repr__(self) -> str:
        return f"<Response {self.status_code}, {len(self.content)} bytes>"


class ResponseCutError(ConnectionError):
    """The app ended a response in the middle, so that the client can tell that it is incomplete.

    .. versionadded:: 0.1
    """


class ResponseState:
    """How far an app has come with its response: it may send only what servers let pass.

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
