"""The children that wait for a slot of a group with a limit."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Iterable
from contextvars import Context
from itertools import count
from typing import Any, TypeVar, cast

from quattro_core._child import CoroutineOrFunction, close, coroutine_of

T_co = TypeVar("T_co", covariant=True)

_STARTED: Any = object()
_numbers = count(1)


class WaitingTask(asyncio.Task[T_co]):
    """A task that starts when its slot is free, and is a plain `asyncio.Task` from then on.

    A hundred thousand of these may wait, so each is one object: the task itself, of which only the
    future is initialised until `start`. The coroutine is kept aside, and nothing of it runs, no
    event loop callback exists and no other task waits for it (a gate coroutine around each child
    takes three times the memory). The loop's task factory is not asked.

    The methods below are those of `asyncio.Task` that need the other half. They are overridden
    without exception: on 3.11 and 3.12 some of them crash the interpreter on a task that has no
    coroutine yet (`Task.get_coro` reads a null pointer).
    """

    __slots__ = ("_child", "_child_context", "_options")

    def __init__(
        self,
        child: CoroutineOrFunction[T_co],
        *,
        loop: asyncio.AbstractEventLoop,
        context: Context,
        options: dict[str, Any] | None = None,
    ) -> None:
        # Future, not super(): a task schedules its first step in Task.__init__.
        asyncio.Future.__init__(self, loop=loop)
        self._child = child
        self._child_context = context
        self._options = options

    def start(self) -> None:
        """Become a real task. Must not be called on a task that was cancelled while it waited."""
        child, self._child = self._child, _STARTED
        # Task.__init__ initialises the future anew and so forgets who waits for it.
        callbacks = cast("list[tuple[Any, Context]]", getattr(self, "_callbacks", None) or ())
        asyncio.Task.__init__(
            self,
            coroutine_of(child),
            loop=self.get_loop(),
            context=self._child_context,
            **(self._options or {}),
        )
        for callback, context in callbacks:
            self.add_done_callback(callback, context=context)

    @property
    def has_started(self) -> bool:
        """Whether its turn has come."""
        return self._child is _STARTED

    @property
    def _waits(self) -> bool:
        return self._child is not _STARTED

    def cancel(self, msg: Any | None = None) -> bool:
        if not self._waits:
            return super().cancel(msg)
        if self.done():
            return False
        close(self._child)
        return asyncio.Future.cancel(self, msg)

    def cancelling(self) -> int:
        return int(self.cancelled()) if self._waits else super().cancelling()

    def uncancel(self) -> int:
        return self.cancelling() if self._waits else super().uncancel()

    def get_name(self) -> str:
        if not self._waits:
            return super().get_name()
        if self._options is None or "name" not in self._options:
            # Made when somebody asks, to save the memory; kept, so that a log names it alike.
            self.set_name(f"Task-waiting-{next(_numbers)}")
        return cast("dict[str, str]", self._options)["name"]

    def set_name(self, value: object, /) -> None:
        if self._waits:
            self._options = {**(self._options or {}), "name": str(value)}
        else:
            super().set_name(value)

    def get_coro(self) -> Any:
        if not self._waits:
            return super().get_coro()
        return self._child if asyncio.iscoroutine(self._child) else None

    def get_context(self) -> Context:
        return self._child_context

    def get_stack(self, *, limit: int | None = None) -> list[Any]:
        return [] if self._waits else super().get_stack(limit=limit)

    def print_stack(self, *, limit: int | None = None, file: Any = None) -> None:
        if not self._waits:
            super().print_stack(limit=limit, file=file)

    def __repr__(self) -> str:
        if not self._waits:
            return super().__repr__()
        state = "cancelled" if self.cancelled() else "waiting"
        return f"<WaitingTask {state} name={self.get_name()!r} child={self._child!r}>"


def check_options(options: Iterable[str]) -> None:
    """Raise TypeError for what `asyncio.loop.create_task` would refuse when a child starts.

    By then it would be too late: nobody is there to catch it.
    """
    known = inspect.signature(asyncio.Task).parameters if sys.version_info >= (3, 14) else ()
    for option in set(options).difference(known):
        msg = f"create_task() got an unexpected keyword argument {option!r}"
        raise TypeError(msg)
