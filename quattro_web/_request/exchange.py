"""One request or WebSocket connection as it passes through, and how its handlers find it."""

from __future__ import annotations

import asyncio
import sys
import threading
from asyncio import current_task, get_running_loop
from asyncio.events import _get_running_loop
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, TypeVar

from starlette.types import Message, Receive, Send

from quattro_core import SharedLimit, TaskGroup
from quattro_core._threads import after_thread
from quattro_core._workers import NotAWorkerError, call_in_loop
from quattro_web._app.run import AppRun
from quattro_web._errors import NoTaskGroupError
from quattro_web._request.handlers import refuse_denial
from quattro_web._request.receive import RequestReader
from quattro_web._request.response import (
    BODIES,
    STARTS,
    ResponseGate,
    close_body,
    listens_for_disconnect,
    nothing,
)
from quattro_web._request.state import CancelReason, RequestState
from quattro_web._request.tasks import RequestGroup, RequestTasks
from quattro_web._request.watch import Watch, WatchTimer
from quattro_web._util.arguments import checked_limit
from quattro_web._util.asyncio import current_loop
from quattro_web._util.counts import CANCELLATIONS
from quattro_web._util.injection import CalledWith
from quattro_web._util.routes import route_path
from quattro_web._util.scope import REQUEST, Connection, not_a_connection, scope_of
from quattro_web._util.task_stacks import closes_stack, waits_for_thread

T = TypeVar("T")

_OPEN, _HOLDING = RequestState.OPEN, RequestState.HOLDING
_STREAMING, _OVER = RequestState.STREAMING, RequestState.OVER

_STARTS = STARTS | {"websocket.accept"}
_ENDS = frozenset({"http.response.pathsend", "websocket.close"})
_BODIES = BODIES - _ENDS - {"http.response.trailers"}

# Seconds that the last bytes of a response get to leave when the shutdown cuts what is open, and
# dependencies to close.
LAST_BYTES = 0.5

# Seconds that each message of an answer gets to leave where nobody may read it any more. A client
# that has left waits for nothing, but a middleware around the app may take its time.
_SENDING = {CancelReason.DISCONNECT: 10.0, CancelReason.SHUTDOWN: LAST_BYTES}

COMPLETE = (
    "the response of this request is complete, and its task group has ended with it: "
    "hand work that outlives the response to quattro_web.app_task_group(conn)"
)


class Settings:
    """The limits of an app's requests, and the runs of the app: one for each event loop.

    An app may run in several at once, each in a thread of its own, as under two test clients. The
    state of the lifespan would tell them apart as well, but it is the app's.
    """

    def __init__(
        self,
        concurrency_limit: int | None,
        shared_limit: SharedLimit | None,
        group_class: Callable[..., RequestGroup] = RequestGroup,
    ) -> None:
        self._concurrency_limit = concurrency_limit
        self._shared_limit = shared_limit
        # Those that are open, each with its scope: a shutdown ends them.
        self.requests: dict[Exchange, Connection] = {}
        self.runs: dict[asyncio.AbstractEventLoop, AppRun] = {}
        # Whether a lifespan was run, or was missed and that was told.
        self.has_started: bool = False
        self.set_group_class(group_class)

    def set_group_class(self, group_class: Callable[..., RequestGroup]) -> None:
        """Set what makes the groups of requests."""
        self._group_class = group_class
        # Makes a group for a request, not entered yet.
        self.new_group: Callable[[], RequestGroup] = group_class
        limit, shared = self._concurrency_limit, self._shared_limit
        if limit is not None or shared is not None:
            self.new_group = partial(group_class, concurrency_limit=limit, shared_limit=shared)

    def limited(self, concurrency_limit: int | None) -> Settings:
        """Return the same for a request with a limit of its own."""
        settings = Settings(concurrency_limit, self._shared_limit, self._group_class)
        settings.requests, settings.runs = self.requests, self.runs
        return settings

    def app_run(self) -> AppRun | None:
        """Return the run of the app in the current event loop."""
        loop = current_loop()
        # In a thread any run will do: it refuses what is handed over there.
        return next(iter(tuple(self.runs.values())), None) if loop is None else self.runs.get(loop)


