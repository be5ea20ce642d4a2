"""One pump in one run of an app."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from functools import partial
from typing import Any

from quattro_core import Supervisor, SupervisorState, TaskStatus
from quattro_web._locks.base import Lease, this_process
from quattro_web._locks.holder import LastRun, OnceState, run_once
from quattro_web._pumps.pump import Pump
from quattro_web._pumps.schedule import CORRECTION, CronTimes, EveryTimes, Schedule, Times
from quattro_web._shutdown.state import ShutdownEvent
from quattro_web._util.escaping import escaped
from quattro_web._util.exceptions import add_note, text_of
from quattro_web._util.facts import facts

logger = logging.getLogger("quattro_web")

_LAST = datetime(9999, 1, 1, tzinfo=UTC).timestamp()


class PumpRun:
    """One pump in one run of an app: it is supervised here, and waits for its lock if it has one.

    Args:
        pump: The pump.
        name: Its name in this run.
        state: What the lifespan has yielded.
        shutdown: Tells the pump that the server is shutting down.
    """

    def __init__(self, pump: Pump, name: str, state: object, shutdown: ShutdownEvent) -> None:
        self.pump = pump
        self.name = name
        self.once = None if pump.once is None else OnceState()
        self._function = pump._bound(state)
        if "shutdown" in pump._takes:
            self._function = partial(self._function, shutdown=shutdown)
        self._schedule = _schedule(pump, name)
        function = self._function if self._schedule is None else self._schedule.of(self._function)
        self._status: TaskStatus | None = None
        self._supervisor = Supervisor(
            function if pump.once is None else self._run_once,
            name=f"pump {name}",
            on_failure=pump.on_failure,
            on_return=pump.on_return,
            restart=pump.restart,
            logger=logging.LoggerAdapter(logger, facts(pump=name)),
        )

    @property
    def supervisor(self) -> Supervisor:
        return self._supervisor

    @property
    def declares_ready(self) -> bool:
        """Whether the start-up waits until it says that it is ready."""
        return "task_status" in self.pump._takes

    @property
    def next_run(self) -> datetime | None:
        """When it is called next; None if that is not known, or if it has no schedule."""
        found = None if self._schedule is None else self._schedule.next_run
        # A rate may lead beyond the last year that there is.
        return None if found is None or found > _LAST else datetime.fromtimestamp(found, UTC)

    async def run(self) -> None:
        """Run the pump by its policy, until it is cancelled or ends."""
        await self._supervisor.run()

    async def wait_ready(self) -> None:
        """Wait until it says that it is ready.

        Raises:
            TimeoutError: If it does not say so in time.
        """
        try:
            await self._supervisor.wait_started(self.pump.ready_timeout)
        except TimeoutError as exc:
            if self.once is not None and self.once.error is not None:
                why = escaped(text_of(self.once.error), most=1000)  # what a service says
                lock = f"its lock {self.pump.once!r} is unreachable: {why}"
                add_note(exc, lock)
            raise

    async def run_unsupervised(self) -> None:
        """Run its function alone, for a test: without its policy, and without its lock."""
        handles: dict[str, Any] = {
            "lease": Lease(token=1, holder=this_process()),
            "task_status": TaskStatus(lambda: None),
        }
        await self._function(**{name: handles[name] for name in handles.keys() & self.pump._takes})

    # Where it runs once

    async def _run_once(self, *, task_status: TaskStatus) -> None:
        assert self.pump.once is not None
        self._status = task_status
        await run_once(self.pump.once, self.name, self._run_leased, report=self._report)

    async def _run_leased(self, lease: Lease, last_run: LastRun) -> None:
        handles: dict[str, Any] = {"lease": lease, "task_status": TaskStatus(self._ready)}
        if not self.declares_ready:
            self._ready()
        taken = {name: handles[name] for name in handles.keys() & self.pump._takes}
        function = partial(self._function, **taken)
        await (function() if self._schedule is None else self._schedule.run(function, last_run))

    def _report(self, state: OnceState) -> None:
        self.once = state
        if state.is_standby:  # another process runs it: here, nothing is left to be waited for
            self._ready()

    def _ready(self) -> None:
        """Say that it is ready, to take over or to work; it may be the second time in one run."""
        if self._status is not None and self._supervisor.state is SupervisorState.STARTING:
            self._status.started()


def _schedule(pump: Pump, name: str) -> Schedule | None:
    """Return the schedule of a pump that is called again and again."""
    times: Times
    if pump._times is not None:
        latest = max(CORRECTION, pump.catch_up or 0) + pump.jitter
        times = CronTimes(pump._times, name, latest)
    elif pump.every is not None:
        times = EveryTimes(pump.every, pump.wait_first)
    else:
        return None
    return Schedule(
        times,
        name,
        jitter=pump.jitter,
        is_let_go=pump.on_failure == "ignore",
        catch_up=pump.catch_up,
    )
