"""The gate that holds a response back."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections.abc import Awaitable
from types import AsyncGeneratorType, CellType, FrameType
from typing import Any, Protocol

from starlette.responses import StreamingResponse
from starlette.types import Message
from starlette.websockets import WebSocket

from quattro_web._request.state import CancelReason, RequestState
from quattro_web._util import cancel_scopes
from quattro_web._util.scope import Connection

logger = logging.getLogger("quattro_web")

# Python 3.11 takes a thousand instructions to find a member in its enumeration.
_OPEN, _HOLDING = RequestState.OPEN, RequestState.HOLDING

# A stream may be silent for long after its start, and its client waits for the headers: an
# EventSource is not open without them. An ordinary response follows its start at once.
RELEASE_AFTER = 0.05


class Sender(Protocol):
    """What the gate needs of its request."""

    state: RequestState
    reason: CancelReason | None
    start: Message | None
    held: Message | None
    starting: asyncio.Future[None] | None
    sent: int

    @property
    def conn(self) -> Connection | None: ...
    @property
    def has_failed(self) -> bool: ...
    def pass_on(self, message: Message) -> Awaitable[None]: ...
    async def send_start(self, start: Message) -> None: ...
    async def send_whole(self, end: Message) -> None: ...


class ResponseGate:
    """What is held back of a response, until it is known what the response is or what has failed.

    The start is held until the first piece of the body, for every request: then the end is decided,
    or it is a stream. So whatever comes before the end is decided is answered instead, and nothing
    of the response has left. In a request with children, the end is held until they have ended.

    Args:
        request: The request, which keeps the start.
    """

    def __init__(self, request: Sender) -> None:
        self._request = request
        # What is held back behind the start.
        self.behind: list[Message] | tuple[()] = ()
        self.timer: asyncio.TimerHandle | None = None
        # The task that sends a start which was held for long enough.
        self.releasing: asyncio.Task[None] | None = None

    @property
    def is_holding(self) -> bool:
        """Whether anything is held back."""
        return self._request.held is not None or bool(self.behind)

    @property
    def is_ahead(self) -> bool:
        """Whether something goes before what is sent now: held back, or on its way."""
        return self.is_holding or self.releasing is not None or self._request.starting is not None

    def hold(self, start: Message) -> None:
        """Keep the start of a response until it is known what the response is.

        The first piece of the body tells. A start that announces no length and is followed by
        nothing for a while is that of a stream.
        """
        request = self._request
        if request.state is _OPEN:
            request.state = _HOLDING
        self.keep()
        headers = start.get("headers", ())
        if not isinstance(headers, list | tuple):
            start = {**start, "headers": list(headers)}  # any iterable will do, and only once
        request.held = start
        if _announced_length(start) is None:
            loop = asyncio.get_running_loop()
            self.timer = loop.call_later(RELEASE_AFTER, self._release)

    def hold_piece(self, piece: Message) -> bool:
        """Keep a piece of the body if the client has the whole response with it; tells whether.

        That is so with the last byte that Content-Length announces: BaseHTTPMiddleware sends an
        ordinary body as a stream, with an empty message at its end. What makes the stream may need
        the children until then, so that it is not the time to wait for them yet.
        """
        request = self._request
        start = request.held or request.start
        length = None if start is None else self._length(start)
        if length is None:
            return False
        if self._is_head:  # it has no body, however long the stream is
            piece = {**piece, "body": b""}
        left = length - request.sent - sum(len(kept.get("body", b"")) for kept in self.behind)
        # More than was announced is the server's to complain about, as to any other app.
        if len(piece.get("body", b"")) != left:
            return False
        if not self.behind:
            self._keep_behind(piece)
        return True

    def hold_end(self, end: Message) -> None:
        """Keep the end of a response that a child sends until all of them have ended."""
        self._keep_behind(end)

    def keep(self) -> None:
        """Hold the start, however long that takes: the response turns out to be no stream."""
        if self.timer is not None:
            self.timer.cancel()

    def drop(self) -> None:
        """Forget what is held back: something else is answered."""
        self._request.held = None
        self.behind = ()
        self.keep()
        if self._request.state is _HOLDING:
            self._request.state = _OPEN

    def abandon(self) -> None:
        """See to it that nothing leaves any more."""
        self.drop()
        if self.releasing is not None:
            self.releasing.cancel()

    async def flush(self) -> None:
        """Send all that is held back."""
        start, self._request.held = self._request.held, None
        if start is not None:
            await self._request.send_start(start)
        elif self.releasing is not None:
            await asyncio.shield(self.releasing)
        elif self._request.starting is not None:
            await asyncio.shield(self._request.starting)  # another task sends it
        while self.behind:
            piece, *self.behind = self.behind
            await self._request.pass_on(piece)

    async def settle(self) -> BaseException | None:
        """Wait for a start that is being sent after a while, and return what has failed of it."""
        releasing, self.releasing = self.releasing, None
        if releasing is None:
            return None
        await asyncio.wait((releasing,))
        return None if releasing.cancelled() else releasing.exception()

    def _keep_behind(self, message: Message) -> None:
        self.behind = [*self.behind, message]

    def _release(self) -> None:
        request = self._request
        if request.held is not None and not request.has_failed:
            start, request.held = request.held, None
            self.releasing = asyncio.create_task(
                request.send_start(start), name="quattro_web start"
            )

    @property
    def _is_head(self) -> bool:
        conn = self._request.conn
        return conn is not None and conn.get("method") == "HEAD"

    def _length(self, start: Message) -> int | None:
        """Return how many bytes the body will have, if that is known."""
        if self._is_head or start["status"] in BODY_LESS:
            return 0
        return _announced_length(start)


def _announced_length(start: Message) -> int | None:
    for name, value in start.get("headers", ()):
        if name.lower() == b"content-length":
            try:
                return int(value)
            except ValueError:  # the server's to complain about
                return None
    return None


BODY_LESS = frozenset({204, 304})

STARTS = frozenset({"http.response.start", "websocket.http.response.start"})

BODIES = frozenset(
    {
        "http.response.body",
        "http.response.pathsend",
        "http.response.trailers",
        "http.response.zerocopysend",
        "websocket.http.response.body",
    }
)


def listens_for_disconnect() -> bool:
    """Whether a response that streams reads what the client sends, to learn that it has left.

    It may do so before it has sent its start. A handler that reads is none of this.
    """
    frame: FrameType | None = sys._getframe()  # noqa: SLF001  # nothing else tells
    while frame is not None:
        # Starlette's, and that of sse-starlette.
        if frame.f_code.co_name in ("listen_for_disconnect", "_listen_for_disconnect"):
            return True
        frame = frame.f_back
    return False


def takes_errors_for_leaving() -> bool:
    """Whether whoever sends takes an `OSError` for the leaving of the client (ASGI 2.4).

    A `TimeoutError` is one as well. A response that streams in a task group does not.
    """
    frame: FrameType | None = sys._getframe()  # noqa: SLF001  # nothing else tells
    while frame is not None and frame.f_globals.get("__name__") != "quattro_web._middleware":
        if frame.f_code in _TAKES_ERRORS:
            return True
        frame = frame.f_back
    return False


_TAKES_ERRORS = frozenset({StreamingResponse.__call__.__code__, WebSocket.send.__code__})


async def close_body() -> None:
    """Close the generators of the body that the current task was sending: it is not sent any more.

    They are suspended at a ``yield``, as far as it was sent. Nobody else closes them: the garbage
    collector has them closed in another task and context, when what they use was closed long since.
    """
    # What has called `send` is on the stack: Starlette's responses, and those of others that are
    # like them, iterate over an attribute of this name.
    bodies: list[AsyncGeneratorType[Any, Any]] = []
    frame: FrameType | None = sys._getframe()  # noqa: SLF001  # nothing else tells
    while frame is not None and frame.f_globals.get("__name__") != "quattro_web._middleware":
        _collect(getattr(frame.f_locals.get("self"), "body_iterator", None), bodies)
        frame = frame.f_back
    # A generator that iterates over another one does not close it: from the outside in.
    for body in bodies:
        if body.ag_running:
            continue
        with cancel_scopes.shield():  # whoever cancels by anyio's scopes does so again and again
            try:
                await body.aclose()
            except Exception:
                logger.exception("the body of a response failed as it was closed: %r", body)


def _collect(value: object, bodies: list[AsyncGeneratorType[Any, Any]]) -> None:
    """Add an asynchronous generator, and those that it holds in its frame."""
    if isinstance(value, CellType):
        try:
            value = value.cell_contents
        except ValueError:  # it is empty
            return
    if isinstance(value, AsyncGeneratorType) and value not in bodies:
        bodies.append(value)
        for inner in gc.get_referents(value):
            _collect(inner, bodies)


async def nothing() -> None:
    """Be what `send` returns when there is nothing to wait for: servers hand out coroutines."""
