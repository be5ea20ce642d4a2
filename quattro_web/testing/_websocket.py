"""One WebSocket, as its client sees it."""

from __future__ import annotations

import json
from collections import deque
from types import TracebackType
from typing import Any, Self

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Scope
from starlette.websockets import WebSocketDisconnect

from quattro_web._util.scope import describe
from quattro_web.testing._connection import ClientLeftError, ServedConnection
from quattro_web.testing._http import Response, ResponseState, expect, headers_of

# The code at the other end, if a connection is lost without a close frame.
LOST = 1006


class WebSocketExchange(ServedConnection):
    """The client's end of a WebSocket; created by `AppClient.websocket`.

    The block opens it::

        async with client.websocket("/talk") as socket:
            await socket.send_text("hello")
            assert await socket.receive_text() == "hello, too"

    When the block ends, the client closes the connection, and waits until the app has finished.

    Attributes:
        headers: The headers with which the app accepted it.
        subprotocol: The subprotocol that the app chose, if any.
        close_code: The code with which the app closed it; None while it is open.
        close_reason: The reason that the app gave.

    .. versionadded:: 0.1
    """

    def __init__(self, app: ASGIApp, scope: Scope, *, raises: bool) -> None:
        self.headers: Headers = Headers()
        self.subprotocol: str | None = None
        self.close_code: int | None = None
        self.close_reason: str = ""
        self._is_accepted = False
        self._refusal = ResponseState(prefix="websocket.")
        self._refusal_body = bytearray()
        self._messages: deque[Message] = deque()
        self._disconnect: Message | None = None
        super().__init__(app, scope, raises=raises)
        self._feed({"type": "websocket.connect"})

    async def __aenter__(self) -> Self:
        """Wait until the app has accepted it.

        Raises:
            WebSocketRefusedError: If it has refused it.
            Exception: What it has raised instead, if that is to be raised.
        """
        try:
            await self._until(lambda: self._is_accepted or self._task.done())
        finally:
            if not self._is_accepted:
                self.drop()
        if not self._is_accepted:
            self._raise_error()
            raise self._refused()
        return self

    async def __aexit__(
        self,
        et: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()
        if exc is None:
            await self._wait_block_end()

    async def send_text(self, text: str) -> None:
        """Send a text message.

        Raises:
            WebSocketDisconnect: If the connection is closed.

        .. versionadded:: 0.1
        """
        self._send_to_app({"text": text})

    async def send_bytes(self, data: bytes) -> None:
        """Send a binary message.

        Raises:
            WebSocketDisconnect: If the connection is closed.

        .. versionadded:: 0.1
        """
        self._send_to_app({"bytes": data})

    async def send_json(self, value: Any) -> None:
        """Send a value as JSON, in a text message.

        Raises:
            WebSocketDisconnect: If the connection is closed.

        .. versionadded:: 0.1
        """
        self._send_to_app({"text": json.dumps(value)})

    async def receive_text(self) -> str:
        """Return the next message, which must be text.

        Raises:
            TypeError: If the message is binary.
            WebSocketDisconnect: If the app has closed the connection; it has the close code.
            Exception: Whatever the app raised, if *raise_app_exceptions* is true.

        .. versionadded:: 0.1
        """
        return str(await self._receive_from_app("text"))

    async def receive_bytes(self) -> bytes:
        """Return the next message, which must be binary.

        Raises:
            TypeError: If the message is text.
            WebSocketDisconnect: If the app has closed the connection; it has the close code.
            Exception: Whatever the app raised, if *raise_app_exceptions* is true.

        .. versionadded:: 0.1
        """
        return bytes(await self._receive_from_app("bytes"))

    async def receive_json(self) -> Any:
        """Return the next message, parsed as JSON.

        Raises:
            ValueError: If the message is not JSON.
            WebSocketDisconnect: If the app has closed the connection; it has the close code.
            Exception: Whatever the app raised, if *raise_app_exceptions* is true.

        .. versionadded:: 0.1
        """
        return json.loads(await self._receive_from_app())

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection. The app receives ``websocket.disconnect`` with the code.

        .. versionadded:: 0.1
        """
        if not self._has_left and self.close_code is None:
            self._disconnect = {"type": "websocket.disconnect", "code": code, "reason": reason}
            super()._leave()

    def drop(self) -> None:
        """Drop the connection without a close frame; the code is then 1006.

        .. versionadded:: 0.1
        """
        self.close(LOST)

    async def wait_finished(self) -> Self:
        """Wait until the app has finished with the connection.

        Raises:
            Exception: Whatever the app raised, if *raise_app_exceptions* is true.

        .. versionadded:: 0.1
        """
        await self._wait_finished()
        return self

    def __repr__(self) -> str:
        state = "open" if self._is_accepted and not self._is_over else "closed"
        return f"<{type(self).__name__} {describe(self._scope)}: {state}>"

    # The client's end

    def _leave(self) -> None:
        self.drop()

    def _send_to_app(self, message: Message) -> None:
        if self._is_over:
            raise self._disconnected()
        self._feed({"type": "websocket.receive", **message})

    async def _receive_from_app(self, kind: str = "") -> Any:
        await self._until(lambda: self._messages or self._is_over)
        if not self._messages:
            self._raise_error()
            raise self._disconnected()
        message = self._messages.popleft()
        content = _content_of(message)
        self._unread -= len(content)
        self._changed.set()
        if kind and message.get(kind) is None:
            msg = f"a message with {kind} was expected, got {content!r}"
            raise TypeError(msg)
        return content

    def _disconnected(self) -> WebSocketDisconnect:
        code = LOST if self.close_code is None else self.close_code
        return WebSocketDisconnect(code, self.close_reason)

    # The app's end

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
                return len(_content_of(message))
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
        return self._disconnect

    def _check_end(self) -> None:
        is_answered = self._is_accepted or self._refusal.is_complete
        if not is_answered and self.close_code is None and not self._has_left:
            msg = "the app has returned before it had accepted or refused the WebSocket"
            raise RuntimeError(msg)  # one that is accepted, and not closed, is lost


class WebSocketRefusedError(ConnectionError):
    """The app refused a WebSocket.

    Attributes:
        response: The app's response; 403, as on a server, if the app just closed the connection.

    .. versionadded:: 0.1
    """

    def __init__(self, message: str, response: Response) -> None:
        super().__init__(message)
        self.response = response


def _content_of(message: Message) -> str | bytes:
    """Return the text of a message, or else its bytes."""
    text: str | None = message.get("text")
    return bytes(message.get("bytes") or b"") if text is None else text
