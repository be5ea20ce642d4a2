"""All pumps of one run of an app: how they start, what a failure does, and how they end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from quattro_core import TaskGroup, TaskReturnedError
from quattro_web._errors import PumpFailedError
from quattro_web._pumps.pump import Pump, unique_names
from quattro_web._pumps.run import PumpRun
from quattro_web._shutdown.state import Shutdown, ShutdownEvent
from quattro_web._util.asyncio import current_task, is_cancelled, is_closed, is_ctrl_c
from quattro_web._util.counts import TASK_FAILURES, error_type
from quattro_web._util.exceptions import add_note, exc_info_of
from quattro_web._util.facts import facts
from quattro_web._util.spans import Spans
from quattro_web._util.task_stacks import where

logger = logging.getLogger("quattro_web")

_PUMP = "pump "


class PumpSupervision:
    """The pumps of one run of an app: background tasks of its group.

    Args:
        group: The group.
        shutdown: The shutdown of the run.
        stop_server: Asks the server to stop; returns whether there is one.
        starts: Tells by its name whether a pump starts with the app, in a test. None means all do.

    Attributes:
        runs: The pumps that start.
        not_started: Those that do not, in a test.
    """

    def __init__(
        self,
        group: TaskGroup,
        shutdown: Shutdown,
        *,
        stop_server: Callable[[], bool],
        starts: Callable[[str], bool] | None = None,
    ) -> None:
        self._group = group
        self._shutdown = shutdown
        self._stop_server = stop_server
        self._starts = starts
        self.runs: tuple[PumpRun, ...] = ()
        self.not_started: tuple[PumpRun, ...] = ()
        self.spans: Spans = Spans()
        self._tasks: dict[asyncio.Task[None], PumpRun] = {}
        self._startup: PumpStartup | None = None
        self._supervisor: asyncio.Task[Any] | None = None
        self._is_ending = False
        self._failures: list[BaseException] = []
        self._has_stopped_server = False

    def prepare(self, pumps: Sequence[Pump], state: object) -> None:
        """Set the pumps up.

        Args:
            pumps: The pumps.
            state: What the lifespan has yielded.
        """
        named = zip(pumps, unique_names(pumps), strict=True)
        runs = tuple(PumpRun(pump, name, state, self._shutdown.event) for pump, name in named)
        if self._starts is None:
            self.runs = runs
        else:
            self.runs = tuple(run for run in runs if self._starts(run.name))
            self.not_started = tuple(run for run in runs if run not in self.runs)
        self._startup = PumpStartup(self.runs, self._shutdown.event)

    def start(self) -> None:
        """Start them, in the group, whose task calls this."""
        self._supervisor = asyncio.current_task()
        for run in self.runs:
            task = self._group.create_background_task(
                self._run(run), name=f"pump {run.name}", context=self.spans.without_span()
            )
            self._tasks[task] = run

    async def wait_ready(self) -> None:
        """Wait until those that take ``task_status`` are ready; raise what keeps them from it."""
        assert self._startup is not None
        await self._startup.wait()
        self._startup = None

    def startup_failed(self) -> None:
        """Take note that the app does not start: the errors of pumps come too late to tell why."""
        if self._startup is not None:
            self._startup.has_failed = True

    def group_ended(self, cause: BaseException) -> None:
        """Take note that the group has ended before its time, and every pump with it."""
        error = RuntimeError("the task group of the app has ended while the app is running")
        error.__cause__ = cause
        self._failed("the task group of the app", error)

    async def end(self) -> bool:
        """Wait for the clean-up of the pumps, which the group cancels; return if all have ended."""
        self._is_ending = True
        late = await self._shutdown.wait(
            self._tasks, until=self._shutdown.grace.until_pumps_end, is_grace=False
        )
        if late:
            logger.error(
                "the shutdown no longer waits for the clean-up of %s",
                "; ".join(self.still_running()),
            )
        return not late

    def task_of(self, run: PumpRun) -> asyncio.Task[None] | None:
        """Return the task of a pump; None if it has ended, or has not begun."""
        found = (task for task, its_run in tuple(self._tasks.items()) if its_run is run)
        task = next(found, None)
        return None if task is None or task.done() else task

    @property
    def is_starting(self) -> bool:
        """Whether the start-up of the app waits for them."""
        return self._startup is not None

    def still_running(self) -> list[str]:
        """Return the name of each pump that has not ended, with where it hangs."""
        return [
            f"pump {run.name} ({where(task)})"
            for task, run in self._tasks.items()
            if not task.done()
        ]

    def raise_failures(self) -> None:
        """Raise what has failed since the start-up: the lifespan ends with it."""
        errors, self._failures = self._failures, []
        if len(errors) == 1:
            raise errors[0]
        if errors:
            msg = "pumps have failed"
            raise BaseExceptionGroup(msg, errors)

    async def _run(self, run: PumpRun) -> None:
        what = f"pump {run.name}"
        task = current_task()
        try:
            await run.run()
        except asyncio.CancelledError as exc:
            if not self._is_ended_by_us:
                error = RuntimeError(f"{what} was cancelled while the app is running")
                error.__cause__ = exc
                self._failed(what, error)
            raise
        except TaskReturnedError as exc:
            if self._shutdown.has_begun:
                logger.info(
                    "%s returned while the app was shutting down", what, extra=facts(pump=run.name)
                )
            else:
                self._failed(what, exc, is_ended=self._is_ended_by_us and is_cancelled())
        except BaseException as exc:  # it is logged, and raised at the end
            if is_closed(task):
                raise
            self._failed(what, exc, is_ended=self._is_ended_by_us and is_cancelled())
            if is_ctrl_c(exc):
                raise

    @property
    def _is_ended_by_us(self) -> bool:
        """Whether pumps should end: at shutdown, or since the server waits no longer."""
        supervisor = self._supervisor
        return self._is_ending or (supervisor is not None and bool(supervisor.cancelling()))

    def _failed(self, what: str, exc: BaseException, *, is_ended: bool = False) -> None:
        TASK_FAILURES.add("pump", error_type(exc), None)
        if self._startup is not None:
            if not self._startup.fail(exc, what):
                logger.error("%s failed as well, before the start-up", what, **_told(what, exc))
        elif is_ended:
            logger.error("%s failed while it was being stopped", what, **_told(what, exc))
            self._failures.append(exc)
        elif self._shutdown.has_begun:
            logger.error("%s failed during the shutdown", what, **_told(what, exc))
            self._failures.append(exc)
        else:
            logger.critical("%s failed: the server must stop", what, **_told(what, exc))
            # The error is in the log already. That there was one comes out of the lifespan as well,
            # and sets the exit status where the server has one for it.
            self._failures.append(
                PumpFailedError(f"{what} has failed") if self._ask_server_once() else exc
            )

    def _ask_server_once(self) -> bool:
        """Ask the server to stop, once: a second signal would skip the grace periods."""
        if not self._has_stopped_server:
            self._has_stopped_server = self._stop_server()
        return self._has_stopped_server


def _told(what: str, exc: BaseException) -> dict[str, Any]:
    """Return what a log entry of a failure has besides its text."""
    name = what.removeprefix(_PUMP) if what.startswith(_PUMP) else None
    return {"exc_info": exc_info_of(exc), "extra": facts(pump=name)}


class PumpStartup:
    """Waits until an app's pumps are ready, or one of them has failed.

    Args:
        pumps: The pumps.
        shutdown: Set if the server is asked to stop meanwhile.

    Attributes:
        has_failed: Whether it is known what lets the start-up fail.
    """

    def __init__(self, pumps: Iterable[PumpRun], shutdown: ShutdownEvent) -> None:
        self.has_failed = False
        self._declared = [pump for pump in pumps if pump.declares_ready]
        self._shutdown = shutdown
        self._failed = asyncio.Event()
        self._error: BaseException | None = None

    def fail(self, exc: BaseException, what: str) -> bool:
        """Let the start-up fail with the error of a pump. Returns whether it was the first."""
        if self.has_failed:
            return False
        self.has_failed = True
        self._error = exc
        self._failed.set()
        add_note(exc, f"raised by {what}, before the app has started")
        return True

    async def wait(self) -> None:
        """Wait, and raise what lets the start-up fail."""
        if self._declared:
            await self._wait_declared()
        if self._error is not None:  # of a pump that nothing was waited for
            raise self._error

    async def _wait_declared(self) -> None:
        try:
            async with TaskGroup() as group:
                group.create_background_task(self._fail(), name="start-up")
                group.create_background_task(self._stop(), name="start-up")
                for pump in self._declared:
                    group.create_task(pump.wait_ready(), name=f"start-up of {pump.name}")
        except ExceptionGroup as failed:
            # That of a pump tells more than that it is not ready; otherwise, the others follow from
            # the first.
            raise (self._error or failed.exceptions[0]) from None

    async def _fail(self) -> None:
        await self._failed.wait()
        assert self._error is not None
        raise self._error

    async def _stop(self) -> None:
        await self._shutdown.wait()
        msg = "the server was asked to stop before the pumps of the app were ready"
        raise RuntimeError(msg)
