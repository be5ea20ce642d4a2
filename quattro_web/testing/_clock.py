"""An event loop on a virtual clock: a test that sleeps for an hour takes no time."""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

from quattro_web._where import waits_for_thread, where

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# Real seconds that a thread has to wake a loop that waits for it, before time goes on.
PATIENCE = 1.0

# Real seconds that the loop waits, where no timer is set, before it is a deadlock: for a thread
# that it knows of, and for anybody else.
LONG_PATIENCE = 30.0
GRACE = 0.2

# Virtual seconds after which all that was due before has happened, and what follows from it.
TICK = 1e-6


class DeadlockError(AssertionError):
    """No task can ever run again: nothing is ready, no timer is set, no thread reports back.

    .. versionadded:: 0.1
    """


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer when nothing else can run.

    ::

        with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
            runner.run(main())

    What sleeps for an hour has slept at once, in the right order. Where a real loop would hang for
    ever, `DeadlockError` comes out of it, and names the tasks that wait. Threads are waited for (a
    ``def`` endpoint), for a second at most if a timer is set, sockets are not: what talks to a real
    database has timed out before that could answer, so it needs the real clock.

    .. versionadded:: 0.1
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._calls_to_threads = 0
        super().__init__(_Selector(self))

    def time(self) -> float:
        """Return the seconds since the loop was made, all of them virtual.

        .. versionadded:: 0.1
        """
        return self._now

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run a function in a thread, for which time stands still.

        .. versionadded:: 0.1
        """
        future = super().run_in_executor(executor, func, *args)
        self._calls_to_threads += 1
        future.add_done_callback(self._end_call)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ARG002, ASYNC109
        """Wait for the threads without a timer, which would jump while they end.

        .. versionadded:: 0.1
        """
        self._calls_to_threads += 1
        try:
            await super().shutdown_default_executor()
        finally:
            self._calls_to_threads -= 1

    def _end_call(self, _: asyncio.Future[Any]) -> None:
        self._calls_to_threads -= 1

    def _jump(self, seconds: float) -> None:
        self._now += seconds

    def _waits_for_thread(self) -> bool:
        return self._calls_to_threads > 0 or any(map(waits_for_thread, asyncio.all_tasks(self)))

    def _describe(self) -> str:
        tasks = sorted(f"  {task.get_name()} ({where(task)})" for task in asyncio.all_tasks(self))
        return "\n".join(["nothing can run any more:", *tasks])


class _Selector(selectors.DefaultSelector):
    """Looks for ready files like any other, but lets time jump where it would sleep."""

    def __init__(self, loop: VirtualClockLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        loop = self._loop
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if loop._waits_for_thread():  # noqa: SLF001
            ready = super().select(LONG_PATIENCE if timeout is None else PATIENCE)
        elif timeout is None:
            ready = super().select(GRACE)
        if not ready:
            if timeout is None:
                raise DeadlockError(loop._describe())  # noqa: SLF001
            loop._jump(timeout)  # noqa: SLF001
        return ready


async def advance(seconds: float) -> None:
    """Let virtual time pass: when it returns, all that is due by then has happened.

    ``advance(0)`` lets everything run that can run now.

    Args:
        seconds: How many.

    Raises:
        RuntimeError: If the loop is not a `VirtualClockLoop`.
        TypeError: If *seconds* is not a number.
        ValueError: If *seconds* is negative or not finite.

    .. versionadded:: 0.1
    """
    loop = asyncio.get_running_loop()
    if not isinstance(loop, VirtualClockLoop):
        msg = (
            f"advance() needs the virtual clock, got {loop!r}: run the test with "
            "asyncio.Runner(loop_factory=quattro_web.testing.VirtualClockLoop)"
        )
        raise RuntimeError(msg)  # noqa: TRY004  # no argument is of a wrong type
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        msg = f"seconds must be a number of seconds, got {seconds!r}"
        raise TypeError(msg)
    if not 0 <= seconds < math.inf:
        msg = f"seconds must be a number of seconds that is not negative, got {seconds!r}"
        raise ValueError(msg)
    await asyncio.sleep(seconds + TICK)
