"""How the end of a FastAPI handler is noticed: by the exit stacks of its dependencies.

It comes first, before anything around the handler learns of it. For a handler of Starlette's the
app's exception handlers do the same: see handlers.py.
"""

from __future__ import annotations

import asyncio
from asyncio import current_task
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Any, Protocol

from quattro_web._request.handlers import Children, raise_anew
from quattro_web._request.state import CancelReason
from quattro_web._util.exit_stacks import drop_callbacks_of, holds_any, push_callback
from quattro_web._util.scope import Connection

REQUEST_STACK = "fastapi_inner_astack"
FUNCTION_STACK = "fastapi_function_astack"


class GuardedChildren(Children, Protocol):
    """What is needed here of the tasks of a request."""

    @property
    def is_websocket(self) -> bool: ...
    async def handler_returned(self) -> None: ...
    async def response_made(self, guard: Guard) -> None: ...
    def disconnected(self, exc: BaseException | None) -> bool: ...
    def hold_up(self, *, on: bool) -> None: ...


class Guard:
    """What ends the children of a request before FastAPI closes anything of its handler.

    FastAPI keeps dependencies with ``yield`` in two exit stacks. That of `FUNCTION_STACK`, with
    those of ``scope="function"``, closes when the handler has returned or raised, also when nothing
    is in it; that of `REQUEST_STACK` around it, which FastAPI calls the inner one, when the
    response has been sent. Neither key is public API.

    A callback is on top of each, also when more is entered later: the group may be asked for in a
    dependency, or before the others in the handler's list of parameters, and neither that one nor
    what is opened after it must be closed before the children have ended. What they return or raise
    is what the dependencies, and all who stand around the handler, see: a failure as itself,
    instead of the cancellation that has told the handler of it.

    Args:
        scope: Where the stacks are.
        tasks: The children.
    """

    def __init__(self, scope: Connection, tasks: GuardedChildren) -> None:
        self.task: asyncio.Task[Any] | None = None  # of the handler
        self.request_stack: Any = scope[REQUEST_STACK]
        self._function_stack: Any = scope.get(FUNCTION_STACK)
        self._tasks = tasks
        # An attribute of the one object, until the request has ended. Another class for it would do
        # as well, but CPython 3.13 takes as long to change that as to run a child.
        stack = self.request_stack
        if stack.__class__ is AsyncExitStack:
            if holds_any(stack):
                stack.push_async_exit(self._leave_request)
            stack._push_exit_callback = self._push_request  # type: ignore[attr-defined]  # noqa: SLF001  # see push_callback
        stack = self._function_stack
        if stack.__class__ is AsyncExitStack:
            stack.push_async_exit(self._leave_function)
            stack._push_exit_callback = self._push_function  # type: ignore[attr-defined]  # noqa: SLF001  # see push_callback

    def detach(self) -> None:
        """Undo it when the request has ended: a stack would refer to itself, by the attribute."""
        for stack in (self.request_stack, self._function_stack):
            try:
                del stack._push_exit_callback  # noqa: SLF001  # as above
                if holds_any(stack):  # it was closed before it was guarded, or goes on elsewhere
                    drop_callbacks_of(stack, self)
            except AttributeError:  # of another class, or guarded twice
                continue

    def _push_request(self, *callback: Any) -> None:
        # Not in place of `enter_async_context`, which runs already if it is the dependency that is
        # being entered that asks for the group.
        push_callback(self.request_stack, *callback)
        push_callback(self.request_stack, self._leave_request, False)  # noqa: FBT003

    def _push_function(self, *callback: Any) -> None:
        push_callback(self._function_stack, *callback)
        push_callback(self._function_stack, self._leave_function, False)  # noqa: FBT003

    async def _leave_request(
        self,
        _et: type[BaseException] | None,
        exc: BaseException | None,
        _tb: TracebackType | None,
    ) -> bool:
        self.task = current_task()
        if exc is None:
            await self._tasks.handler_returned()
        else:
            await self._raise_what_failed(exc)
        return False

    async def _leave_function(
        self,
        _et: type[BaseException] | None,
        exc: BaseException | None,
        _tb: TracebackType | None,
    ) -> bool:
        self.task = current_task()
        if exc is not None:
            await self._raise_what_failed(exc)
        elif self._tasks.is_websocket:
            await self._tasks.handler_returned()
        else:
            # The children may be the producers of the response: nobody can wait for them yet.
            if holds_any(self._function_stack):
                with suppress(AttributeError):
                    callback = (False, self._dependencies_closed)
                    self._function_stack._exit_callbacks.appendleft(callback)  # noqa: SLF001  # below all
                    self._tasks.hold_up(on=True)
            await self._tasks.response_made(self)
        return False

    async def _dependencies_closed(
        self,
        _et: type[BaseException] | None,
        _exc: BaseException | None,
        _tb: TracebackType | None,
    ) -> bool:
        self._tasks.hold_up(on=False)
        return False

    async def _raise_what_failed(self, exc: BaseException) -> None:
        """End the children; raise what has failed, unless it is *exc*, which goes on by itself."""
        failure = await self._tasks.handler_raised(exc)
        if failure is exc:
            return
        if self._tasks.disconnected(failure):
            # For dependencies alone: further out it would be taken for a bug of a mounted app.
            with suppress(AttributeError):
                callback = (False, self._cancel_again)
                self.request_stack._exit_callbacks.appendleft(callback)  # noqa: SLF001  # below all
        try:
            raise_anew(failure)
        finally:
            del failure, exc  # they refer to this frame

    async def _cancel_again(
        self,
        _et: type[BaseException] | None,
        exc: BaseException | None,
        _tb: TracebackType | None,
    ) -> bool:
        if self._tasks.disconnected(exc):
            raise asyncio.CancelledError(CancelReason.DISCONNECT) from None
        return False
