"""Children end before any dependency of their handler closes."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from quattro_web._scope import Connection

if TYPE_CHECKING:
    from quattro_web._request import RequestTasks

T = TypeVar("T")

REQUEST_STACK = "fastapi_inner_astack"
FUNCTION_STACK = "fastapi_function_astack"


class Guard:
    """What ends the children of a request before a dependency with ``yield`` closes.

    FastAPI keeps those in two exit stacks: the inner one closes, with the dependencies of
    ``scope="function"``, when the handler has returned, the other one when the response is sent.
    Neither key is public API. Where they are missing (Starlette, an older FastAPI), children are
    ended by the gate and by the middleware alone.

    A callback is on top of each, also when more is entered later: the group may be asked for in a
    dependency, or before the others in the handler's list of parameters, and what is opened after
    that must not be closed before the children have ended. A stack on which there is nothing, as on
    most, gets no callback.

    Args:
        scope: Where the stacks are.
        tasks: The children.
    """

    def __init__(self, scope: Connection, tasks: RequestTasks) -> None:
        self.request_stack: Any = scope[REQUEST_STACK]
        self._function_stack: Any = scope.get(FUNCTION_STACK)
        self._tasks = tasks
        # An attribute of the one object, until the request has ended. Another class for it would do
        # as well, but CPython 3.13 takes as long to change that as to run a child.
        stack = self.request_stack
        if stack.__class__ is AsyncExitStack:
            stack.enter_async_context = self._enter_request  # type: ignore[method-assign]
            if _has_any(stack):
                stack.push_async_exit(self._leave_request)
        stack = self._function_stack
        if stack.__class__ is AsyncExitStack:
            stack.enter_async_context = self._enter_function  # type: ignore[method-assign]
            if _has_any(stack):
                stack.push_async_exit(self._leave_function)

    def let_go(self) -> None:
        """Undo it when the request has ended: a stack would refer to itself, by the attribute."""
        for stack in (self.request_stack, self._function_stack):
            try:
                del stack.enter_async_context
            except AttributeError:  # of another class, or guarded twice
                continue

    async def _enter_request(self, cm: AbstractAsyncContextManager[T]) -> T:
        value = await AsyncExitStack.enter_async_context(self.request_stack, cm)
        self.request_stack.push_async_exit(self._leave_request)
        return value

    async def _enter_function(self, cm: AbstractAsyncContextManager[T]) -> T:
        value = await AsyncExitStack.enter_async_context(self._function_stack, cm)
        self._function_stack.push_async_exit(self._leave_function)
        return value

    async def _leave_request(
        self,
        _et: type[BaseException] | None,
        exc: BaseException | None,
        _tb: TracebackType | None,
    ) -> bool:
        await self._tasks.leave(exc)
        return False

    async def _leave_function(
        self,
        _et: type[BaseException] | None,
        exc: BaseException | None,
        _tb: TracebackType | None,
    ) -> bool:
        # Until the response has been made, its children may be its producers, so that nobody can
        # wait for them yet. A WebSocket has none.
        if exc is not None or self._tasks.is_websocket:
            await self._tasks.leave(exc)
        return False


def _has_any(stack: Any) -> bool:
    try:
        return bool(stack._exit_callbacks)  # noqa: SLF001  # nothing else tells
    except AttributeError:  # it is kept elsewhere: there may be something to guard
        return True
