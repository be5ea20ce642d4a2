"""One WebSocket, seen by the app."""

from __future__ import annotations

from collections import deque

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Scope

from quattro_web._scope import describe
from quattro_web.testing._reply import Reply, expect, headers_of
from quattro_web.testing._response import Response, WebSocketRefusedError
from quattro_web.testing._serving import ClientLeftError, Serving

# What the other end has, if a connection is lost without a close frame.
LOST = 1006


class ServedWebSocket(Serving):
    """The server's end of a WebSocket: what the app sends is held against what servers let pass."""

    def __init__(self, app: ASGIApp, scope: Scope, *, raises: bool) -> None:
        self.headers: Headers = Headers()
        self.subprotocol: str | None = None
        self.close_code: int | None = None
        self.close_reason: str = ""
        self._is_accepted = False
        self._refusal = Reply(prefix="websocket.")
        self._refusal_body = bytearray()
        self._messages: deque[Message] = deque()
        self._farewell: Message | None = None
        super().__init__(app, scope, raises=raises)
        self._say({"type": "websocket.connect"})

    @property
    def _is_over(self) -> bool:
        return self._has_left or self.close_code is not None or self._task.done()

    def _refused(self) -> WebSocketRefusedError:
        status = self._refusal.status_code or 403
        response = Response(status, self._refusal.headers, bytes(self._refusal_body))
        msg = f"{describe(self._scope)} was refused with status {status}"
        return WebSocketRefusedError(msg, response)

    def _take(self, message: Message) -> int:
        if self._has_left:
            msg = "the client has left"
            raise ClientLeftError(msg)
        if self._refusal.is_begun:
            self._refusal_body += self._refusal.take(message)
            return 0
        expect(message, *self._expected)
        match message["type"]:
            case "websocket.send":
                self._messages.append(message)
                return len(content_of(message))
            case "websocket.accept":
                self._is_accepted = True
                self.headers = headers_of(message)
                self.subprotocol = message.get("subprotocol")
            case "websocket.close":
                self.close_code = int(message.get("code") or 1000)
                self.close_reason = message.get("reason") or ""
            case _:
                self._refusal.take(message)
        return 0

    @property
    def _expected(self) -> tuple[str, ...]:
        if self.close_code is not None:
            return ()
        if self._is_accepted:
            return ("websocket.send", "websocket.close")
        return ("websocket.accept", "websocket.close", "websocket.http.response.start")

    def _answer_failure(self) -> None:
        if self.close_code is None:
            self._refusal_body += self._refusal.fail()

    def _end_of_input(self) -> Message | None:
        if self.close_code is not None:
            closed = {"code": self.close_code, "reason": self.close_reason}
            return {"type": "websocket.disconnect", **closed}
        return self._farewell

    def _check_end(self) -> None:
        is_answered = self._is_accepted or self._refusal.is_complete
        if not is_answered and self.close_code is None and not self._has_left:
            msg = "the app has returned before it had accepted or refused the WebSocket"
            raise RuntimeError(msg)  # one that is accepted, and not closed, is lost


def content_of(message: Message) -> str | bytes:
    """Return the text of a message, or else its bytes."""
    text: str | None = message.get("text")
    return bytes(message.get("bytes") or b"") if text is None else text
