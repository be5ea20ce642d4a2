"""Counters for metrics: only rare events, so that a request without any pays nothing.

Whoever exports metrics reads these; nobody has to.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

# Of the values of one count, such as routes: code that makes up new ones must not fill the memory.
MOST = 1000

# What stands for the values beyond.
OTHERS = "_OTHER"


class Counts:
    """How often something has happened in this process, by what kind of it.

    Args:
        *names: What the kinds are told by, as in OpenTelemetry's attributes.
    """

    def __init__(self, *names: str) -> None:
        self.names = names
        self._counted: dict[tuple[str, ...], int] = {}
        self._lock = threading.Lock()  # event loops run in several threads

    def add(self, *values: str | None) -> None:
        """Count one of a kind, with a value for each name; None is "".

        From a thousand kinds on, others are counted together.
        """
        kind = tuple(value or "" for value in values)
        with self._lock:
            if kind not in self._counted and len(self._counted) >= MOST:
                kind = (OTHERS,) * len(self.names)
            self._counted[kind] = self._counted.get(kind, 0) + 1

    def counted(self) -> list[tuple[dict[str, str], int]]:
        """Return how often, for each kind as its values by their names; empty ones are left out."""
        with self._lock:
            found = list(self._counted.items())
        return [
            ({name: value for name, value in zip(self.names, kind, strict=True) if value}, count)
            for kind, count in found
        ]


class Durations:
    """How long something takes, for those who want to hear of each."""

    def __init__(self) -> None:
        self.observers: list[Callable[[float, dict[str, str]], None]] = []

    def observe(self, seconds: float, attributes: dict[str, str]) -> None:
        """Tell that one has taken so many seconds."""
        for observer in self.observers:
            observer(seconds, attributes)


# Seconds: handed-over work and jobs take longer than requests.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)

KIND = "quattro.task.kind"
ERROR = "error.type"
ROUTE = "http.route"

TASK_FAILURES = Counts(KIND, ERROR, ROUTE)
CANCELLATIONS = Counts("quattro.cancel.reason", ROUTE)
REJECTIONS = Counts("quattro.limit")
TASK_DURATIONS = Durations()
SHUTDOWN_DURATIONS = Durations()


def error_type(error: BaseException) -> str:
    """Return the name of an exception's class, with its module where it is no built-in one."""
    cls = type(error)
    return (
        cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    )
