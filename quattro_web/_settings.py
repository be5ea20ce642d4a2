"""What the requests of one middleware have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from quattro_core import SharedLimit
from quattro_web._patient_group import PatientGroup
from quattro_web._scope import Connection

if TYPE_CHECKING:
    from quattro_web._app_run import AppRun
    from quattro_web._exchange import Exchange


class Settings:
    """The limits of an app's requests, and the runs of the app: one for each event loop.

    An app may run in several at once, each in a thread of its own, as under two test clients. The
    state of the lifespan would tell them apart as well, but it is the app's.
    """

    def __init__(self, concurrency_limit: int | None, shared_limit: SharedLimit | None) -> None:
        # Makes a group for a request, not entered yet.
        self.new_group: Callable[[], PatientGroup] = PatientGroup
        if concurrency_limit is not None or shared_limit is not None:
            self.new_group = partial(
                PatientGroup, concurrency_limit=concurrency_limit, shared_limit=shared_limit
            )
        self._shared_limit = shared_limit
        # Those that are open, each with its scope: a shutdown ends them.
        self.requests: dict[Exchange, Connection] = {}
        self.runs: dict[asyncio.AbstractEventLoop, AppRun] = {}

    def limited(self, concurrency_limit: int | None) -> Settings:
        """Return the same for a request with a limit of its own."""
        settings = Settings(concurrency_limit, self._shared_limit)
        settings.requests, settings.runs = self.requests, self.runs
        return settings

    def app_run(self) -> AppRun | None:
        """Return the run of the app in the current event loop."""
        loop = current_loop()
        # In a thread any run will do: it refuses what is handed over there.
        return next(iter(self.runs.values()), None) if loop is None else self.runs.get(loop)


def current_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs; None in a thread without one, and under trio."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
