"""A bound on what a client may send."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 16 * 1024


class BodyLimit:
    """Answer 413 to a request body that is too long, before it is all in memory."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size = 0

        async def bounded_receive() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > MAX_BODY:
                raise HTTPException(413, f"a request body has at most {MAX_BODY} bytes")
            return message

        await self._app(scope, bounded_receive if scope["type"] == "http" else receive, send)
