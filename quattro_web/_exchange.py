"""One request or WebSocket connection as it passes by."""

from __future__ import annotations

import asyncio
from asyncio import current_task
from collections.abc import Awaitable
from time import monotonic
from typing import TYPE_CHECKING

from starlette.types import Message, Receive, Send

from quattro_core import TaskGroup
from quattro_web._ended import COMPLETE, EndedRequest, check_loop
from quattro_web._gate import BODIES, STARTS
from quattro_web._inbox import Inbox
from quattro_web._reason import CancelReason
from quattro_web._request import RequestTasks
from quattro_web._scope import Connection
from quattro_web._settings import Settings

if TYPE_CHECKING:
    from quattro_web._app_run import AppRun
    from quattro_web._patience import Patience
    from quattro_web._watch import Watch


class Exchange(Inbox):
    """One request, with what was sent and received of it, until somebody asks for its group.

    Every request pays for this object, and its `send` hands back the server's own awaitable. What
    every request reads is set by the constructor, since CPython is five times as slow to find it on
    the class; what it may never need is an attribute of the class until it does.
    """

    tasks: RequestTasks | None
    send_now: Send  # the server's
    watch: Watch | None
    reason: CancelReason | None  # why it was cancelled, if it was
    start: Message | None  # the start of the response, or the acceptance of a WebSocket
    sent = 0  # bytes of its body
    complete: bool
    outer: Exchange | EndedRequest | None = None
    inner: Exchange | None  # that of a sub-app, which answers
    patience: Patience | None = None  # what watches its client, if that is to be watched
    expires = 0.0  # when that begins, by the clock of the loop
    has_lasted = False

    def __init__(self, settings: Settings, receive: Receive, send: Send) -> None:
        self._receive = receive
        self.send_now = send
        self.settings = settings
        self.tasks = self.watch = self.start = self.inner = self.reason = None
        self.complete = False
        self.began = monotonic()
        try:
            # The task of the middleware is the parent of the group, whoever asks for it first.
            self.parent = current_task()
        except RuntimeError:  # trio: an app that asks for no group never knows
            self.parent = None

    def send(self, message: Message) -> Awaitable[None]:
        """Send a message, as the server's `send`, but not the end of a response before its time."""
        if self.tasks is not None:
            return self.tasks.send(message)
        kind = message["type"]
        if kind == "http.response.start":
            self.start = message
        elif kind == "http.response.body":
            if message.get("more_body"):
                self.sent += len(message.get("body", b""))
            else:
                self.complete = True
        elif kind == "websocket.close" and self.watch is not None:
            return self._close_unwatched(message)
        else:
            self.note(message)
        return self.send_now(message)

    def pass_on(self, message: Message) -> Awaitable[None]:
        """Send a message as it is, and take note of it."""
        self.note(message)
        return self.send_now(message)

    def note(self, message: Message) -> None:
        """Take in a message that is sent on."""
        kind = message["type"]
        if kind in _BODIES:
            self.sent += len(message.get("body", b""))
            if not message.get("more_body", False):
                self.complete = True
        elif kind in _STARTS:
            self.start = message
        elif kind in _ENDS:
            self.complete = True

    async def forward(self, message: Message) -> None:
        """Send a message as it is, for those who need a coroutine."""
        await self.pass_on(message)

    async def _close_unwatched(self, close: Message) -> None:
        # granian does not send it while a receive() is waiting, as that of the watch is.
        await self.unwatch()
        await self.forward(close)

    def _left(self, message: Message) -> None:
        super()._left(message)
        if self.patience is not None:
            self.patience.watch(self)  # the app itself has read of it, before it was watched

    # The group

    @property
    def is_accepted(self) -> bool:
        """Whether this is a WebSocket that was accepted."""
        return self.start is not None and self.start["type"] == "websocket.accept"

    @property
    def group(self) -> TaskGroup | None:
        """The task group, if somebody has asked for it."""
        return None if self.tasks is None else self.tasks.group

    def open_group(self, conn: Connection) -> TaskGroup:
        """Make the group.

        Raises:
            RuntimeError: If the request has ended, in a thread, or on another event loop.
        """
        # It may have ended incomplete, and somebody have a copy of its scope.
        if self.complete or self not in self.settings.requests:
            raise RuntimeError(COMPLETE)
        if self.parent is None:
            msg = "the task group of a request needs asyncio: this app runs on another event loop"
            raise RuntimeError(msg)
        group = self.settings.new_group()
        try:
            group.enter(self.parent)
        except RuntimeError:
            check_loop(self.parent)
            raise
        self.tasks = RequestTasks(self, group, conn)
        return group

    def interrupt(self, conn: Connection, reason: CancelReason) -> None:
        """Cancel the handler and its children, once; not when the response is complete.

        Nothing of the response leaves from now on. A handler that waits for a thread is cancelled
        when the thread has ended.
        """
        if self.reason is None and not self.complete:
            self.reason = reason
            group = self.group or self.open_group(conn)
            group.cancel(reason)

    def cut_off(self, conn: Connection) -> None:
        """Cancel the request for the shutdown, and the BackgroundTasks of one that is complete.

        A section that must not be cut is cancelled at its end.
        """
        if self.parent is None:
            return
        if self.complete:
            self.reason = CancelReason.SHUTDOWN  # whatever has cancelled it before it was answered
            self.parent.cancel(self.reason)
        elif self.watch is not None:
            self.watch.interrupt(CancelReason.SHUTDOWN)
        else:
            self.interrupt(conn, CancelReason.SHUTDOWN)

    def was_cut_off(self, exc: BaseException) -> bool:
        """Whether this is the cancellation of a request that was complete: nobody else's."""
        return (
            isinstance(exc, asyncio.CancelledError)
            and self.reason is CancelReason.SHUTDOWN
            and self.complete
            and self.parent is not None
            and not self.parent.uncancel()
        )

    def runs_in(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether it is served in that event loop."""
        try:
            return self.parent is not None and self.parent.get_loop() is loop
        except RuntimeError:  # what looks like a task, see check_loop
            return False

    async def unwatch(self) -> None:
        """Stop watching the client and the clock."""
        if self.watch is not None:
            self.watch.stop()
            self.watch = None
        if self.is_read_ahead:
            await self.stop_reading()

    def lets_go(self) -> bool:
        """Let go of the group, if it has ended as it should and nobody has cancelled the request.

        Returns:
            Whether that is so: nothing is left to be done.
        """
        tasks, parent = self.tasks, self.parent
        if tasks is None or parent is None or not tasks.is_over or parent.cancelling():
            return False
        tasks.unguard()
        self.tasks = None  # it refers to what refers to it
        return True

    async def close(self) -> None:
        """Let go of the group, of the watch and of what refers to them: the request has ended."""
        tasks, self.tasks, outer = self.tasks, None, self.outer
        if isinstance(outer, Exchange) and outer.inner is self:
            outer.inner = None
        if tasks is not None:
            tasks.abandon()
            tasks.unguard()
        if self.watch is not None:
            await self.unwatch()
            self.tell(None)
        if isinstance(outer, Exchange) and outer.is_read_ahead:
            await outer.stop_reading()  # its watch has moved here

    # The app

    @property
    def innermost(self) -> Exchange:
        """Itself, or that of the sub-app which answers: nearest to the handler.

        The scope does not tell, where somebody in between has made a copy of it for the sub-app.
        """
        exchange = self
        while exchange.inner is not None:
            exchange = exchange.inner
        return exchange

    def app_run(self) -> AppRun | None:
        """Return what runs as long as the app does; a sub-app has that of its app."""
        own = self.settings.app_run()
        return self.outer.app_run() if own is None and self.outer is not None else own


_STARTS = STARTS | {"websocket.accept"}
_ENDS = frozenset({"http.response.pathsend", "websocket.close"})
_BODIES = BODIES - _ENDS - {"http.response.trailers"}
