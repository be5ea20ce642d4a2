"""What a supervisor says, and is told, of the function that it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from enum import StrEnum


class SupervisorState(StrEnum):
    """What the function of a `Supervisor` does.

    .. versionadded:: 0.1
    """

    WAITING = "waiting"
    """`Supervisor.run` was not called yet."""
    STARTING = "starting"
    """It runs, but has not said yet that it is ready."""
    RUNNING = "running"
    BACKING_OFF = "backing off"
    """It has failed or returned, and is started again in a while."""
    RETURNED = "returned"
    FAILED = "failed"
    CANCELLED = "cancelled"


class TaskStatus:
    """What a supervised function gets as its parameter ``task_status``, to say that it is ready.

    The name is that of anyio and trio, whose functions for ``start()`` can be supervised as well.

    .. versionadded:: 0.1
    """

    __slots__ = ("_loop", "_ready")

    def __init__(self, ready: Callable[[], None]) -> None:
        self._ready: Callable[[], None] | None = ready
        self._loop = asyncio.get_running_loop()

    def started(self, value: object = None) -> None:
        """Say that the function is ready, once in each of its runs.

        Args:
            value: As in anyio; nothing is done with it.

        Raises:
            RuntimeError: If it was said before, or in another thread than the event loop's.

        .. versionadded:: 0.1
        """
        del value
        try:
            is_own = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            is_own = False
        if not is_own:
            msg = (
                "started() was called in another thread than the event loop's: "
                "call loop.call_soon_threadsafe(task_status.started)"
            )
            raise RuntimeError(msg)
        if self._ready is None:
            msg = "started() was called before: it is for once in each run"
            raise RuntimeError(msg)
        ready, self._ready = self._ready, None
        ready()


class TaskReturnedError(RuntimeError):
    """A supervised function has returned, although it was to run for ever.

    .. versionadded:: 0.1
    """


class RestartLimitError(RuntimeError):
    """A supervised function has failed more often than its `RestartPolicy` allows.

    Not an exception group itself, which ``except*`` could not name; one is its cause.

    Attributes:
        errors: Every failure since the begin of the time that the policy counts, the first one
            first.

    .. versionadded:: 0.1
    """

    def __init__(self, message: str, errors: Sequence[Exception] = ()) -> None:
        super().__init__(message, errors)
        self.errors: tuple[Exception, ...] = tuple(errors)
        if errors:
            self.__cause__: BaseException | None = ExceptionGroup(
                "its failures, one after the other", errors
            )

    def __str__(self) -> str:
        return str(self.args[0])
