"""An event loop on a virtual clock: a test that sleeps for an hour takes no time."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

GRACE = 20.0
"""Real seconds that a thread has to wake an idle loop with no timers, before it is a deadlock."""


class DeadlockError(AssertionError):
    """No task can ever run again: nothing is ready, no timer is set, no thread reports back."""


class _Selector(selectors.DefaultSelector):
    """Looks for ready files like any other, but lets the clock jump where it would sleep."""

    loop: VirtualClockLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(GRACE if timeout is None else 0)
        if not ready:
            if timeout is None:
                raise DeadlockError(self.loop.describe_tasks())
            self.loop.now += max(timeout, 0)
        return ready


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """A loop whose `time` jumps to the next timer when nothing is ready.

    Where a real loop would hang for ever, `DeadlockError` comes out of `run_until_complete` and
    names the tasks that wait.

    Attributes:
        wall: The Unix time at which the loop was made.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.wall = 0.0
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        """Return the seconds since the loop was made, all of them virtual."""
        return self.now

    def wall_time(self) -> float:
        """Return the Unix time: at first that of `wall`, which a test may set."""
        return self.wall + self.now

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Wait for the threads without a timer, which would jump while they end."""
        await super().shutdown_default_executor()

    def describe_tasks(self) -> str:
        """Name every task that is pending, one a line, with the line of code where it waits."""
        return "\n".join(
            ["nothing can run any more:", *sorted(map(_where, asyncio.all_tasks(self)))]
        )


def _where(task: asyncio.Task[Any]) -> str:
    stack = task.get_stack(limit=1)
    line = f"{stack[0].f_code.co_filename}:{stack[0].f_lineno}" if stack else "not started"
    return f"  {task.get_name()} ({getattr(task.get_coro(), '__qualname__', '?')}) at {line}"
