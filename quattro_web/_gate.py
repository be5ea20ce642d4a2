"""The gate that holds a response back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.types import Message

from quattro_web._patient_group import PatientGroup
from quattro_web._scope import Connection

if TYPE_CHECKING:
    from quattro_web._exchange import Exchange

# A stream may be silent for long after its start, and its client waits for the headers: an
# EventSource is not open without them. An ordinary response follows its start at once.
RELEASE_AFTER = 0.05


class ResponseGate:
    """What is held back of a response.

    Attributes:
        exchange: The request.
        group: Its task group.
        conn: What the group was asked for with.
    """

    exchange: Exchange
    group: PatientGroup
    conn: Connection
    _held: Message | None
    _behind: list[Message] | tuple[()]  # held back with the start, or behind it
    _timer: asyncio.TimerHandle | None
    _releasing: asyncio.Task[None] | None

    @property
    def is_websocket(self) -> bool:
        """Whether this is a WebSocket connection."""
        return bool(self.conn["type"] == "websocket")

    @property
    def is_holding(self) -> bool:
        """Whether anything is held back."""
        return self._held is not None or bool(self._behind)

    @property
    def is_releasing(self) -> bool:
        """Whether a start is being sent that was held for long enough."""
        return self._releasing is not None

    def hold(self, start: Message) -> None:
        """Keep the start of a response until it is known what the response is.

        The first piece of the body tells. A start that announces no length and is followed by
        nothing for a while is that of a stream.
        """
        headers = start.get("headers", ())
        if headers.__class__ is list:
            for header in headers:
                if header[0] == b"content-length":
                    self._held = start
                    return
        elif not isinstance(headers, list | tuple):
            start = {**start, "headers": list(headers)}  # any iterable will do, and only once
        self._held = start
        if _announced_length(start) is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(RELEASE_AFTER, self._release)

    def hold_piece(self, piece: Message) -> bool:
        """Keep a piece of the body if the client has the whole response with it; tells whether.

        That is so with the last byte that Content-Length announces: BaseHTTPMiddleware sends an
        ordinary body as a stream, with an empty message at its end. What makes the stream may need
        the children until then, so that it is not the time to wait for them yet.
        """
        if not self._behind:
            start = self._held or self.exchange.start
            length = None if start is None else self._length(start)
            if length is None or self.exchange.sent + len(piece.get("body", b"")) < length:
                return False
            # Of a body that is none (HEAD, 204) one empty piece will do, however long the stream.
            self._keep_behind({**piece, "body": b""} if length == 0 else piece)
        elif self._behind[0].get("body") and piece.get("body"):
            self._keep_behind(piece)  # more than was announced: the server's to complain about
        return True

    def hold_end(self, end: Message) -> None:
        """Keep the end of a response that a child sends until all of them have ended."""
        self.keep()
        self._keep_behind(end)

    def keep(self) -> None:
        """Hold the start, however long that takes: the response turns out to be no stream."""
        if self._timer is not None:
            self._timer.cancel()

    def drop(self) -> None:
        """Forget what is held back: something else is answered."""
        self._held = None
        self._behind = ()
        self.keep()

    def abandon(self) -> None:
        """See to it that nothing leaves any more."""
        self.drop()
        if self._releasing is not None:
            self._releasing.cancel()

    async def flush(self) -> None:
        """Send all that is held back."""
        start, self._held = self._held, None
        self.keep()
        if start is not None:
            await self.exchange.pass_on(start)
        elif self._releasing is not None:
            await asyncio.shield(self._releasing)
        while self._behind:
            piece, *self._behind = self._behind
            await self.exchange.pass_on(piece)

    async def settle(self) -> BaseException | None:
        """Wait for a start that is being sent after a while, and return what has failed of it."""
        releasing, self._releasing = self._releasing, None
        if releasing is None:
            return None
        await asyncio.wait((releasing,))
        return None if releasing.cancelled() else releasing.exception()

    def _keep_behind(self, message: Message) -> None:
        self._behind = [*self._behind, message]

    def _release(self) -> None:
        start, self._held = self._held, None
        if start is not None and not self.group.exceptions and self.exchange.reason is None:
            self._releasing = asyncio.create_task(
                self.exchange.forward(start), name="quattro_web start"
            )

    def _length(self, start: Message) -> int | None:
        """Return how many bytes the body will have, if that is known."""
        is_head = not self.is_websocket and self.conn["method"] == "HEAD"
        if is_head or start["status"] in BODY_LESS:
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
