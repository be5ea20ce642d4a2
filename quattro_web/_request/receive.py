"""The only reader of the server's `receive`."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable

from starlette.types import Message, Receive

# What may be waiting for an app that does not read: a body that is larger is held up where it comes
# from, and a smaller one does not hide that its client has left.
READ_AHEAD = 65536

logger = logging.getLogger("quattro_web")

DISCONNECTS = frozenset({"http.disconnect", "websocket.disconnect"})


class RequestReader:
    """What the client sends, in order, and the news that it has left.

    Each message is passed on as it comes, until somebody wants to know of the client's leaving
    while the app reads nothing. Then a task reads ahead, and the app gets its messages from there:
    some that it has not taken yet and no more, so that a body that arrives faster than it is read
    is held up where it comes from. After the end of the body there is nothing left but the news.

    Args:
        receive: The server's.

    Attributes:
        gone: The message that says that the client has left, when it has come. It is remembered for
            ever: hypercorn tells it once, then hangs.
    """

    def __init__(self, receive: Receive) -> None:
        self.gone: Message | None = None
        self._receive = receive
        self._on_gone: Callable[[], None] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._messages: deque[Message] | None = None  # read ahead
        self._reading = 0
        self._touched = self._ahead = self._ended = False
        self._kept: list[Message] | None = None

    async def receive(self) -> Message:
        """Return the next message, for the app."""
        while self._is_reading_ahead and not self._messages:
            self._arrived.clear()
            await self._arrived.wait()
        if self._messages:
            self._taken.set()
            return self._passed_on(self._messages.popleft())
        if self.gone is not None:
            return self.gone
        self._touched = True
        self._reading += 1
        try:
            # Awaited as it is: granian's receive() returns no coroutine.
            message = await self._receive()
            if message["type"] in DISCONNECTS:
                self._left(message)
            return self._passed_on(message)
        finally:
            self._reading -= 1
            if self._ahead and self.gone is None:
                self._start()  # also when the read was cancelled: nobody else will tell

    def keep_body(self) -> None:
        """Keep what of the body is passed on from now, for `replay`, up to 64 KiB."""
        self._kept = []

    def replay(self) -> Receive:
        """Return a `receive` that begins anew with the body, for whoever answers for the app.

        Where the body was not kept, it is empty, instead of something that never comes.
        """
        kept, ended = deque(self._kept or ()), self._ended

        async def receive() -> Message:
            nonlocal ended
            if kept:
                return kept.popleft()
            if ended and self._kept is None:
                ended = False
                return {"type": "http.request", "body": b"", "more_body": False}
            return await self.receive()

        return receive

    def _passed_on(self, message: Message) -> Message:
        if message["type"] == "http.request":
            self._ended = not message.get("more_body", False)
            if self._kept is not None:
                self._kept.append(message)
                if _weight(self._kept) > READ_AHEAD:
                    self._kept = None
        return message

    def on_disconnect(self, on_gone: Callable[[], None] | None) -> None:
        """Call *on_gone*, once, when it is known that the client has left; None calls nothing."""
        self._on_gone = on_gone
        if self.gone is not None:
            self._left(self.gone)

    @property
    def has_listener(self) -> bool:
        """Whether anything is called when the client leaves."""
        return self._on_gone is not None

    def read_ahead(self, *, touch: bool) -> None:
        """Read ahead, so that the client's leaving is known while the app reads nothing.

        Args:
            touch: Whether reading may begin before the app does. Where the client waits for
                ``100 Continue``, the first read is what sends it.
        """
        self._ahead = True
        if self.gone is None and (touch or self._touched):
            self._start()

    @property
    def is_read_ahead(self) -> bool:
        """Whether a task has been reading ahead."""
        return self._reader is not None

    async def stop_reading(self) -> None:
        """End the reading ahead."""
        self._on_gone, self._ahead = None, False
        # Its CancelledError refers to this object, by the traceback: a cycle, if the task stayed.
        # granian keeps a WebSocket open until nothing refers to its receive() any more.
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.cancel()
            await asyncio.wait((reader,))

    @property
    def _is_reading_ahead(self) -> bool:
        return self._reader is not None and not self._reader.done()

    def _start(self) -> None:
        # While the app itself waits for a message there must be no second reader: it tells.
        if self._reader is None and not self._reading and not self._messages:
            self._messages = deque()
            self._arrived = asyncio.Event()
            self._taken = asyncio.Event()
            reading = self._read(self._messages)
            self._reader = asyncio.create_task(reading, name="quattro_web disconnect watcher")

    async def _read(self, messages: deque[Message]) -> None:
        try:
            while self.gone is None:
                message = await self._receive()
                if message["type"] in DISCONNECTS:
                    self._left(message)
                    return
                messages.append(message)
                self._arrived.set()
                while message.get("more_body", True) and _weight(messages) >= READ_AHEAD:
                    self._taken.clear()
                    await self._taken.wait()
        except Exception:
            logger.exception("the server's receive() failed while the client was being watched")
        finally:
            self._arrived.set()

    def _left(self, message: Message) -> None:
        self.gone = message
        on_gone, self._on_gone = self._on_gone, None
        if on_gone is not None:
            on_gone()


def _weight(messages: Iterable[Message]) -> int:
    """Return about how much memory some messages take, in bytes: at least 1 KiB each."""
    return sum(
        max(1024, len(message.get("body") or message.get("bytes") or message.get("text") or b""))
        for message in messages
    )
