"""One HTTP request, seen by the client that makes it."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Self

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Scope

from quattro_web._scope import describe
from quattro_web.testing._reply import Reply
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
        self._reply = Reply(has_body=scope["method"] != "HEAD")
        self._chunks: deque[bytes] = deque()
        self._content = bytearray()
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
        if not self._is_uploading:
            msg = "the body of this request is complete: start it with more_content=True"
            raise RuntimeError(msg)
        if self._has_left:
            msg = "the client has left this request: it uploads nothing any more"
            raise RuntimeError(msg)
        self._is_uploading = more
        self._say({"type": "http.request", "body": piece, "more_body": more})

    def disconnect(self) -> None:
        """Leave: the app receives ``http.disconnect`` after what was uploaded, and nobody reads.

        What the app sends from then on is dropped, the 499 of a cancelled request as well.

        .. versionadded:: 0.1
        """
        self._leave()

    async def wait_started(self) -> Self:
        """Wait until the response has begun: its status and its headers are there.

        Raises:
            ResponseCutError: If the app has ended without one, or the client has left.
            Exception: What the app has raised, if that is to be raised.

        .. versionadded:: 0.1
        """
        await self._until(lambda: self._reply.is_begun or self._is_over)
        if not self._reply.is_begun:
            self._raise_error()
            raise ResponseCutError(self._describe_cut())
        return self

    @property
    def status_code(self) -> int:
        """The status of the response. Where the app fails, and that is not raised, it is 500.

        Raises:
            RuntimeError: If it has not begun: await `wait_started` before.

        .. versionadded:: 0.1
        """
        return self._begun().status_code

    @property
    def headers(self) -> Headers:
        """The headers of the response.

        Raises:
            RuntimeError: If it has not begun: await `wait_started` before.

        .. versionadded:: 0.1
        """
        return self._begun().headers

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
        return self._reply.is_complete

    async def chunk(self) -> bytes | None:
        """Return the next chunk of the body as soon as it is there; None after the last one.

        Raises:
            ResponseCutError: If the app has ended in the middle of the response, or the client has
                left.
            Exception: What the app has raised, if that is to be raised.

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
        """Read on to the end, and return the response, when the app has finished with it.

        Raises:
            ResponseCutError: If the app has ended in the middle of the response, or the client has
                left.
            Exception: What the app has raised, if that is to be raised.

        .. versionadded:: 0.1
        """
        await self.wait_finished()
        if not self.is_complete:
            raise ResponseCutError(self._describe_cut())
        return Response(self.status_code, self.headers, self.content)

    async def wait_finished(self) -> Self:
        """Wait until the app has finished with the request, its background tasks included.

        What is left of the body is read meanwhile.

        Raises:
            Exception: What the app has raised, if that is to be raised.

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
            await self._block_ends()
            self._read_rest()

    def __repr__(self) -> str:
        status = self._reply.status_code or "no response yet"
        return f"<Exchange {describe(self._scope)}: {status}>"

    # The app's end

    @property
    def _is_over(self) -> bool:
        return self._has_left or self._task.done()

    def _begun(self) -> Reply:
        if not self._reply.is_begun:
            msg = "the response has not begun: await exchange.wait_started() before"
            raise RuntimeError(msg)
        return self._reply

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
        return self._offer(self._reply.take(message))

    def _answer_failure(self) -> None:
        self._unread += self._offer(self._reply.fail())

    def _offer(self, chunk: bytes) -> int:
        if chunk:
            self._chunks.append(chunk)
        return len(chunk)

    def _end_of_input(self) -> Message | None:
        return {"type": "http.disconnect"} if self._has_left or self.is_complete else None

    def _check_end(self) -> None:
        if not self.is_complete and not self._has_left:
            what = "completed" if self._reply.is_begun else "begun"
            msg = f"the app has returned before it had {what} its response"
            raise RuntimeError(msg)

    def _describe_cut(self) -> str:
        who = "the client has left" if self._has_left else "the app has cut"
        return f"{who} {describe(self._scope)} after {len(self._content)} bytes of its response"
