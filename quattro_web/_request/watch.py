"""What may cancel a request: a disconnect and a deadline, if they were asked for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextvars import Context, ContextVar
from typing import Any, Protocol
from weakref import ref

from quattro_core import TaskGroup
from quattro_web._request.receive import RequestReader
from quattro_web._request.state import CancelReason
from quattro_web._util.facts import facts
from quattro_web._util.scope import Connection, describe
from quattro_web._util.task_stacks import named_places, task_name

logger = logging.getLogger("quattro_web")

# A request that is answered sooner is never watched: it pays for a timer, not for a task.
WATCH_AFTER = 0.05

# For those who are called without the request, and pass on what it has left of its time. One that a
# server has leaked into another request has stopped, and says nothing. A context lives as long as
# its task, to which the request refers: it must not refer back.
_WITH_DEADLINE: ContextVar[ref[Watch] | None] = ContextVar("quattro_web.deadline", default=None)


def time_left_here() -> float | None:
    """Return the seconds that the request which is handled here has left; None if nothing ends it.

    Also None in a section that must not be cut.
    """
    found = _WITH_DEADLINE.get()
    watch = None if found is None else found()
    return None if watch is None else watch.time_left_to_pass_on


class WatchedRequest(Protocol):
    """What is needed of a request to watch it."""

    watch: Watch | None
    watch_timer: WatchTimer | None
    expires: float
    has_lasted: bool
    parent: asyncio.Task[Any] | None

    @property
    def has_begun(self) -> bool: ...
    @property
    def is_over(self) -> bool: ...
    @property
    def reader(self) -> RequestReader: ...
    @property
    def group(self) -> TaskGroup | None: ...
    @property
    def innermost(self) -> WatchedRequest: ...
    @property
    def conn(self) -> Connection | None: ...
    def open_watch(self, conn: Connection) -> Watch: ...
    def runs_in(self, loop: asyncio.AbstractEventLoop) -> bool: ...
    def interrupt(self, conn: Connection, reason: CancelReason) -> None: ...


class Watch:
    """The timers of one request, and the sections of it that must not be cut."""

    _timer: asyncio.TimerHandle | None = None
    _deadline: asyncio.TimerHandle | None = None
    # By the clock of the loop: when the response has to begin, and when it has to be complete if it
    # is a stream that has begun by then.
    _begins_by: float | None = None
    _ends_by: float | None = None
    _asked_by: float | None = None  # when its client wants it to begin
    _must_end: bool  # whether only the second one counts any more
    _is_decided = False
    _uninterrupted = 0
    _section_end: asyncio.Future[None] | None = None
    _pending: tuple[CancelReason, ...] = ()

    def __init__(self, request: WatchedRequest, conn: Connection) -> None:
        self._request = request
        self._conn = conn
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()

    def begin(self) -> None:
        """Watch the client from now on, unless it was said whether to do so."""
        if not self._is_decided:
            self._is_decided = True
            self._request.reader.on_disconnect(self._left)
            self._watch_client()

    def disconnect(self, *, cancels: bool) -> None:
        """Say whether the client's leaving cancels the request."""
        self._is_decided = True
        if self._timer is not None:
            self._timer.cancel()
        self._request.reader.on_disconnect(self._left if cancels else None)
        if cancels:
            self._timer = self._loop.call_later(WATCH_AFTER, self._watch_client)

    def deadline(self, seconds: float | None, stream: float | None) -> None:
        """Set the deadlines, in seconds from now; None means no deadline.

        Args:
            seconds: Until the response begins, or is complete if it is no stream. A WebSocket has
                no response: until it is closed.
            stream: Until a stream is complete, at least as long.
        """
        now = self._loop.time()
        self._begins_by = None if seconds is None else now + seconds
        self._ends_by = None if seconds is None or stream is None else now + stream
        self._set_deadline()

    def shorten_deadline(self, seconds: float) -> None:
        """Have the response begin within some seconds from now, whatever deadline is set later."""
        asked_by = self._loop.time() + seconds
        self._asked_by = asked_by if self._asked_by is None else min(asked_by, self._asked_by)
        self._set_deadline()

    def _set_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._must_end = False
        if self._asked_by is not None:
            by = self._begins_by
            self._begins_by = self._asked_by if by is None else min(by, self._asked_by)
        if self._begins_by is not None:
            self._request.reader.keep_body()
            if self._conn["type"] == "websocket":
                self._ends_by, self._must_end = self._begins_by, True
            self._deadline = self._loop.call_at(self._begins_by, self._expire)
            _WITH_DEADLINE.set(ref(self))

    @property
    def time_left(self) -> float | None:
        """The seconds until the deadline that counts now, 0.0 if it has passed."""
        until = self._ends_by if self._request.has_begun else self._begins_by
        return None if until is None else max(0.0, until - self._loop.time())

    @property
    def time_left_to_pass_on(self) -> float | None:
        """The seconds that what is called may take; None where no deadline would end it."""
        return None if self._request.is_over or self._uninterrupted else self.time_left

    async def sections_end(self) -> None:
        """Wait until no such section goes on."""
        while self._uninterrupted:
            if self._section_end is None:
                self._section_end = self._loop.create_future()
            await asyncio.shield(self._section_end)

    def enter_uninterrupted(self) -> None:
        """Begin a section that neither of the two may cut."""
        self._uninterrupted += 1

    def exit_uninterrupted(self) -> None:
        """End such a section; what has come meanwhile cancels the request now."""
        self._uninterrupted -= 1
        if self._uninterrupted:
            return
        if self._section_end is not None:
            self._section_end.set_result(None)
            self._section_end = None
        pending, self._pending = self._pending, ()
        for reason in pending:  # the first one counts
            if reason is not CancelReason.DEADLINE or not self._goes_on():
                self._request.interrupt(self._conn, reason)

    def move_to(self, request: WatchedRequest, conn: Connection) -> None:
        """Watch over the request from further inside, where the handler's own words are heard."""
        if self._request.reader.has_listener:
            self._request.reader.on_disconnect(None)
            request.reader.on_disconnect(self._left)
        if self._request.reader.is_read_ahead:
            request.reader.read_ahead(touch=True)
        self._request.watch, request.watch = None, self
        self._request, self._conn = request, conn

    def stop(self) -> None:
        """Stop both clocks."""
        if self._timer is not None:
            self._timer.cancel()
        if self._deadline is not None:
            self._deadline.cancel()

    def _watch_client(self) -> None:
        expects = any(name == b"expect" for name, _ in self._conn["headers"])
        self._request.reader.read_ahead(touch=not expects)

    def _left(self) -> None:
        if not self._request.is_over:
            when = " at the end of its uninterrupted section" if self._uninterrupted else ""
            logger.info(
                "%s: the client has left, its handler is cancelled%s",
                describe(self._conn),
                when,
                extra=facts(self._conn),
            )
            self.interrupt(CancelReason.DISCONNECT)

    def _goes_on(self) -> bool:
        """Whether the response has begun in time, and is a stream: then its own deadline counts."""
        if self._must_end or not self._request.has_begun:
            return False
        self._must_end = True
        if self._ends_by is not None:
            self._deadline = self._loop.call_at(self._ends_by, self._expire)
        return True

    def _expire(self) -> None:
        if self._request.is_over or self._goes_on():
            return
        running = [("handler", self._request.parent)] if self._request.parent else []
        if self._request.group is not None:
            running += [(task_name(task), task) for task in self._request.group.tasks]
        logger.warning(
            "%s has passed its deadline after %.3f s; still running: %s",
            describe(self._conn),
            self._loop.time() - self._began,
            named_places(running),
            extra=facts(self._conn, seconds=self._loop.time() - self._began),
        )
        self.interrupt(CancelReason.DEADLINE)

    def interrupt(self, reason: CancelReason) -> None:
        """Cancel the request, at the end of a section that must not be cut if it is in one."""
        if self._uninterrupted:
            self._pending = (*self._pending, reason)
        else:
            self._request.interrupt(self._conn, reason)


