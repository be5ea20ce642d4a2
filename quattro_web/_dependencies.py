"""Children end before any dependency of their handler closes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import Any, Protocol, TypeVar, cast

from quattro_web._scope import Connection

T = TypeVar("T")


REQUEST_STACK = "fastapi_inner_astack"
FUNCTION_STACK = "fastapi_function_astack"


class Leave(Protocol):
    """What is awaited on the way out of a handler, before its dependencies close."""

    def __call__(self, exc: BaseException | None, *, last: bool) -> Awaitable[None]: ...


def guard_dependencies(scope: Connection, leave: Leave, *, websocket: bool) -> None:
    """See to it that *leave* is awaited before a dependency with ``yield`` closes.

    FastAPI keeps those in two exit stacks: the inner one closes, with the dependencies of
    ``scope="function"``, when the handler has returned, the other one when the response is sent.
    Neither key is public API. Where they are missing (Starlette, an older FastAPI), children are
    ended by the gate and by the middleware alone.
    """
    for key, last in ((REQUEST_STACK, True), (FUNCTION_STACK, websocket)):
        stack = scope.get(key)
        if stack is not None and isinstance(stack, AsyncExitStack):
            _Guard(stack, leave, last=last)


class _Guard:
    """A callback that stays on top of an exit stack, also when more is entered later.

    The group may be asked for in a dependency, or before the others in the handler's list of
    parameters: what is opened after that must not be closed before the children have ended.
    """

    def __init__(self, stack: AsyncExitStack, leave: Leave, *, last: bool) -> None:
        self._stack = stack
        self._leave = leave
        self._last = last
        self._enter = cast(
            "Callable[[AbstractAsyncContextManager[Any]], Awaitable[Any]]",
            stack.enter_async_context,
        )
        stack.enter_async_context = self._enter_below  # type: ignore[method-assign]
        stack.push_async_exit(self._exit)

    async def _enter_below(self, cm: AbstractAsyncContextManager[T]) -> T:
        value = await self._enter(cm)
        self._stack.push_async_exit(self._exit)
        return cast("T", value)

    async def _exit(
        self,
        _et: type[BaseException] | None,
        exc: BaseException | None,
        _tb: TracebackType | None,
    ) -> bool:
        # The attribute of the instance refers to this object: a cycle, if it stayed.
        vars(self._stack).pop("enter_async_context", None)
        if self._last or exc is not None:
            await self._leave(exc, last=self._last)
        return False
