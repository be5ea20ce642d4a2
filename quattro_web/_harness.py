"""What stands in for a server, and knows more of an app than one does: a test's."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quattro_web._app_run import AppRun


class Harness:
    """A test around an app: it says when the server shuts down, and which pumps run.

    A process that runs tests is no server's: no signal is listened to, none is sent, and it is not
    ended when a shutdown takes too long.

    Args:
        pumps: The names of the pumps that start by themselves. None means all.

    Attributes:
        runs: The runs of apps in it: one, unless several apps share its lifespan.
        failures: The failures of handed-over work that nobody has been told of.
    """

    def __init__(self, pumps: Collection[str] | None = None) -> None:
        self._pumps = pumps
        self._told: list[Callable[[], None]] = []
        self.runs: list[AppRun] = []
        self.failures: list[BaseException] = []

    def listen(self, told: Callable[[], None]) -> None:
        """Call back at each of the signals that a server would get."""
        self._told.append(told)

    def discard(self, told: Callable[[], None]) -> None:
        """Call back no more."""
        if told in self._told:
            self._told.remove(told)

    def signal(self) -> bool:
        """Let the shutdown begin; a second time, let it hurry. Tells whether anybody has heard."""
        for told in tuple(self._told):
            told()
        return bool(self._told)

    def starts(self, pump: str) -> bool:
        """Whether a pump starts with the app."""
        return self._pumps is None or pump in self._pumps


# Set while the lifespan of an app runs in a test, so that it is found through whatever the app is
# wrapped in.
HARNESS: ContextVar[Harness | None] = ContextVar("quattro_web.harness", default=None)
