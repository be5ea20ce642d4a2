"""What the requests of one middleware have in common."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from quattro_core import SharedLimit
from quattro_web._patient_group import PatientGroup
from quattro_web._scope import Connection

if TYPE_CHECKING:
    from quattro_web._app_run import AppRun
    from quattro_web._exchange import Exchange

# Instead of a limit of a request's own. No group could have it.
THE_APPS = 0


class Settings:
    """The limits of an app's requests, and the runs of the app: one for each event loop.

    An app may run in several at once, each in a thread of its own, as under two test clients. The
    state of the lifespan would tell them apart as well, but it is the app's.
    """

    def __init__(self, concurrency_limit: int | None, shared_limit: SharedLimit | None) -> None:
        self.concurrency_limit = concurrency_limit
        self.shared_limit = shared_limit
        # Those that are open, each with its scope: a shutdown ends them.
        self.requests: dict[Exchange, Connection] = {}
        self.runs: dict[asyncio.AbstractEventLoop, AppRun] = {}

    def new_group(self, limit: int | None) -> PatientGroup:
        """Return a group for a request, not entered yet.

        Args:
            limit: How many of its children may run at once; `THE_APPS` means what the app says.
        """
        if limit == THE_APPS:
            limit = self.concurrency_limit
        if limit is None and self.shared_limit is None:
            return PatientGroup()  # said with fewer words, and so sooner
        return PatientGroup(concurrency_limit=limit, shared_limit=self.shared_limit)

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
