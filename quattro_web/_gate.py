"""The gate that holds a response back."""

from __future__ import annotations

import asyncio

from starlette.types import Message, Scope, Send

from quattro_web._response import Progress

# A stream may be silent for long after its start, and its client waits for the headers: an
# EventSource is not open without them. An ordinary response follows its start at once.
RELEASE_AFTER = 0.05


class ResponseGate:
    """The server's `send`, what has left through it, and the start of a response held back."""

    _held: Message | None = None
    _held_end: Message | None = None
    _timer: asyncio.TimerHandle | None = None
    _releasing: asyncio.Task[None] | None = None

    def __init__(self, scope: Scope, send: Send) -> None:
        self._send = send
        self.progress = Progress(scope.get("method"))

    def hold(self, start: Message) -> None:
        """Keep the start of a response until it is known what the response is.

        The first piece of the body tells. A start that announces no length and is followed by
        nothing for a while is that of a stream.
        """
        self._held = start
        self.progress.expect(start)
        if self.progress.is_open_ended:
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
            await self.forward(start)
        elif self._releasing is not None:
            await self._releasing

    async def complete(self) -> None:
        """Send all that was held back, now that the children have ended."""
        await self.flush()
        if self._held_end is not None:
            end, self._held_end = self._held_end, None
            await self.forward(end)

    async def settle(self) -> None:
        """Wait for a start that is being sent after a while."""
        releasing, self._releasing = self._releasing, None
        if releasing is not None:
            await asyncio.wait((releasing,))
            if not releasing.cancelled():
                releasing.result()

    async def forward(self, message: Message) -> None:
        """Send a message as it is."""
        self.progress.note(message)
        await self._send(message)

    def _release(self) -> None:
        start, self._held = self._held, None
        if start is not None:
            self._releasing = asyncio.create_task(self.forward(start), name="quattro_web start")


BODIES = (
    "http.response.body",
    "http.response.pathsend",
    "http.response.trailers",
    "http.response.zerocopysend",
    "websocket.http.response.body",
)
