"""Supervision of a function that is to run for ever."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Literal

from quattro_core._progress import Progress
from quattro_core._restart import RestartPolicy, Restarts, checked_restart
from quattro_core._supervised import SupervisorState, TaskReturnedError, TaskStatus
from quattro_core._supervised_function import (
    as_error,
    checked_policy,
    current_task,
    is_closed,
    name_of,
    takes_status,
)

OnFailure = Literal["stop", "restart", "ignore"]
OnReturn = Literal["stop", "restart", "ok"]


class Supervisor:
    """Runs an async function that is to run for ever, and decides what its end means.

    ::

        async with TaskGroup() as group:
            supervisor = Supervisor(poll, on_failure="restart")
            group.create_background_task(supervisor.run)
            await supervisor.wait_started(timeout=10)

    What is an end by policy comes out of `run`: there, whoever runs it decides what happens.

    Args:
        function: An async function of no arguments. If it has a parameter named ``task_status``,
            it gets a `TaskStatus`, and has started when it says so.
        name: Its name in logs and errors; by default its own.
        on_failure: What an error means: ``"stop"`` raises it out of `run`, ``"restart"`` starts the
            function again, ``"ignore"`` leaves it at an error in the log.
        on_return: What a return means. By default it is an error, ``"stop"``: a function that is to
            run for ever and has returned does its work no more than one that has failed.
            ``"restart"`` starts it again, ``"ok"`` returns.
        restart: How often, and after which time, it is started again, where ``"restart"`` is the
            policy. None means the defaults of `RestartPolicy`.
        logger: Where restarts, and ignored errors, are logged; by default ``quattro_core``.

    Attributes:
        name: The name of the function, as it was given or as it is.

    Raises:
        TypeError: If *function* is not a function, yields, is a ``def`` function that is not
            annotated to return an awaitable, or needs other arguments; if *restart* is no
            `RestartPolicy`.
        ValueError: If a policy has another name, or if *restart* is given where none of them is
            ``"restart"``.

    .. versionadded:: 0.1
    """

    def __init__(
        self,
        function: Callable[..., Awaitable[object]],
        *,
        name: str | None = None,
        on_failure: OnFailure = "stop",
        on_return: OnReturn = "stop",
        restart: RestartPolicy | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        self._function = function
        self.name: str = name or name_of(function)
        self._takes_status = takes_status(function, self.name)
        self._on_failure = checked_policy("on_failure", on_failure, ("stop", "restart", "ignore"))
        self._on_return = checked_policy("on_return", on_return, ("stop", "restart", "ok"))
        policy = checked_restart(restart, on=(on_failure, on_return))
        self._recent = Restarts(self.name, policy)
        self._logger = logger or logging.getLogger("quattro_core")
        self._progress = Progress(self.name)
        self._restarts = 0

    @property
    def state(self) -> SupervisorState:
        """What the function does.

        .. versionadded:: 0.1
        """
        return self._progress.state

    @property
    def since(self) -> datetime:
        """Since when it is in this state, in UTC.

        .. versionadded:: 0.1
        """
        return self._progress.since

    @property
    def restarts(self) -> int:
        """How many times it was started again.

        .. versionadded:: 0.1
        """
        return self._restarts

    @property
    def last_error(self) -> Exception | None:
        """Its last failure; None if there was none.

        .. versionadded:: 0.1
        """
        return self._progress.last_error

    async def run(self) -> None:
        """Run the function, again and again if its policy says so, in the current task.

        A cancellation ends it, whatever the function makes of that: it is never started again, and
        what it raises meanwhile comes out. If it swallows the cancellation, that comes out; only
        if it takes it back (`asyncio.Task.uncancel`) there was none.

        Raises:
            RestartLimitError: If it has failed more often than its policy allows.
            TaskReturnedError: If it has returned, and ``on_return="stop"``.
            RuntimeError: If it was cancelled by something that it awaited, or has raised something
                that is no `Exception`, such as `SystemExit`; if `run` was called before.
            Exception: What it has raised, if ``on_failure="stop"``.

        .. versionadded:: 0.1
        """
        if self.state is not SupervisorState.WAITING:
            msg = f"{self.name} was run before: a Supervisor runs once"
            raise RuntimeError(msg)
        try:
            while not await self._attempt():
                pass
        except asyncio.CancelledError as exc:
            self._progress.end(SupervisorState.CANCELLED, exc)
            raise
        except BaseException as exc:
            self._progress.end(SupervisorState.FAILED, exc)
            raise
        finally:
            self._recent.clear()

    async def wait_started(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  # its error tells
        """Wait until the function has said for the first time that it is ready.

        One that has no parameter ``task_status`` is ready when it begins. If it ends before, as its
        policy allows, nothing more is waited for.

        Args:
            timeout: For how many seconds. None means for ever.

        Raises:
            TimeoutError: If it has not said so in time.
            Exception: What has ended `run`, if that was before.

        .. versionadded:: 0.1
        """
        await self._progress.wait_started(timeout)

    # One run of the function

    async def _attempt(self) -> bool:
        """Call the function once, and return whether that was the last time."""
        task = current_task()
        cancelled = task.cancelling()
        self._recent.begin(asyncio.get_running_loop().time())
        error: Exception | None = None
        self._progress.set(SupervisorState.STARTING)
        try:
            await self._call()
        except KeyboardInterrupt:
            raise
        except BaseException as exc:  # its policy says what becomes of it
            if task.cancelling() > cancelled or is_closed(exc, task):
                raise  # as it is: the answer to its cancellation
            error = self._progress.last_error = as_error(exc, self.name)
        if task.cancelling() > cancelled:
            raise asyncio.CancelledError  # it was swallowed
        try:
            return await self._ended(error)
        finally:
            error = None

    async def _call(self) -> None:
        if self._takes_status:
            awaitable = self._function(task_status=TaskStatus(self._progress.ready))
        else:
            self._progress.ready()
            awaitable = self._function()
        if not inspect.isawaitable(awaitable):
            msg = f"{self.name} is not an async function: it returned {awaitable!r}"
            raise TypeError(msg)
        await awaitable

    async def _ended(self, error: Exception | None) -> bool:
        policy = self._on_return if error is None else self._on_failure
        if policy == "restart":
            await self._back_off(error)
            return False
        if policy == "stop":
            raise error or TaskReturnedError(f"{self.name} has returned, but is to run for ever")
        if error is not None:
            self._logger.error("%s failed, and is let go", self.name, exc_info=error)
        self._progress.end(SupervisorState.RETURNED if error is None else SupervisorState.FAILED)
        return True

    async def _back_off(self, error: Exception | None) -> None:
        counted = error or TaskReturnedError(f"{self.name} has returned")
        delay = self._recent.count(asyncio.get_running_loop().time(), counted)
        self._progress.set(SupervisorState.BACKING_OFF)
        self._logger.warning(
            "%s %s, and is started again in %.2f s (restart %d)",
            self.name,
            "has returned" if error is None else "failed",
            delay,
            self._restarts + 1,
            exc_info=error,
        )
        await asyncio.sleep(delay)
        self._restarts += 1
