"""The gate that holds a response back."""

from __future__ import annotations

from starlette.types import Message, Scope, Send

from quattro_web._response import Progress


class ResponseGate:
    """The server's `send`, what has left through it, and the start of a response held back."""

    _held: Message | None = None

    def __init__(self, scope: Scope, send: Send) -> None:
        self._send = send
        self.progress = Progress(scope.get("method"))

    def hold(self, start: Message) -> None:
        """Keep the start of a response until it is known what the response is."""
        self._held = start
        self.progress.expect(start)

    async def flush(self) -> None:
        """Send the start of the response, if it was held back."""
        if self._held is not None:
            start, self._held = self._held, None
            await self.forward(start)

    async def forward(self, message: Message) -> None:
        """Send a message as it is."""
        self.progress.note(message)
        await self._send(message)


BODIES = (
    "http.response.body",
    "http.response.pathsend",
    "http.response.zerocopysend",
    "websocket.http.response.body",
)