# Seconds between two looks, at least: under load one timer stands for many requests.
STEP = 0.01


class WatchTimer:
    """Begins to watch the client of each request that lasts.

    A timer for each request would cost as much as a child. There is one for all that are open in an
    event loop, and none while there are none: a request that is answered sooner pays nothing more.

    Args:
        requests: Those that are open, the oldest one first, each with its scope.
    """

    def __init__(self, requests: Mapping[Any, Connection]) -> None:
        self._requests = requests
        self._ticking: set[asyncio.AbstractEventLoop] = set()

    def begin(self, request: WatchedRequest) -> None:
        """Take note that a request begins, in the current event loop."""
        loop = asyncio.get_running_loop()
        request.watch_timer = self
        request.expires = loop.time() + WATCH_AFTER
        if loop not in self._ticking:
            # One that was closed in between never comes to its end by itself. Others may come and
            # go meanwhile, in other threads.
            for other in tuple(self._ticking):
                if other.is_closed():
                    self._ticking.discard(other)
            self._ticking.add(loop)
            # Not in the context of the request that happens to be the first one.
            loop.call_later(WATCH_AFTER, self._tick, loop, context=Context())

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        due, next_one = [], None
        # The newest ones first, until those that were met before.
        for request in reversed(tuple(self._requests)):
            if not request.runs_in(loop):
                continue
            if request.has_lasted:
                break
            if request.expires <= now:
                request.has_lasted = True
                due.append(request)
            else:
                next_one = request.expires
        if next_one is None:
            self._ticking.discard(loop)
        else:
            loop.call_at(max(next_one, now + STEP), self._tick, loop)
        for request in due:
            _context_of(request).run(self.watch, request)

    def watch(self, request: WatchedRequest) -> None:
        """Watch the client of a request from now on, unless that is done or was turned off."""
        request = request.innermost
        conn = request.conn
        if conn is None:
            return  # it has ended meanwhile
        (request.watch or request.open_watch(conn)).begin()


def _context_of(request: WatchedRequest) -> Context:
    """Return the context of a request, which its log entries carry; an empty one on Python 3.11."""
    get_context: Callable[[], Context] = getattr(request.parent, "get_context", Context)
    return get_context()
