"""A client of ASGI apps in process, which records each message and can misbehave as clients do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Self, TypeVar, cast

from starlette.types import ASGIApp, Message, Scope

from tests.support.clock import VirtualClockLoop

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T], *, stray: str = "") -> T:
    """Run a test in a loop of its own, on a virtual clock; no task may be left of it.

    Args:
        main: The test.
        stray: The name of a coroutine function of somebody else that may be left.
    """

    async def checked() -> T:
        result = await main
        left = {task for task in asyncio.all_tasks() if _name(task) != stray}
        left.discard(cast("asyncio.Task[Any]", asyncio.current_task()))
        assert not left, f"tasks are left: {left}"
        return result

    with asyncio.Runner(debug=True, loop_factory=VirtualClockLoop) as runner:
        return runner.run(checked())


def _name(task: asyncio.Task[Any]) -> str:
    return str(getattr(task.get_coro(), "__name__", ""))


class Exchange:
    """One HTTP request and what became of it.

    Args:
        app: The app.
        method: The method.
        path: The path, with a query string if there is one.
        headers: The request's headers.
        body: The request's body, in the pieces in which it arrives.
        unfinished: Whether more of the body is to come, by `upload`.
        extensions: The ASGI extensions of the server.
        log: Where the messages are noted, as text, between the test's own entries.
        on_send: Awaited with each message, as a slow client makes a server wait.
    """

    def __init__(
        self,
        app: ASGIApp,
        path: str = "/",
        *,
        method: str = "GET",
        headers: Iterable[tuple[str, str]] = (),
        body: Iterable[bytes] | None = None,
        unfinished: bool = False,
        extensions: dict[str, Any] | None = None,
        log: list[str] | None = None,
        on_send: Callable[[Message], Coroutine[Any, Any, None]] | None = None,
        **scope: Any,
    ) -> None:
        self.app = app
        path, _, query = path.partition("?")
        self.scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 80),
            "extensions": extensions or {},
            "state": {},
            **scope,
        }
        self.sent: list[Message] = []
        self.log: list[str] = [] if log is None else log
        self.error: BaseException | None = None
        self._on_send = on_send
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        for number, piece in enumerate(pieces := [b""] if body is None else list(body), 1):
            self.upload(piece, more=number < len(pieces) or unfinished)

    async def run(self) -> Self:
        """Let the app serve the request; what it raises is kept in `error`, as by a server."""
        try:
            await self.app(self.scope, self.receive, self.send)
        except Exception as exc:
            self.error = exc
            self.log.append(f"raised {type(exc).__name__}")
        return self

    def disconnect(self) -> None:
        """Leave, after all that was sent before."""
        self._inbox.put_nowait({"type": "http.disconnect"})

    def disconnect_after(self, seconds: float) -> Self:
        """Leave in a while."""
        asyncio.get_running_loop().call_later(seconds, self.disconnect)
        return self

    def upload(self, piece: bytes, *, more: bool = True) -> None:
        """Send a piece of the body."""
        self._inbox.put_nowait({"type": "http.request", "body": piece, "more_body": more})

    async def receive(self) -> Message:
        message = await self._inbox.get()
        if message["type"] == "http.disconnect":
            self.disconnect()
        return message

    async def send(self, message: Message) -> None:
        self.sent.append(message)
        self.log.append(_note(message))
        if self._on_send is not None:
            await self._on_send(message)

    @property
    def status(self) -> int:
        [start] = [m for m in self.sent if m["type"] == "http.response.start"]
        return int(start["status"])

    @property
    def headers(self) -> dict[str, str]:
        [start] = [m for m in self.sent if m["type"] == "http.response.start"]
        return {name.decode(): value.decode() for name, value in start["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(m.get("body", b"") for m in self.sent if m["type"] == "http.response.body")

    @property
    def is_complete(self) -> bool:
        """Whether the client has seen a clean end."""
        return bool(self.sent) and _ends(self.sent[-1]) and self.error is None


async def get(app: ASGIApp, path: str = "/", **options: Any) -> Exchange:
    """Make one request."""
    return await Exchange(app, path, **options).run()


class Socket:
    """One WebSocket connection: `inbox` is what the client sends, `sent` what the app does."""

    def __init__(self, app: ASGIApp, path: str = "/", *, log: list[str] | None = None) -> None:
        self.app = app
        self.scope: Scope = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "scheme": "ws",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [],
            "subprotocols": [],
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 80),
            "extensions": {"websocket.http.response": {}},
            "state": {},
        }
        self.sent: list[Message] = []
        self.log: list[str] = [] if log is None else log
        self.error: BaseException | None = None
        self.inbox: asyncio.Queue[Message] = asyncio.Queue()
        self.inbox.put_nowait({"type": "websocket.connect"})

    async def run(self) -> Self:
        try:
            await self.app(self.scope, self.inbox.get, self.send)
        except Exception as exc:
            self.error = exc
            self.log.append(f"raised {type(exc).__name__}")
        return self

    def say(self, text: str) -> None:
        self.inbox.put_nowait({"type": "websocket.receive", "text": text})

    def leave(self, code: int = 1001) -> None:
        self.inbox.put_nowait({"type": "websocket.disconnect", "code": code, "reason": ""})

    async def send(self, message: Message) -> None:
        self.sent.append(message)
        self.log.append(_note(message))


def _note(message: Message) -> str:
    kind = message["type"]
    if kind.endswith("http.response.start"):
        return f"start {message['status']}"
    if kind.endswith("http.response.body"):
        body = message.get("body", b"").decode(errors="replace")
        return f"body {body}".rstrip() if not message.get("more_body", False) else f"chunk {body}"
    if kind == "websocket.close":
        return f"close {message.get('code', 1000)}"
    if kind == "websocket.send":
        return f"send {message.get('text') or message.get('bytes')}"
    return str(kind.rpartition(".")[2])


def _ends(message: Message) -> bool:
    if message["type"] == "http.response.body":
        return not message.get("more_body", False)
    return message["type"] in ("http.response.pathsend", "http.response.trailers")
