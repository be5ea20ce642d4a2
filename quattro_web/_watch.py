"""What may cancel a request: its client's leaving and its deadline, where they were asked for."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from quattro_web._reason import CancelReason
from quattro_web._scope import Connection, describe
from quattro_web._where import where

if TYPE_CHECKING:
    from quattro_web._exchange import Exchange

logger = logging.getLogger("quattro_web")

# A request that is answered sooner is never watched: it pays for a timer, not for a task.
WATCH_AFTER = 0.05


class Watch:
    """The timers of one request, and the sections of it that must not be cut."""

    _patience: asyncio.TimerHandle | None = None
    _deadline: asyncio.TimerHandle | None = None
    _is_decided = False
    _uninterrupted = 0
    _pending: CancelReason | None = None

    def __init__(self, request: Exchange, conn: Connection) -> None:
        self._request = request
        self._conn = conn
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()

    def begin(self) -> None:
        """Watch the client from now on, unless it was said whether to do so."""
        if not self._is_decided:
            self._is_decided = True
            self._request.tell(self._left)
            self._watch_client()

    def disconnect(self, *, cancels: bool) -> None:
        """Say whether the client's leaving cancels the request."""
        self._is_decided = True
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        self._request.tell(self._left if cancels else None)
        if cancels:
            self._patience = self._loop.call_later(WATCH_AFTER, self._watch_client)

    def deadline(self, seconds: float | None) -> None:
        """Set the deadline, in seconds from now; None means no deadline."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if seconds is not None:
            self._request.keep_body()
            self._deadline = self._loop.call_later(seconds, self._expire)

    def enter_uninterrupted(self) -> None:
        """Begin a section that neither of the two may cut."""
        self._uninterrupted += 1

    def exit_uninterrupted(self) -> None:
        """End such a section; what has come meanwhile cancels the request now."""
        self._uninterrupted -= 1
        if self._pending is not None and not self._uninterrupted:
            self._request.interrupt(self._conn, self._pending)

    def move_to(self, request: Exchange, conn: Connection) -> None:
        """Watch over the request from further inside, where the handler's own words are heard."""
        if self._request.is_told:
            self._request.tell(None)
            request.tell(self._left)
        if self._request.is_read_ahead:
            request.read_ahead(touch=True)
        self._request.watch, request.watch = None, self
        self._request, self._conn = request, conn

    def stop(self) -> None:
        """Stop both clocks."""
        if self._patience is not None:
            self._patience.cancel()
        if self._deadline is not None:
            self._deadline.cancel()

    def _watch_client(self) -> None:
        expects = any(name == b"expect" for name, _ in self._conn["headers"])
        self._request.read_ahead(touch=not expects)

    def _left(self) -> None:
        if not self._request.complete:
            when = " at the end of its uninterrupted section" if self._uninterrupted else ""
            logger.info(
                "%s: the client has left, its handler is cancelled%s", describe(self._conn), when
            )
            self.interrupt(CancelReason.DISCONNECT)

    def _expire(self) -> None:
        if self._request.complete:
            return
        running = [("handler", self._request.parent)] if self._request.parent else []
        if self._request.group is not None:
            running += [(task.get_name(), task) for task in self._request.group.tasks]
        logger.warning(
            "%s has passed its deadline after %.3f s; still running: %s",
            describe(self._conn),
            self._loop.time() - self._began,
            ", ".join(f"{name} ({where(task)})" for name, task in running),
        )
        self.interrupt(CancelReason.DEADLINE)

    def interrupt(self, reason: CancelReason) -> None:
        """Cancel the request, at the end of a section that must not be cut if it is in one."""
        if self._uninterrupted:
            self._pending = self._pending or reason
        else:
            self._request.interrupt(self._conn, reason)
