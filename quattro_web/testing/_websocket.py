"""One WebSocket, seen by the client that has opened it."""

from __future__ import annotations

import json
from collections import deque
from types import TracebackType
from typing import Any, Self

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Scope
from starlette.websockets import WebSocketDisconnect

from quattro_web._scope import describe
from quattro_web.testing._response import Response, WebSocketRefusedError
from quattro_web.testing._serving import Serving

# What the other end has, if a connection is lost without a close frame.
LOST = 1006


class WebSocketExchange(Serving):
    """The client's end of a WebSocket. `AppClient.websocket` makes one.

    The block opens it::

        async with client.websocket("/talk") as socket:
            await socket.send_text("hello")
            assert await socket.receive_text() == "hello, too"

    When the block ends, the client closes it, and waits until the app has finished with it.

    Attributes:
        subprotocol: The subprotocol that the app has chosen, if any.
        close_code: The code with which the app has closed it; None as long as it has not.
        close_reason: The reason that it has given.

    .. versionadded:: 0.1
    """

    def __init__(self, app: ASGIApp, scope: Scope, *, raises: bool) -> None:
        self.subprotocol: str | None = None
        self.close_code: int | None = None
        self.close_reason: str = ""
        self._is_accepted = False
        self._denial: Message | None = None
        self._denied_with = bytearray()
        self._messages: deque[Message] = deque()
        self._farewell: Message | None = None
        super().__init__(app, scope, raises=raises)
        self._say({"type": "websocket.connect"})

    async def __aenter__(self) -> Self:
        """Wait until the app has accepted it.

        Raises:
            WebSocketRefusedError: If it has refused it.
            Exception: What it has raised instead, if that is to be raised.
        """
        await self._until(lambda: self._is_accepted or self._task.done())
        if not self._is_accepted:
            self._raise_error()
            status = 403 if self._error is None else 500
            start = self._denial or {"status": status, "headers": []}
            headers = Headers(raw=list(start.get("headers", ())))
            response = Response(int(start["status"]), headers, bytes(self._denied_with))
            msg = f"{describe(self._scope)} was refused with status {response.status_code}"
            raise WebSocketRefusedError(msg, response)
        return self

    async def __aexit__(
        self,
        et: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()
        if exc is None:
            await self.finished()

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
        """Return the next message, which is text.

        Raises:
            TypeError: If it is binary.
            WebSocketDisconnect: If the app has closed the connection. It has the code.
            Exception: What the app has raised, if that is to be raised.

        .. versionadded:: 0.1
        """
        message = await self._receive_from_app()
        if message.get("text") is None:
            msg = f"a text message was expected, got {message.get('bytes')!r}"
            raise TypeError(msg)
        return str(message["text"])

    async def receive_bytes(self) -> bytes:
        """Return the next message, which is binary.

        Raises:
            TypeError: If it is text.
            WebSocketDisconnect: If the app has closed the connection. It has the code.
            Exception: What the app has raised, if that is to be raised.

        .. versionadded:: 0.1
        """
        message = await self._receive_from_app()
        if message.get("bytes") is None:
            msg = f"a binary message was expected, got {message.get('text')!r}"
            raise TypeError(msg)
        return bytes(message["bytes"])

    async def receive_json(self) -> Any:
        """Return what the next message says, as JSON.

        Raises:
            ValueError: If it is no JSON.
            WebSocketDisconnect: If the app has closed the connection. It has the code.
            Exception: What the app has raised, if that is to be raised.

        .. versionadded:: 0.1
        """
        message = await self._receive_from_app()
        return json.loads(message["bytes"] if message.get("text") is None else message["text"])

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection. The app receives ``websocket.disconnect`` with the code.

        .. versionadded:: 0.1
        """
        if not self._has_left and self.close_code is None:
            self._farewell = {"type": "websocket.disconnect", "code": code, "reason": reason}
            self._leave()

    def drop(self) -> None:
        """Lose the connection, without a close frame: the code is 1006 then.

        .. versionadded:: 0.1
        """
        self.close(LOST)

    leave = drop

    async def finished(self) -> Self:
        """Wait until the app has finished with it.

        Raises:
            Exception: What the app has raised, if that is to be raised.

        .. versionadded:: 0.1
        """
        await self._finished()
        return self

    def __repr__(self) -> str:
        state = "open" if self._is_accepted and not self._is_over else "closed"
        return f"<{type(self).__name__} {describe(self._scope)}: {state}>"

    @property
    def _is_over(self) -> bool:
        return self._has_left or self.close_code is not None or self._task.done()

    def _send_to_app(self, message: Message) -> None:
        if self._is_over:
            raise self._disconnected()
        self._say({"type": "websocket.receive", **message})

    async def _receive_from_app(self) -> Message:
        await self._until(lambda: self._messages or self._is_over)
        if not self._messages:
            if self._task.done():
                self._raise_error()
            raise self._disconnected()
        message = self._messages.popleft()
        self._unread -= _size(message)
        self._changed.set()
        return message

    def _disconnected(self) -> WebSocketDisconnect:
        code = LOST if self.close_code is None else self.close_code
        return WebSocketDisconnect(code, self.close_reason)

    # The app's end

    def _take(self, message: Message) -> int:
        kind = message["type"]
        if self._has_left:
            msg = "the client has left"  # as servers say, and Starlette expects
            raise OSError(msg)
        if self.close_code is not None:
            msg = f"the app has sent {kind!r} after it had closed the connection"
            raise RuntimeError(msg)
        if kind == "websocket.close":
            self.close_code = int(message.get("code") or 1000)
            self.close_reason = message.get("reason") or ""
        elif kind == "websocket.accept":
            self._is_accepted = True
            self.subprotocol = message.get("subprotocol")
        elif kind == "websocket.http.response.start":
            self._denial = message
        elif kind == "websocket.http.response.body":
            self._denied_with += message.get("body", b"")
        else:
            self._messages.append(message)
            return _size(message)
        return 0

    def _end_of_input(self) -> Message | None:
        if self.close_code is not None:
            closed = {"code": self.close_code, "reason": self.close_reason}
            return {"type": "websocket.disconnect", **closed}
        return self._farewell

    def _check_end(self) -> None:
        pass  # one that is not closed is lost


def _size(message: Message) -> int:
    return len(message.get("text") or message.get("bytes") or "")
