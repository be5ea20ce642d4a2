"""The pumps of one run of an app: how they start, what a failure does, and how they end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from quattro_core import TaskGroup, TaskReturnedError
from quattro_web._cancellation import is_cancelled, is_ctrl_c
from quattro_web._errors import PumpFailedError
from quattro_web._harness import Harness
from quattro_web._pump_run import PumpRun
from quattro_web._pumps import Pump, unique_names
from quattro_web._shutdown import Shutdown
from quattro_web._start_up import StartUp
from quattro_web._where import where

logger = logging.getLogger("quattro_web")


class Pumping:
    """The pumps of one run of an app: background tasks of its group.

    Args:
        group: The group.
        shutdown: The shutdown of the run.
        stop_server: Asks the server to stop, and tells whether there is one.
        harness: The test that the app runs in, if it does.
    """

    def __init__(
        self,
        group: TaskGroup,
        shutdown: Shutdown,
        stop_server: Callable[[], bool],
        harness: Harness | None = None,
    ) -> None:
        self._group = group
        self._shutdown = shutdown
        self._stop_server = stop_server
        self._harness = harness
        self.runs: tuple[PumpRun, ...] = ()
        self.held_back: tuple[PumpRun, ...] = ()
        self._tasks: dict[asyncio.Task[None], PumpRun] = {}
        self._start_up: StartUp | None = None
        self._supervisor: asyncio.Task[Any] | None = None
        self._is_ending = False
        self._untold: list[BaseException] = []
        self._has_asked = False

    def prepare(self, pumps: Sequence[Pump], state: object) -> None:
        """Set the pumps up.

        Args:
            pumps: The pumps.
            state: What the lifespan has yielded.
        """
        named = zip(pumps, unique_names(pumps), strict=True)
        runs = tuple(PumpRun(pump, name, state, self._shutdown.event) for pump, name in named)
        if self._harness is None:
            self.runs = runs
        else:
            self.runs = tuple(run for run in runs if self._harness.starts(run.name))
            self.held_back = tuple(run for run in runs if run not in self.runs)
        self._start_up = StartUp(self.runs, self._shutdown.event)

    def start(self) -> None:
        """Start them, in the group, whose task calls this."""
        self._supervisor = asyncio.current_task()
        for run in self.runs:
            task = self._group.create_background_task(self._run(run), name=f"pump {run.name}")
            self._tasks[task] = run

    async def wait_ready(self) -> None:
        """Wait until those are ready that say so; raise what keeps them from it."""
        assert self._start_up is not None
        await self._start_up.wait()
        self._start_up = None

    async def end(self) -> bool:
        """Wait for the clean-up of the pumps, which the group cancels. Tells if all have ended."""
        self._is_ending = True
        late = await self._shutdown.patience(
            self._tasks, until=self._shutdown.grace.until_pumps_end, hurries=False
        )
        if late:
            logger.error(
                "the shutdown waits no longer for the clean-up of %s", "; ".join(self.left())
            )
        return not late

    @property
    def is_starting(self) -> bool:
        """Whether the start-up of the app waits for them."""
        return self._start_up is not None

    def left(self) -> list[str]:
        """Return the name of each pump that has not ended, with where it hangs."""
        return [
            f"pump {run.name} ({where(task)})"
            for task, run in self._tasks.items()
            if not task.done()
        ]

    def raise_untold(self) -> None:
        """Raise the failures of pumps: what ends an app has not gone well."""
        errors, self._untold = self._untold, []
        if len(errors) == 1:
            raise errors[0]
        if errors:
            msg = "pumps have failed"
            raise BaseExceptionGroup(msg, errors)

    async def _run(self, run: PumpRun) -> None:
        try:
            await run.run()
        except asyncio.CancelledError as exc:
            if not self._is_ended_by_us:
                error = RuntimeError(f"pump {run.name} was cancelled while the app is running")
                error.__cause__ = exc
                self._failed(run, error)
            raise
        except TaskReturnedError as exc:
            if self._shutdown.has_begun:
                logger.info("pump %s has returned, as the app shuts down", run.name)
            else:
                self._failed(run, exc)
        except GeneratorExit:  # the coroutine is closed: its event loop has ended
            raise
        except BaseException as exc:  # it is logged, and raised at the end
            self._failed(run, exc)
            if is_ctrl_c(exc):
                raise

    @property
    def _is_ended_by_us(self) -> bool:
        """Whether pumps are to end: at shutdown, or since the server has lost its patience."""
        supervisor = self._supervisor
        return self._is_ending or (supervisor is not None and bool(supervisor.cancelling()))

    def _failed(self, run: PumpRun, exc: BaseException) -> None:
        name = run.name
        if self._start_up is not None:
            if not self._start_up.fail(exc, name):
                logger.error("pump %s failed as well, before the start-up", name, exc_info=exc)
        elif self._is_ended_by_us and is_cancelled():
            logger.error("pump %s failed while it was being ended", name, exc_info=exc)
            self._untold.append(exc)
        elif self._shutdown.has_begun:
            logger.error("pump %s failed during the shutdown", name, exc_info=exc)
            self._untold.append(exc)
        else:
            logger.critical("pump %s failed: the server has to stop", name, exc_info=exc)
            # What was logged is not told again, but that it has failed is: by the exit status too,
            # where the server has one for it.
            self._untold.append(
                PumpFailedError(f"pump {name} has failed") if self._ask_server() else exc
            )

    def _ask_server(self) -> bool:
        """Ask the server to stop, once: a second signal would hurry it."""
        if not self._has_asked:
            self._has_asked = self._stop_server()
        return self._has_asked
