"""An event loop on a virtual clock: a test that sleeps for an hour takes no time."""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Callable
from concurrent.futures import Executor
from datetime import UTC, datetime
from typing import Any, TypeVar, TypeVarTuple

from quattro_web._util.task_stacks import task_name, waits_for_thread, where

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# Real seconds that the loop waits for a thread, before its time goes on.
THREAD_WAIT = 1.0

# Real seconds that the loop waits, where no timer is set, before it is a deadlock: for a thread
# that it knows of, and for anybody else who may wake it.
LONG_THREAD_WAIT = 30.0
WAKE_UP_WAIT = 0.2

# Virtual seconds after which all that was due before has happened, and what follows from it.
TICK = 1e-6


BEGIN = datetime(2000, 1, 1, tzinfo=UTC)


class DeadlockError(AssertionError):
    """No task can ever run again: nothing is ready, no timer is set, and no thread is working.

    .. versionadded:: 0.1
    """


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer when nothing else can run.

    ::

        with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
            runner.run(main())

    Sleeping for an hour takes no real time, and everything happens in the right order. Where a real
    loop would hang forever, this one raises `DeadlockError`, which names the waiting tasks. The
    loop waits for threads (a ``def`` endpoint), for at most a second if a timer is set, but not for
    sockets: a call to a real database would time out before its answer, so it needs a real clock.

    ``Pump(cron=...)`` uses this clock. Your own calls, such as ``datetime.now()``, read the real
    one.

    Args:
        begin: The date and time when the clock starts, with a time zone. None means the first of
            January 2000, in UTC.

    Raises:
        ValueError: If *begin* has no time zone.

    .. versionadded:: 0.1
    """

    def __init__(self, begin: datetime | None = None) -> None:
        begin = BEGIN if begin is None else begin
        self._begin = begin.timestamp()
        self._now = 0.0
        self._calls_to_threads = 0
        super().__init__(_Selector(self))
        if begin.tzinfo is None:
            self.close()  # not before it is made: nobody could close it
            msg = f"begin must have a time zone, such as tzinfo=UTC, got {begin!r}"
            raise ValueError(msg)

    def time(self) -> float:
        """Return the virtual seconds since the loop was created.

        .. versionadded:: 0.1
        """
        return self._now

    def wall_time(self) -> float:
        """Return the Unix time by this clock: *begin* plus the virtual seconds since.

        .. versionadded:: 0.1
        """
        return self._begin + self._now

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run a function in a thread; the clock stands still meanwhile.

        .. versionadded:: 0.1
        """
        future = super().run_in_executor(executor, func, *args)
        self._calls_to_threads += 1
        future.add_done_callback(self._end_call)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ARG002, ASYNC109  # asyncio's
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
        tasks = sorted(f"  {task_name(task)} ({where(task)})" for task in asyncio.all_tasks(self))
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
        if loop._waits_for_thread():  # noqa: SLF001  # its own loop, here and below
            ready = super().select(LONG_THREAD_WAIT if timeout is None else THREAD_WAIT)
        elif timeout is None:
            ready = super().select(WAKE_UP_WAIT)
        if not ready:
            if timeout is None:
                raise DeadlockError(loop._describe())  # noqa: SLF001
            loop._jump(timeout)  # noqa: SLF001
        return ready


async def advance(seconds: float) -> None:
    """Let virtual time pass; when this returns, everything due by then has happened.

    ``advance(0)`` runs everything that can run now.

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
