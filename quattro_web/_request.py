"""One request or WebSocket connection: its task group, and how its response waits for it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, cast

from starlette.types import Message, Receive, Scope, Send

from quattro_core import SharedLimit, TaskGroup
from quattro_web._dependencies import guard_dependencies
from quattro_web._gate import BODIES, ResponseGate
from quattro_web._inbox import Inbox
from quattro_web._reason import CancelReason
from quattro_web._scope import Connection

if TYPE_CHECKING:
    from quattro_web._app_tasks import AppTasks
    from quattro_web._watch import Watch


class RequestTasks(ResponseGate):
    """One request: its task group, made at first use, and `send`, wrapped to wait for it.

    Until there is a group, it is a few attributes, and its `send` hands back the server's own
    awaitable. That is what a request costs that starts nothing.
    """

    group: TaskGroup | None = None
    conn: Connection | None = None
    concurrency_limit: int | None = None
    shared_limit: SharedLimit | None = None
    reason: CancelReason | None = None  # why it was cancelled, if it was
    watch: Watch | None = None
    _closed = False
    _raised: tuple[int, BaseException] | None = None

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        app_tasks: AppTasks | None,
    ) -> None:
        super().__init__(scope, send)
        self._is_websocket = scope["type"] == "websocket"
        self.inbox = Inbox(receive)
        self.parent = _current_task()
        # An exception that is being handled around the app is none of the handler's.
        self._handled_outside = sys.exception()
        self.app_tasks = app_tasks

    def open_group(self, conn: Connection) -> TaskGroup:
        """Make the group. Its parent is the task of the middleware, whoever asks first."""
        if self.progress.complete or self._closed:
            raise RuntimeError(_COMPLETE)
        if self.parent is None:
            msg = "the task group of a request needs asyncio: this app runs on another event loop"
            raise RuntimeError(msg)
        group = TaskGroup(concurrency_limit=self.concurrency_limit, shared_limit=self.shared_limit)
        try:
            self.group = group.enter(self.parent)
        except RuntimeError:
            msg = (
                "request_task_group was called in a thread, where no event loop runs: "
                "make the endpoint or dependency async def"
            )
            raise RuntimeError(msg) from None
        self.conn = conn
        guard_dependencies(conn, self._leave)
        return group

    # Sending

    def send(self, message: Message) -> Awaitable[None]:
        """Send a message, as the server's `send`, but not the end of a response before its time."""
        if self.group is None or self._closed:
            if self.watch is not None and message["type"] == "websocket.close":
                return self._close_unwatched(message)
            self.progress.note(message)
            return self._send(message)
        return self._send_gated(self.group, message)

    async def _send_gated(self, group: TaskGroup, message: Message) -> None:
        self._check(group)
        kind: str = message["type"]
        if kind.endswith("http.response.start"):
            raised = sys.exception()
            if raised is None or raised is self._handled_outside:
                self.hold(message)
                return
            # Starlette sends this from its except block: it is the answer to an exception.
            self._note_raised(group, raised)
            await self._finish(group, immediate=True)
        elif kind.startswith(BODIES):
            if self.progress.ends_with(message):
                self.keep()
                if self._is_child(group):
                    self.hold_end(message)
                    return
                await self._finish(group)
            await self.flush()
        elif kind == "websocket.close":
            # A child's own close goes out at once: the handler may be waiting for what follows it.
            if not self._is_child(group):
                await self._finish(group)
            await self._close_unwatched(message)
            return
        await self.forward(message)

    async def _close_unwatched(self, close: Message) -> None:
        # granian does not send it while a receive() is waiting, as that of the watch is.
        await self.unwatch()
        await self.forward(close)

    # Ending

    def interrupt(self, conn: Connection, reason: CancelReason) -> None:
        """Cancel the handler and its children, once; not when the response is complete."""
        if self.reason is None and not self.progress.complete:
            self.reason = reason
            (self.group or self.open_group(conn)).cancel(reason)

    async def unwatch(self) -> None:
        """Stop watching the client and the clock."""
        watch, self.watch = self.watch, None
        if watch is not None:
            await watch.close()

    async def close(self, exc: BaseException | None) -> list[BaseException]:
        """End the group, in the frame of the middleware.

        Args:
            exc: What the app has raised.

        Returns:
            What has failed, in the order in which it did; a cancellation from outside is raised.
        """
        group = cast("TaskGroup", self.group)
        errors: list[BaseException] = []
        if exc is not None:
            self._note_raised(group, exc)
        try:
            if exc is None and self._client_left:
                await group.finish(immediate=True)
            await group.__aexit__(type(exc) if exc else None, exc, None)
        except BaseExceptionGroup as failed:
            errors.extend(failed.exceptions)
        finally:
            self._closed = True
            raised, self._raised = self._raised, None
            exc = None
        if raised is not None and errors:
            at, error = raised
            errors = [other for other in errors if other is not error]
            errors.insert(at, error)
        return errors

    async def _leave(self, exc: BaseException | None, *, last: bool) -> None:
        """End the children on the way out of the handler, before its dependencies close.

        Args:
            exc: What is raised.
            last: Whether nothing of the response is left to be made. Until then the children may
                be its producers, so that nobody can wait for them yet.
        """
        group = cast("TaskGroup", self.group)
        if exc is not None:
            self._note_raised(group, exc)
            await group.finish(immediate=True)
        elif last:
            await group.finish(immediate=self._client_left)
            self._check(group)

    @property
    def _client_left(self) -> bool:
        """Whether this is a WebSocket whose handler has returned after its client had left."""
        return self._is_websocket and self.inbox.gone is not None

    def _is_child(self, group: TaskGroup) -> bool:
        """Whether a child of the group sends: it can't wait for its own end."""
        task = asyncio.current_task()
        return task is not self.parent and task in group.tasks

    async def _finish(self, group: TaskGroup, *, immediate: bool = False) -> None:
        await group.finish(immediate=immediate)
        self._check(group)
        self._closed = True

    def _check(self, group: TaskGroup) -> None:
        """Unwind, as a cancellation, to the frame of the middleware if the request has failed.

        Nothing of the response may leave then. The error itself is not raised here: what is around
        `send` has seen the start of a response, and would say so instead of answering the error.
        """
        if group.exceptions or self.reason is not None:
            group.cancel()
            raise asyncio.CancelledError(self.reason or "a task of the request has failed")

    def _note_raised(self, group: TaskGroup, exc: BaseException) -> None:
        if not isinstance(exc, asyncio.CancelledError):
            at = len(group.exceptions) if self._raised is None else self._raised[0]
            self._raised = (at, exc)


class EndedRequest:
    """What stays in the scope of a request that has ended.

    Not the `RequestTasks`: it refers to the server's `send`, which commonly refers to the scope, so
    that each request would leave a cycle to the garbage collector.
    """

    __slots__ = ("app_tasks",)

    group = None
    reason = None

    def __init__(self, app_tasks: AppTasks | None) -> None:
        self.app_tasks = app_tasks

    def open_group(self, _conn: Connection) -> TaskGroup:
        """Refuse."""
        raise RuntimeError(_COMPLETE)


_COMPLETE = (
    "the response of this request is complete, and its task group has ended with it: "
    "hand work that outlives the response to quattro_web.app_task_group(conn)"
)


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # trio: no group can be made, and an app that asks for none never knows
        return None
