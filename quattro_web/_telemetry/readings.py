"""The current numbers of all apps in this process; any thread may ask."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Iterator

from quattro_web._app.health import PumpHealth, pump_health
from quattro_web._app.lookup import every_run
from quattro_web._app.run import AppRun
from quattro_web._request.tasks import RequestGroup
from quattro_web._util.counts import KIND
from quattro_web._util.running_jobs import running_jobs
from quattro_web._util.task_stacks import waits_for_turn

STATE = "quattro.task.state"
PUMP = "quattro.pump.name"

Reading = tuple[dict[str, str], int]


def active_tasks() -> list[Reading]:
    """Return how many tasks there are of each kind, and in each state: running, or waiting for
    their turn.
    """
    tally = Tally[tuple[str, str]]()
    for kind in ("foreground", "background", "handed_over", "pump", "job"):
        tally[kind, "running"] = 0
    for kind in ("foreground", "handed_over"):
        tally[kind, "waiting"] = 0
    tally["job", "running"] += len(running_jobs())
    for run in every_run():
        tally.update(_of_requests(run))
        tally.update(
            ("handed_over", "waiting" if waits_for_turn(task) else "running")
            for task, _, _ in run.handed_over.work
        )
        for pump in run.pumps.runs:
            tally["pump", "running"] += run.pumps.task_of(pump) is not None
    return [({KIND: kind, STATE: state}, count) for (kind, state), count in tally.items()]


def _of_requests(run: AppRun) -> Iterator[tuple[str, str]]:
    for request in run.open_requests():
        group = request.innermost.group
        if isinstance(group, RequestGroup):
            for task, kind in group.children():
                if not task.done():
                    yield kind, "waiting" if waits_for_turn(task) else "running"


def pumps() -> list[PumpHealth]:
    """Return the state of each pump."""
    return [pump_health(pump) for run in every_run() for pump in run.pumps.runs]


def pumps_up() -> list[Reading]:
    """Return for each pump 1 if it is up, else 0; the sum, if two apps have one of that name."""
    return _summed((pump.name, int(pump.is_up)) for pump in pumps())


def pump_restarts() -> list[Reading]:
    """Return for each pump how often it was started again."""
    return _summed((pump.name, pump.restarts) for pump in pumps())


def locks_held() -> list[Reading]:
    """Return for each pump with a lock 1 if this process holds it, else 0."""
    return _summed(
        (pump.name, int(pump.once.is_held))
        for run in every_run()
        for pump in run.pumps.runs
        if pump.once is not None
    )


def _summed(numbers: Iterable[tuple[str, int]]) -> list[Reading]:
    tally = Tally[str]()
    for name, number in numbers:
        tally[name] += number
    return [({PUMP: name}, number) for name, number in tally.items()]
