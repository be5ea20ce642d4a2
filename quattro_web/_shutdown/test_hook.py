"""How a test replaces the server of an app, and inspects the app."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

RunT = TypeVar("RunT")


class AppTestHook(Generic[RunT]):
    """A test around an app: it says when the server shuts down, and which pumps start.

    No signal handler is installed in the process of a test and no signal is sent, and a shutdown
    that takes too long does not end it.

    Args:
        pumps: The names of the pumps that start by themselves. None means all.

    Attributes:
        runs: The runs of apps in it: one, unless several apps share its lifespan.
        failures: The failures of handed-over work that the test has not seen yet.
    """

    def __init__(self, pumps: Collection[str] | None = None) -> None:
        self._pumps = pumps
        self._callbacks: list[Callable[[], None]] = []
        self.runs: list[RunT] = []
        self.failures: list[BaseException] = []

    def add_signal_callback(self, callback: Callable[[], None]) -> None:
        """Call back at each signal that a server would get."""
        self._callbacks.append(callback)

    def remove_signal_callback(self, callback: Callable[[], None]) -> None:
        """Call back no more."""
        if callback in self._callbacks:
            self._callbacks.remove(callback)

    def signal(self) -> bool:
        """Begin the shutdown; a second call skips its grace periods. Tells if anybody listens."""
        for callback in tuple(self._callbacks):
            callback()
        return bool(self._callbacks)

    def starts(self, pump: str) -> bool:
        """Whether a pump starts with the app."""
        return self._pumps is None or pump in self._pumps


# Set while the lifespan of an app runs in a test, so that the app finds it through whatever it is
# wrapped in.
TEST_HOOK: ContextVar[AppTestHook[Any] | None] = ContextVar("quattro_web.test_hook", default=None)
