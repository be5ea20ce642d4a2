"""The gate that holds a response back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.types import Message

from quattro_web._scope import Connection

if TYPE_CHECKING:
    from quattro_web._exchange import Exchange

# A stream may be silent for long after its start, and its client waits for the headers: an
# EventSource is not open without them. An ordinary response follows its start at once.
RELEASE_AFTER = 0.05


class ResponseGate:
    """What is held back of a response.

    Args:
        exchange: The request.
        conn: Its scope.
    """

    _held: Message | None = None
    _held_end: Message | None = None
    _timer: asyncio.TimerHandle | None = None
    _releasing: asyncio.Task[None] | None = None

    def __init__(self, exchange: Exchange, conn: Connection) -> None:
        self.exchange = exchange
        self.is_websocket = conn["type"] == "websocket"
        self._method = None if self.is_websocket else conn["method"]

    @property
    def is_holding(self) -> bool:
        """Whether anything is held back."""
        return self._held is not None or self._held_end is not None

    @property
    def is_releasing(self) -> bool:
        """Whether a start is being sent that was held for long enough."""
        return self._releasing is not None

    def ends_with(self, message: Message) -> bool:
        """Whether the client has the whole response when it has this message.

        That is so with the last message, and with the last byte that Content-Length announces:
        BaseHTTPMiddleware sends an ordinary body as a stream, with an empty message at its end.
        """
        if not message.get("more_body", False):
            return True
        start = self._held or self.exchange.start
        length = None if start is None else self._length(start)
        if length is None:
            return False
        return self.exchange.sent + len(message.get("body", b"")) >= length

    def hold(self, start: Message) -> None:
        """Keep the start of a response until it is known what the response is.

        The first piece of the body tells. A start that announces no length and is followed by
        nothing for a while is that of a stream.
        """
        self._held = start
        if self._length(start) is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(RELEASE_AFTER, self._release)

    def keep(self) -> None:
        """Hold the start, however long that takes: the response turns out to be no stream."""
        if self._timer is not None:
            self._timer.cancel()

    def hold_end(self, end: Message) -> None:
        """Keep the end of a response that a child sends until all of them have ended."""
        self._held_end = end

    def drop(self) -> None:
        """Forget what is held back: something else is answered."""
        self._held = self._held_end = None
        self.keep()

    async def flush(self) -> None:
        """Send the start of the response, if it was held back."""
        start, self._held = self._held, None
        self.keep()
        if start is not None:
            await self.exchange.pass_on(start)
        elif self._releasing is not None:
            await self._releasing

    async def complete(self) -> None:
        """Send all that was held back, now that the children have ended."""
        await self.flush()
        if self._held_end is not None:
            end, self._held_end = self._held_end, None
            await self.exchange.pass_on(end)

    async def settle(self) -> None:
        """Wait for a start that is being sent after a while."""
        releasing, self._releasing = self._releasing, None
        if releasing is not None:
            await asyncio.wait((releasing,))
            if not releasing.cancelled():
                releasing.result()

    def _release(self) -> None:
        start, self._held = self._held, None
        if start is not None:
            self._releasing = asyncio.create_task(
                self.exchange.forward(start), name="quattro_web start"
            )

    def _length(self, start: Message) -> int | None:
        """Return how many bytes the body will have, if its start announces it."""
        if self._method == "HEAD" or start["status"] in BODY_LESS:
            return 0
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
