"""What a request has started: its task group, and how its response waits for it."""

from __future__ import annotations

import asyncio
from asyncio import current_task
from collections.abc import Awaitable
from sys import exception
from typing import TYPE_CHECKING, NoReturn

from starlette.types import Message

from quattro_core import TaskGroup
from quattro_web._answering import is_answer_to
from quattro_web._dependencies import REQUEST_STACK, Guard
from quattro_web._gate import BODIES, STARTS, ResponseGate
from quattro_web._patient_group import PatientGroup
from quattro_web._scope import Connection

if TYPE_CHECKING:
    from quattro_web._exchange import Exchange


class RequestTasks(ResponseGate):
    """The task group of one request, made when it was first asked for, and the gate in its `send`.

    Args:
        exchange: The request.
        group: The group, entered.
        conn: What the group was asked for with.
    """

    # Whether the response has left as it should, and nothing is left to be done for it.
    is_over: bool
    _closed: bool
    _guards: dict[int, Guard]  # of each pair of exit stacks, by the number of the first
    _raised: tuple[int, BaseException] | None

    def __init__(self, exchange: Exchange, group: PatientGroup, conn: Connection) -> None:
        # Those of the gate as well: CPython is slow to find a default on the class.
        self.exchange = exchange
        self.group = group
        self.conn = conn
        self.is_over = self._closed = False
        self._held = self._timer = self._releasing = self._raised = None
        self._behind = ()
        self._guards = {}
        self.guard(conn)

    def guard(self, conn: Connection) -> None:
        """See to it that children end before the dependencies of whoever asks for the group."""
        scope = getattr(conn, "scope", conn)
        if REQUEST_STACK in scope:
            stack = id(scope[REQUEST_STACK])  # which its guard keeps alive
            if stack not in self._guards:
                self._guards[stack] = Guard(scope, self)

    def unguard(self) -> None:
        """Let go of those dependencies: the request has ended."""
        for guard in self._guards.values():
            guard.let_go()
        self._guards.clear()

    # Sending

    def send(self, message: Message) -> Awaitable[None]:
        """Send a message, but not the end of the response before its time."""
        if self._closed:
            return self.exchange.pass_on(message)
        kind = message["type"]
        if kind == "http.response.start" and exception() is None:
            self.hold(message)
            return _nothing()
        if kind in BODIES and not message.get("more_body"):
            return self._send_end(message)
        return self._send_gated(self.group, message)

    async def _send_end(self, end: Message) -> None:
        """Send the end of a response when the children have ended, after all that is held back."""
        exchange, group = self.exchange, self.group
        if self._timer is not None:
            self.keep()
        if current_task() is not exchange.parent and not await group.outlasts():
            self.hold_end(end)
            return
        if await group.finish() or exchange.reason is not None:
            await self._unwind(group)
        self._closed = True
        if self._behind or self._releasing is not None or end["type"] != "http.response.body":
            await self.flush()
            await exchange.pass_on(end)
            return
        # As those two do, for the ordinary response.
        start, self._held = self._held, None
        if start is not None:
            exchange.start = start
            await exchange.send_now(start)
        exchange.complete = self.is_over = True
        await exchange.send_now(end)

    async def _send_gated(self, group: TaskGroup, message: Message) -> None:
        exchange = self.exchange
        if group.exceptions or exchange.reason is not None:
            await self._unwind(group)
        kind: str = message["type"]
        if kind in BODIES:
            if self.hold_piece(message):
                await asyncio.sleep(0)  # a send that never waits would starve the others
                return
            if self.is_holding or self.is_releasing:
                await self.flush()
        elif kind in STARTS:
            raised = exception()
            if raised is None or self._is_child(group) or not is_answer_to(raised, exchange):
                self.hold(message)
                return
            self._note_raised(group, raised)
            await self._finish(group, immediate=True)
        elif kind == "websocket.close":
            # That of a child, or of a task of a child's, goes out at once: it can't wait for its
            # own end, and the handler may be waiting for what follows the close.
            if current_task() is exchange.parent:
                await self._finish(group)
            # granian does not send it while a receive() is waiting, as that of the watch is.
            await exchange.unwatch()
        await exchange.pass_on(message)

    # Ending

    async def close(self, exc: BaseException | None) -> list[BaseException]:
        """End the group, in the frame of the middleware.

        Args:
            exc: What the app has raised.

        Returns:
            What has failed, in the order in which it did; a cancellation from outside is raised.
        """
        group = self.group
        errors: list[BaseException] = []
        if exc is not None:
            self._note_raised(group, exc)
        group.leave()
        try:
            if exc is None and self._client_left:
                try:
                    await group.finish(immediate=True)
                except asyncio.CancelledError as cancelled:
                    exc = cancelled  # the exit tells whether it is the group's own
            await group.__aexit__(type(exc) if exc else None, exc, None)
        except BaseExceptionGroup as failed:
            # A child that waits for another one fails with the same object: that is one failure.
            errors.extend({id(error): error for error in failed.exceptions}.values())
        finally:
            self._closed = True
            await group.settle()
            raised, self._raised = self._raised, None
            exc = None
        if raised is not None and errors:
            at, error = raised
            errors = [other for other in errors if other is not error]
            errors.insert(at, error)
        return errors

    async def leave(self, exc: BaseException | None) -> None:
        """End the children on the way out of the handler, before its dependencies close.

        Args:
            exc: What is raised.
        """
        group = self.group
        if exc is not None:
            self._note_raised(group, exc)
            group.leave()
            await group.finish(immediate=True)
        elif not self._closed:
            try:
                await group.finish(immediate=self._client_left)
            except asyncio.CancelledError:
                await group.finish(immediate=True)  # another task than the parent does not wait
                raise
            if group.exceptions or self.exchange.reason is not None:
                await self._unwind(group)

    @property
    def _client_left(self) -> bool:
        """Whether the handler has returned, but its client had left: nobody needs the children."""
        exchange = self.exchange
        return exchange.gone is not None and (self.is_websocket or not exchange.complete)

    def _is_child(self, group: TaskGroup) -> bool:
        """Whether a child of the group sends: it can't wait for its own end."""
        task = current_task()
        return task is not self.exchange.parent and task in group.tasks

    async def _finish(self, group: TaskGroup, *, immediate: bool = False) -> None:
        if await group.finish(immediate=immediate) or self.exchange.reason is not None:
            await self._unwind(group)
        self._closed = True

    async def _unwind(self, group: TaskGroup) -> NoReturn:
        """Unwind, as a cancellation, to the frame of the middleware: the request has failed.

        Nothing of the response may leave then. The error itself is not raised here: what is around
        `send` has seen the start of a response, and would say so instead of answering the error.
        """
        reason = self.exchange.reason
        group.cancel(reason)
        # The cancellation comes now if it is due: one that came later would cut a clean-up.
        await asyncio.sleep(0)
        raise asyncio.CancelledError(reason or "a task of the request has failed")

    def _note_raised(self, group: TaskGroup, exc: BaseException) -> None:
        if not isinstance(exc, asyncio.CancelledError):
            at = len(group.exceptions) if self._raised is None else self._raised[0]
            self._raised = (at, exc)


async def _nothing() -> None:
    """Be what `send` returns when there is nothing to wait for: servers hand out coroutines."""
