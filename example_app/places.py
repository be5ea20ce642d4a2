"""Probes from several places: children of a request that run on workers there.

The board has none unless ``BOARD_JOBS`` is set, and imports this module only then.
"""

from __future__ import annotations

from example_app.probe import Result, new_client, probe
from example_app.settings import Settings
from example_app.targets import Target
from quattro_web import Pump, TaskStatus
from quattro_web.jobs import Jobs, JobsUnavailableError


async def probe_from_here(target: Target) -> Result:
    """Probe a target from the place of this process, with a client that knows nothing of others."""
    async with new_client() as client:
        return await probe(client, target)


class Place:
    """A place with workers, which have a queue to themselves."""

    def __init__(self, name: str, settings: Settings) -> None:
        self.name = name
        key = settings.jobs_key or None
        self.jobs = Jobs(settings.jobs, name=f"board-{name}", signing_key=key)
        self._probe = self.jobs.job(name="probe")(probe_from_here)

    async def probe(self, target: Target) -> Result | None:
        """Probe a target from there; None if nobody there can be reached."""
        try:
            return await self._probe.remote(target)
        except JobsUnavailableError:
            return None

    async def worker(self, *, task_status: TaskStatus) -> None:
        """Be the worker of this place, for a board that is all of it in one process."""
        await self.jobs.run_worker(grace=1, ready=task_status.started)


def places_of(settings: Settings) -> list[Place]:
    """Return the places of a board.

    Raises:
        ValueError: If `Jobs` can't use the settings.
    """
    return [Place(name, settings) for name in settings.places]


def workers_of(places: list[Place]) -> list[Pump]:
    """Return the workers of places, as pumps of the board."""
    return [Pump(each.worker, name=f"probes from {each.name}") for each in places]