class Exchange:
    """One request, with what was sent and received of it, until somebody asks for its group.

    Every request pays for this object. An ordinary one stays plain: its two messages go straight to
    the server. What it reads is set where it is made, since CPython is five times as slow to find
    it on the class; what it never needs is an attribute of the class.
    """

    state: RequestState
    send_now: Send  # the server's
    # Whether nobody has asked for its group, and nothing may cancel it, and its response is no
    # stream: all that follows is as it is here, but for the start.
    is_plain: bool
    tasks: RequestTasks | None = None
    watch: Watch | None = None
    reason: CancelReason | None = None  # why it was cancelled, if it was
    start: Message | None  # that has left: of the response, or the acceptance of a WebSocket
    held: Message | None = None  # the start, until it is known what the response is
    opened_gate: ResponseGate | None = None  # what holds the response back, if it may be a stream
    sent = 0  # bytes of its body
    is_sending = False  # whether the start, or the last message, is on its way
    is_answering = False  # whether its group has ended, and what has failed is being answered
    starting: asyncio.Future[None] | None = None  # done when the start of a stream has left
    outer: Exchange | EndedRequest | None = None
    inner: Exchange | None = None  # that of a sub-app, which answers
    watch_timer: WatchTimer | None = None  # what watches its client, if that is to be watched
    expires: float  # when that begins, by the clock of the loop
    has_lasted = False
    failed_before = 0  # how much had failed when it was cancelled
    _reader: RequestReader | None = None
    _leaving: Awaitable[None] | None = None  # what a plain one has sent last
    _had_time = False  # whether its dependencies had theirs to close, at a shutdown

    def __init__(self, settings: Settings, receive: Receive, send: Send) -> None:
        self.settings = settings
        self._receive = receive
        self.send_now = send
        self.is_plain = True
        self.state = _OPEN
        self.start = None
        self.began = monotonic()
        try:
            # The task of the middleware is the parent of the group, whoever asks for it first.
            self.parent = current_task()
        except RuntimeError:  # trio: an app that asks for no group never knows
            self.parent = None

    # Receiving

    @property
    def reader(self) -> RequestReader:
        """The only reader of the server's `receive`, made when somebody reads or watches."""
        reader = self._reader
        if reader is None:
            reader = self._reader = RequestReader(self._receive)
        return reader

    async def receive(self) -> Message:
        """Return the next message, for the app."""
        if self.held is not None and self._reads_on():
            await self._flush()  # the app goes on with the request, its client may wait for that
        reader = self.reader
        had_left = reader.gone is not None
        message = await reader.receive()
        if self.watch_timer is not None and not had_left and reader.gone is not None:
            self.watch_timer.watch(self)  # the app has read of it, before it was watched
        if self.tasks is not None and message["type"] == "http.disconnect":
            await self._end_stream(self.tasks)
        return message

    def _reads_on(self) -> bool:
        """Whether it is the app that reads, which has sent a start, and not a child of it."""
        tasks = self.tasks
        if tasks is None:
            return True
        group = tasks.group
        is_apps = not group.has_child(current_task()) and not group.is_held_up
        return is_apps and not self.has_failed and not listens_for_disconnect()

    async def _end_stream(self, tasks: RequestTasks) -> None:
        """End the children before a response that streams learns that its client has left.

        It opens a cancel scope of anyio's then, which would cut the clean-up of a child for which
        its body waits.
        """
        has_start = self.state is _HOLDING or self.state is _STREAMING
        if (
            (has_start or listens_for_disconnect())
            and not tasks.have_ended
            and not tasks.group.has_child(current_task())
        ):
            await self.sections_end()
            await tasks.group.cancel_stream()

    async def sections_end(self) -> None:
        """Wait until no section of the request goes on that must not be cut."""
        if self.watch is not None:
            await self.watch.sections_end()

    @property
    def client_has_left(self) -> bool:
        """Whether it is known that the client has left."""
        return self._reader is not None and self._reader.gone is not None

    # Sending

    @property
    def gate(self) -> ResponseGate:
        """What holds the response back."""
        gate = self.opened_gate
        if gate is None:
            self.is_plain = False
            gate = self.opened_gate = ResponseGate(self)
        return gate

    def send(self, message: Message) -> Awaitable[None]:
        """Send a message, as the server's `send`, but not before it is known what is answered."""
        kind = message["type"]
        if self.is_plain:
            if kind == "http.response.start":
                headers: Any = message.get("headers")
                if headers.__class__ is list and headers and headers[0][0] == b"content-length":
                    self.state = _STREAMING
                    self.start = message
                    leaving = self._leaving = self.send_now(message)
                    return leaving
            elif (
                kind == "http.response.body"
                and self.start is not None
                and not message.get("more_body")
            ):
                self.state = _OVER
                leaving = self._leaving = self.send_now(message)
                return leaving
            self.is_plain = False
        if self.tasks is not None:
            return self.tasks.send(message)
        if kind == "http.response.start":
            if self.parent is not None:  # else this is trio: nothing is ever answered instead
                self.hold(message)
                return nothing()
        elif kind == "http.response.body":
            if message.get("more_body"):
                return self._send_piece(message)
            if self.held is not None:
                return self.send_whole(message)
            if self.parent is not None:
                return self._send_last(message)
        elif kind == "websocket.close" and self.watch is not None:
            return self._close_unwatched(message)
        elif kind == "http.response.pathsend":
            return self.send_whole(message)
        elif self.held is not None or self.starting is not None:
            return self._send_after_start(message)
        elif kind == "websocket.http.response.start" and self.state is _OVER:
            failure = sys.exc_info()[1]
            if failure is not None:
                return refuse_denial(failure)  # that of a mounted app, which has closed it
        return self.pass_on(message)

    def hold(self, start: Message) -> None:
        """Keep the start of a response until it is known what the response is."""
        headers = start.get("headers")
        # As `ResponseGate.hold` for the ordinary response, which needs no gate.
        gate = self.opened_gate
        is_ordinary = headers.__class__ is list and headers and headers[0][0] == b"content-length"
        if is_ordinary and gate is None:
            if self.state is _OPEN:
                self.state = _HOLDING
            self.held = start
        else:
            self.gate.hold(start)

    async def _flush(self) -> None:
        if self.opened_gate is not None:
            await self.opened_gate.flush()
        else:
            start, self.held = self.held, None
            if start is not None:
                await self.send_start(start)
            elif self.starting is not None:
                await asyncio.shield(self.starting)  # another task sends it

    async def _send_piece(self, piece: Message) -> None:
        try:
            if self.held is not None or self.starting is not None or self.opened_gate is not None:
                await self._flush()
            await self.pass_on(piece)
        except (asyncio.CancelledError, Exception):
            await close_body()
            raise

    async def _send_last(self, end: Message) -> None:
        # What has failed in a task group around the stream, as FastAPI's around the generator of
        # an event stream, has cancelled it then, and the end of it does not leave.
        await asyncio.sleep(0)
        if self.starting is not None or self.opened_gate is not None:
            await self._flush()
        await self.pass_on(end)

    async def _send_after_start(self, message: Message) -> None:
        await self._flush()
        await self.forward(message)

    async def send_whole(self, end: Message) -> None:
        """Send the end of a response, and the start that was held back until it was decided.

        From now on the response is complete: nothing but a shutdown that has waited cuts it.
        """
        start, self.held = self.held, None
        self.state = _OVER
        self.is_sending = True
        gate = self.opened_gate
        if gate is not None:
            gate.keep()
            if gate.releasing is not None:
                await asyncio.shield(gate.releasing)
        if start is not None:
            self.start = start
            await self.send_now(start)
        elif self.starting is not None:
            await asyncio.shield(self.starting)  # another task sends it
        await self.send_now(end)
        self.is_sending = False

    async def send_start(self, start: Message) -> None:
        """Send the start of a stream. What would cancel the request meanwhile does so afterwards.

        Otherwise nobody could tell whether it has left: a middleware around the app may take its
        time for it.
        """
        self.note(start)
        self.is_sending = True
        starting = self.starting = get_running_loop().create_future()
        tasks = self.tasks
        if tasks is not None:
            tasks.group.is_held_up = True
        try:
            await self.send_now(start)
        finally:
            self.is_sending = False
            self.starting = None
            starting.set_result(None)
            if self.tasks is not None:
                self.tasks.group.release()

    def pass_on(self, message: Message) -> Awaitable[None]:
        """Send a message as it is, and take note of it."""
        self.note(message)
        if self.reason in _SENDING:
            return self._send_briefly(message, _SENDING[self.reason])
        return self.send_now(message)

    async def _send_briefly(self, message: Message, seconds: float) -> None:
        """Send a message, but nothing more if it has not left after a while: it may never do so.

        hypercorn waits for ever to send to a connection of HTTP/2 that is closed, or that it ends.
        """
        timeout = asyncio.timeout(seconds)
        try:
            async with timeout:
                await self.send_now(message)
        except TimeoutError:
            if not timeout.expired():
                raise
            self.send_now = _send_nowhere

    def note(self, message: Message) -> None:
        """Take in a message that is sent on."""
        kind = message["type"]
        if kind in _BODIES:
            self.sent += len(message.get("body", b""))
            if not message.get("more_body", False):
                self.state = _OVER
        elif kind in _STARTS:
            self.start = message
            self.state = _STREAMING
        elif kind in _ENDS:
            self.state = _OVER

    async def forward(self, message: Message) -> None:
        """Send what is answered, as it is, unless an exception handler has started children."""
        tasks = self.tasks
        await (self.pass_on(message) if tasks is None or tasks.have_ended else tasks.send(message))

    async def _close_unwatched(self, close: Message) -> None:
        # granian before 2.8.9 sends it only when no receive() is pending, as that of the watch is.
        await self.unwatch()
        await self.forward(close)

    @property
    def is_over(self) -> bool:
        """Whether the response is complete, or decided: it is on its way as a whole."""
        return self.state is _OVER or is_pending(self._leaving)

    @property
    def has_begun(self) -> bool:
        """Whether the start of the response has left, or is just leaving."""
        gate = self.opened_gate
        return self.start is not None or (gate is not None and gate.releasing is not None)

    @property
    def is_accepted(self) -> bool:
        """Whether this is a WebSocket that was accepted."""
        return self.start is not None and self.start["type"] == "websocket.accept"

    @property
    def has_failed(self) -> bool:
        """Whether it is to be answered otherwise, as far as nothing has left."""
        tasks = self.tasks
        return self.reason is not None or (tasks is not None and bool(tasks.group.untold))

    # The group

    @property
    def group(self) -> RequestGroup | None:
        """The task group, if somebody has asked for it."""
        return None if self.tasks is None else self.tasks.group

    def open_group(self, conn: Connection, task: asyncio.Task[Any] | None) -> RequestGroup:
        """Make the group.

        Args:
            conn: What it is asked for with.
            task: Who asks for it; None if the request is to be cancelled.

        Raises:
            RuntimeError: If the request has ended, in a thread, or on another event loop.
        """
        # It may have ended incomplete, and somebody have a copy of its scope.
        if self.is_over or self not in self.settings.requests:
            raise RuntimeError(COMPLETE)
        if self.parent is None:
            msg = "the task group of a request needs asyncio: this app runs on another event loop"
            raise RuntimeError(msg)
        group = self.settings.new_group()
        try:
            group.enter(self.parent)
        except RuntimeError:
            check_loop(self.parent, "request_task_group")
            raise
        if group.is_traced:
            group.scope = scope_of(conn)
        group.is_held_up = self.is_sending
        group.is_hosted = self.state is not _OPEN
        self.is_plain = False
        tasks = self.tasks = RequestTasks(self, group, conn)
        tasks.guard(conn, task)
        return group

    def interrupt(self, conn: Connection, reason: CancelReason) -> None:
        """Cancel the handler and its children, once; not when the response is complete.

        Nothing of the response leaves from now on. A handler that waits for a thread is cancelled
        when the thread has ended. What has failed is being answered, and dependencies close: that
        is cut by the shutdown alone.
        """
        tasks = self.tasks
        untold = [] if tasks is None else tasks.group.untold
        has_raised = tasks is not None and (tasks.has_raised or tasks.failure is not None)
        is_decided = self.is_over or has_raised or bool(untold)
        is_last = reason is CancelReason.SHUTDOWN and not self.is_over
        if self.reason is None and (is_last or not is_decided):
            self.reason = reason
            CANCELLATIONS.add(reason.name.lower(), route_path(getattr(conn, "scope", conn)))
            self.failed_before = len(untold) + has_raised
            group = self.group or self.open_group(conn, None)
            group.end(reason)

    def cut_off(self, conn: Connection) -> None:
        """Cancel the request for the shutdown, and the BackgroundTasks of one that is complete.

        A section that must not be cut is cancelled at its end. Dependencies that are closing get
        some time for that.
        """
        if self.parent is None:
            return
        if self.is_over and (self.is_sending or is_pending(self._leaving)):
            # It is decided. If its client does not read the rest, this is met again.
            self.state, self.is_sending, self._leaving = _OVER, False, None
            self.parent.get_loop().call_later(LAST_BYTES, self._cut_off_late)
        elif self.is_over and self.tasks is not None and not self.tasks.have_ended:
            # A child has closed the WebSocket, and the handler or others go on.
            self.reason = CancelReason.SHUTDOWN
            self.tasks.group.end(self.reason)
        elif not self._had_time and closes_stack(self.parent):
            self._had_time = True
            self.parent.get_loop().call_later(LAST_BYTES, self._cut_off_late)
        elif self.is_over or self.is_answering:
            if not after_thread(self.parent, self._cut_off_late):
                self.reason = CancelReason.SHUTDOWN  # whatever cancelled it before its answer
                self.parent.cancel(self.reason)
        elif self.watch is not None:
            self.watch.interrupt(CancelReason.SHUTDOWN)
        else:
            self.interrupt(conn, CancelReason.SHUTDOWN)

    def _cut_off_late(self) -> None:
        conn = self.conn
        if conn is not None:
            self.cut_off(conn)

    def takes_cut_off(self, exc: BaseException) -> bool:
        """Take back the cancellation of `cut_off`, if this is it: nobody else's."""
        return (
            isinstance(exc, asyncio.CancelledError)
            and self.reason is CancelReason.SHUTDOWN
            and (self.is_over or self.is_answering)
            and self.parent is not None
            and not self.parent.uncancel()
        )

    def runs_in(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether it is served in that event loop."""
        try:
            return self.parent is not None and self.parent.get_loop() is loop
        except RuntimeError:  # what looks like a task, see check_loop
            return False

    def open_watch(self, conn: Connection) -> Watch:
        """Begin to watch over the request: something may cancel it from now on."""
        self.is_plain = False
        watch = self.watch = Watch(self, conn)
        return watch

    async def unwatch(self) -> None:
        """Stop watching the client and the clock."""
        if self.watch is not None:
            self.watch.stop()
            self.watch = None
        if self._reader is not None:
            await self._reader.stop_reading()

    def drop_finished_group(self) -> bool:
        """Drop the group, if it has ended as it should and nobody has cancelled the request.

        Returns:
            Whether that is so: nothing is left to be done.
        """
        tasks, parent = self.tasks, self.parent
        if (
            tasks is None
            or parent is None
            or not (tasks.have_ended and self.state is _OVER)
            or parent.cancelling()
            or (self.opened_gate is not None and self.opened_gate.releasing is not None)
        ):
            return False
        tasks.unguard()
        self.tasks = self.opened_gate = None  # they refer to what refers to them
        return True

    async def close(self) -> None:
        """Let go of the group, of the watch and of what refers to them: the request has ended."""
        tasks, self.tasks, outer = self.tasks, None, self.outer
        if isinstance(outer, Exchange) and outer.inner is self:
            outer.inner = None
        gate, self.opened_gate = self.opened_gate, None
        if gate is not None:
            gate.abandon()
        if tasks is not None:
            tasks.unguard()
        if self.watch is not None:
            await self.unwatch()
        if isinstance(outer, Exchange) and outer.reader.is_read_ahead:
            await outer.reader.stop_reading()  # its watch has moved here

    # The app around it

    @property
    def innermost(self) -> Exchange:
        """Itself, or that of the sub-app which answers: nearest to the handler.

        The scope does not tell, where somebody in between has made a copy of it for the sub-app.
        """
        exchange = self
        while exchange.inner is not None:
            exchange = exchange.inner
        return exchange

    @property
    def conn(self) -> Connection | None:
        """Its scope; None when it has ended."""
        return self.settings.requests.get(self)

    def app_run(self) -> AppRun | None:
        """Return what runs as long as the app does; a sub-app has that of its app."""
        own = self.settings.app_run()
        return self.outer.app_run() if own is None and self.outer is not None else own


async def _send_nowhere(_message: Message) -> None:
    """Send nothing."""


def is_pending(sending: Awaitable[None] | None) -> bool:
    """Whether what a `send` has returned, which somebody else awaits, has not ended yet.

    Of what is neither a coroutine nor a future nobody knows.
    """
    if isinstance(sending, asyncio.Future):
        return not sending.done()
    return getattr(sending, "cr_frame", None) is not None


class EndedRequest:
    """What stays in the scope of a request that has ended.

    Not the `Exchange`: it refers to the server's `send`, which commonly refers to the scope, so
    that each request would leave a cycle to the garbage collector.
    """

    tasks = group = reason = inner = parent = None

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @property
    def innermost(self) -> EndedRequest:
        """Itself."""
        return self

    def open_group(self, _conn: Connection, _task: object) -> TaskGroup:
        """Refuse."""
        raise RuntimeError(COMPLETE)

    def app_run(self) -> AppRun | None:
        """Return what runs as long as the app does."""
        return self._settings.app_run()


def call_in_loop_of(request: Exchange | EndedRequest, name: str, call: Callable[[], T]) -> T:
    """Call a function in the event loop that serves the request.

    From a thread as well for which a task of this loop waits, as that of a ``def`` endpoint.

    Args:
        request: The request.
        name: What the user has called.
        call: What is called.

    Raises:
        RuntimeError: In any other thread.
    """
    parent = request.parent
    if parent is not None and _get_running_loop() is None:
        with suppress(NotAWorkerError):
            return call_in_loop(_loop_of(parent), call)
    check_loop(parent, name)
    return call()


def check_loop(
    parent: asyncio.Task[Any] | None,
    name: str,
    why: str = (
        "for which the request does not wait: call it in the handler or in a dependency, before "
        "that thread is started"
    ),
) -> None:
    """Raise RuntimeError outside of the event loop that serves the request.

    Args:
        parent: The task that serves it.
        name: What the user has called.
        why: Why it can't be called in this thread, and what to do instead.
    """
    if parent is None or _loop_of(parent) is _get_running_loop():
        return
    thread = threading.current_thread().name
    msg = f"{name}(conn) was called in thread {thread!r}, {why}"
    raise RuntimeError(msg)


def _loop_of(parent: asyncio.Task[Any]) -> asyncio.AbstractEventLoop:
    try:
        return parent.get_loop()
    except RuntimeError:
        msg = (
            "the server runs requests in something that looks like a task and can't be cancelled, "
            "as `granian --task-impl rust` does: run it with asyncio's tasks"
        )
        raise RuntimeError(msg) from None


def request_task_group(conn: CalledWith) -> TaskGroup:
    """Return the task group of the current request or WebSocket connection.

    Every call in a request returns the same group. Its tasks end before the response is complete:
    the response waits for them, and then the background tasks are cancelled. A child's error is
    answered as if the handler had raised it.

    Args:
        conn: The request, the WebSocket, or the ASGI scope.

    Raises:
        NoTaskGroupError: If TaskGroupMiddleware is not installed.
        RuntimeError: If the response is complete, as in Starlette's BackgroundTasks; in a thread,
            except that of a ``def`` endpoint or dependency; or under an event loop other than
            asyncio's.
        TypeError: If *conn* is something else, such as an app.

    .. versionadded:: 0.1
    """
    request = request_of(conn)
    if _get_running_loop() is None:
        ask = partial(_group_for_thread, request, conn)
        return call_in_loop_of(request, "request_task_group", ask)
    return _group_for(request, conn, current_task())


def _group_for_thread(request: Exchange | EndedRequest, conn: Connection) -> TaskGroup:
    parent = request.parent
    if parent is None or waits_for_thread(parent):
        return _group_for(request, conn, parent)
    if request.tasks is None:
        msg = (
            "a middleware runs this handler in another task, so that request_task_group(conn) "
            "can't be the first to ask for the group in a thread: make the handler async def, or "
            "have a FastAPI dependency ask, with RequestTaskGroup"
        )
        raise RuntimeError(msg)
    return _group_for(request, conn, None)


def _group_for(
    request: Exchange | EndedRequest, conn: Connection, task: asyncio.Task[Any] | None
) -> TaskGroup:
    tasks = request.tasks
    if tasks is None:
        return request.open_group(conn, task)
    if tasks.request.is_over:
        raise RuntimeError(COMPLETE)
    check_loop(tasks.request.parent, "request_task_group")
    tasks.guard(conn, task)
    return tasks.group


def set_concurrency_limit(conn: CalledWith, limit: int | None) -> None:
    """Set how many children of this request may run at once.

    Call it for one route, in a dependency or at the start of the handler, before anything asks for
    the group; for the whole app, use ``install(app, concurrency_limit=...)``, which this replaces.

    Args:
        conn: The request, the WebSocket, or the ASGI scope.
        limit: At least 1. None means no limit.

    Raises:
        NoTaskGroupError: If TaskGroupMiddleware is not installed.
        RuntimeError: If this request already has its group, or has ended.
        TypeError: If *limit* is not an int, or *conn* is something else.
        ValueError: If *limit* is below 1.

    .. versionadded:: 0.1
    """
    checked_limit("limit", limit)
    request = request_of(conn)
    if request.group is not None or isinstance(request, EndedRequest):
        msg = "this request already has its group: set the limit before the group is asked for"
        raise RuntimeError(msg)
    request.settings = request.settings.limited(limit)


def request_of(conn: Connection) -> Exchange | EndedRequest:
    """Return what is kept of a request in its scope."""
    try:
        # A Request is a mapping of its scope, but a slow one.
        request: Exchange | EndedRequest = getattr(conn, "scope", conn)[REQUEST]
    except KeyError:
        msg = (
            "no task group on this request: call quattro_web.install(app), "
            "or wrap the ASGI app in quattro_web.TaskGroupMiddleware"
        )
        raise NoTaskGroupError(msg) from None
    except TypeError:
        raise not_a_connection(conn) from None
    return request if request.inner is None else request.innermost
