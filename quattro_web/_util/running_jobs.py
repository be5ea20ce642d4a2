"""The jobs that run in this process, for metrics and snapshots."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol


class RunningCall(Protocol):
    """A call of a job that runs here."""

    @property
    def job(self) -> str:
        """The name of the job."""

    @property
    def function(self) -> str | None:
        """The name of its function; None if there is none here."""

    @property
    def origin(self) -> str:
        """The request or the process that it comes from."""

    @property
    def attempt(self) -> int:
        """How often it was begun."""

    @property
    def since(self) -> float:
        """Since when it runs, by `time.monotonic`."""


# What each worker in this process runs; any thread may look.
RUNNING_JOBS: dict[object, Mapping[asyncio.Task[Any], RunningCall]] = {}


def running_jobs() -> list[tuple[asyncio.Task[Any], RunningCall]]:
    """Return all jobs that run in this process, in any event loop, each with its task."""
    return [each for runs in tuple(RUNNING_JOBS.values()) for each in tuple(runs.items())]
