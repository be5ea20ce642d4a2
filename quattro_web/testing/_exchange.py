"""One HTTP request, seen by the client that makes it."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Self

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Scope

from quattro_web._scope import describe
from quattro_web.testing._response import Response, ResponseCutError
from quattro_web.testing._serving import Serving


class Exchange(Serving):
    """A request on its way, and its response as it comes. `AppClient.start` makes one.

    The app serves it in a task of its own. When the block ends before the response is complete, the
    client leaves, and the block waits until the app has finished::

        async with client.start("GET", "/ticks") as ticks:
            assert await ticks.chunk() == b"tick"

    Iterating over it gives the chunks of the body as the app has sent them. An app that sends more
    than 64 KiB ahead of a client that does not read has to wait, as on a server.

    .. versionadded:: 0.1
    """

    def __init__(
        self, app: ASGIApp, scope: Scope, body: bytes, *, more: bool, raises: bool
    ) -> None:
        self._start: Message | None = None
        self._chunks: deque[bytes] = deque()
        self._content = bytearray()
        self._is_complete = False
        self._is_uploading = True
        super().__init__(app, scope, raises=raises)
        self.upload(body, more=more)

    def upload(self, piece: bytes, *, more: bool = True) -> None:
        """Send a piece of the request's body.

        Args:
            piece: The piece.
            more: Whether more is to come.

        Raises:
            RuntimeError: If the body is complete, or the client has left.

        .. versionadded:: 0.1
        """
        if self._has_left or not self._is_uploading:
            msg = "the body of this request is complete: start it with more_content=True"
            raise RuntimeError(msg)
        self._is_uploading = more
        self._say({"type": "http.request", "body": piece, "more_body": more})

    def disconnect(self) -> None:
        """Leave: the app receives ``http.disconnect`` after what was uploaded, and nobody reads.

        .. versionadded:: 0.1
        """
        self._leave()

    leave = disconnect

    async def started(self) -> Self:
        """Wait until the response has begun: its status and its headers are there.

        Raises:
            Exception: What the app has raised instead.

        .. versionadded:: 0.1
        """
        await self._until(lambda: self._start is not None or self._task.done())
        if self._start is None:
            self._raise_error()
        return self

    @property
    def status_code(self) -> int:
        """The status of the response. That of one that an app has failed to begin is 500.

        Raises:
            RuntimeError: If it has not begun: await `started` before.

        .. versionadded:: 0.1
        """
        return int(self._begun()["status"])

    @property
    def headers(self) -> Headers:
        """The headers of the response.

        Raises:
            RuntimeError: If it has not begun: await `started` before.

        .. versionadded:: 0.1
        """
        return Headers(raw=list(self._begun()["headers"]))

    @property
    def content(self) -> bytes:
        """What has been read of the body so far.

        .. versionadded:: 0.1
        """
        return bytes(self._content)

    @property
    def is_complete(self) -> bool:
        """Whether the app has sent the response to its clean end.

        .. versionadded:: 0.1
        """
        return self._is_complete

    async def chunk(self) -> bytes | None:
        """Return the next chunk of the body as soon as it is there; None after the last one.

        Raises:
            ResponseCutError: If the app has ended in the middle of the response, or the client has
                left.
            Exception: What the app has raised, if that is to be raised.

        .. versionadded:: 0.1
        """
        await self._until(lambda: self._chunks or self._is_complete or self._is_over)
        if self._chunks:
            return self._read()
        if not self._is_complete:
            self._raise_error()
            if self._start is not None or self._has_left:
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
        """Read on to the end, and return the response, when the app has finished with it.

        Raises:
            ResponseCutError: If the app has ended in the middle of the response, or the client has
                left.
            Exception: What the app has raised, if that is to be raised.

        .. versionadded:: 0.1
        """
        await self.finished()
        if (self._start is None and self._error is None) or (
            self._start is not None and not self._is_complete
        ):
            raise ResponseCutError(self._describe_cut())
        if self._start is None:
            self._content += b"Internal Server Error"  # as servers answer for an app that fails
        return Response(self.status_code, self.headers, self.content)

    async def finished(self) -> Self:
        """Wait until the app has finished with the request, its background tasks included.

        What is left of the body is read meanwhile.

        Raises:
            Exception: What the app has raised, if that is to be raised.

        .. versionadded:: 0.1
        """
        await self._finished()
        while self._chunks:
            self._read()
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        et: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if not self._is_complete:
            self.disconnect()
        if exc is None:
            await self.finished()

    def __repr__(self) -> str:
        status = "no response yet" if self._start is None else self._start["status"]
        return f"<Exchange {describe(self._scope)}: {status}>"

    # The app's end

    @property
    def _is_over(self) -> bool:
        return self._has_left or self._task.done()

    def _begun(self) -> Message:
        if self._start is None and self._task.done() and self._error is not None:
            return {"status": 500, "headers": [(b"content-type", b"text/plain; charset=utf-8")]}
        if self._start is None:
            msg = "the response has not begun: await exchange.started() before"
            raise RuntimeError(msg)
        return self._start

    def _read(self) -> bytes:
        chunk = self._chunks.popleft()
        self._unread -= len(chunk)
        self._content += chunk
        self._changed.set()
        return chunk

    def _take(self, message: Message) -> int:
        kind, body = message["type"], message.get("body", b"")
        expected = "http.response.start" if self._start is None else "http.response.body"
        if kind != expected or self._is_complete:
            msg = f"the app has sent {kind!r} where a server expects {expected!r}, or nothing more"
            raise RuntimeError(msg)
        if self._start is None:
            self._start = {"headers": [], **message}
            return 0
        if not message.get("more_body", False):
            self._is_complete = not self._has_left
        if self._has_left or not body or self._scope["method"] == "HEAD":
            return 0
        self._chunks.append(bytes(body))
        return len(body)

    def _end_of_input(self) -> Message | None:
        return {"type": "http.disconnect"} if self._has_left or self._is_complete else None

    def _check_end(self) -> None:
        if not self._is_complete and not self._has_left:
            what = "begun" if self._start is None else "completed"
            msg = f"the app has returned before it had {what} its response"
            raise RuntimeError(msg)

    def _describe_cut(self) -> str:
        who = "the client has left" if self._has_left else "the app has cut"
        return f"{who} {describe(self._scope)} after {len(self._content)} bytes of its response"
