"""Children end before any dependency of their handler closes."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import ref

from quattro_web._scope import Connection

if TYPE_CHECKING:
    from quattro_web._request import RequestTasks

T = TypeVar("T")


REQUEST_STACK = "fastapi_inner_astack"
FUNCTION_STACK = "fastapi_function_astack"


def guard_dependencies(scope: Connection, tasks: RequestTasks) -> None:
    """See to it that the children end before a dependency with ``yield`` closes.

    FastAPI keeps those in two exit stacks: the inner one closes, with the dependencies of
    ``scope="function"``, when the handler has returned, the other one when the response is sent.
    Neither key is public API. Where they are missing (Starlette, an older FastAPI), children are
    ended by the gate and by the middleware alone.
    """
    # The stack is kept by the scope, which the tasks refer to: a cycle, if this were no weak one.
    reference = ref(tasks)
    for key, guarded in _GUARDED.items():
        stack: Any = scope.get(key)
        if stack.__class__ is AsyncExitStack:
            stack.__class__ = guarded
        elif stack.__class__ is not guarded:
            continue
        stack.tasks = reference
        # Not public. Where it is missing, there may be something to guard.
        if getattr(stack, "_exit_callbacks", True):
            stack.push_async_exit(stack.leave)


class _RequestStack(AsyncExitStack):
    """An exit stack with a callback that stays on top of it, also when more is entered later.

    The group may be asked for in a dependency, or before the others in the handler's list of
    parameters: what is opened after that must not be closed before the children have ended. A stack
    on which there is nothing, as on most, gets no callback.
    """

    tasks: ref[RequestTasks]

    async def enter_async_context(self, cm: AbstractAsyncContextManager[T]) -> T:
        value = await super().enter_async_context(cm)
        self.push_async_exit(self.leave)
        return value

    async def leave(
        self,
        _et: type[BaseException] | None,
        exc: BaseException | None,
        _tb: TracebackType | None,
    ) -> bool:
        tasks = self.tasks()
        if tasks is not None and (exc is not None or self._is_last(tasks)):
            await tasks.leave(exc)
        return False

    def _is_last(self, tasks: RequestTasks) -> bool:  # noqa: ARG002
        """Tell whether nothing of the response is left to be made.

        Until then the children may be its producers, so that nobody can wait for them yet.
        """
        return True


class _FunctionStack(_RequestStack):
    def _is_last(self, tasks: RequestTasks) -> bool:
        return tasks.is_websocket


_GUARDED = {REQUEST_STACK: _RequestStack, FUNCTION_STACK: _FunctionStack}
