"""What an app's lifetime is made of."""

from __future__ import annotations

from collections.abc import Iterable

from quattro_core import SharedLimit
from quattro_web._arguments import checked_limit
from quattro_web._collection import Pumps
from quattro_web._grace import ShutdownGrace
from quattro_web._pumps import Pump, PumpFunction


class AppSettings:
    """The pumps of an app, the limits of the work that it takes over, and its shutdown's bounds.

    Raises:
        TypeError: If one of them is of another type.
        ValueError: If a limit is below 1, or if something may wait for no limit.
    """

    def __init__(
        self,
        *,
        pumps: Iterable[Pump | PumpFunction] = (),
        app_concurrency_limit: int | None = None,
        app_max_waiting: int | None = None,
        shutdown_grace: ShutdownGrace | None = None,
    ) -> None:
        self.pumps: Pumps = pumps if isinstance(pumps, Pumps) else Pumps(pumps)
        self.grace: ShutdownGrace = ShutdownGrace() if shutdown_grace is None else shutdown_grace
        if not isinstance(self.grace, ShutdownGrace):
            msg = f"shutdown_grace must be a ShutdownGrace or None, got {shutdown_grace!r}"
            raise TypeError(msg)
        if app_max_waiting is not None and app_concurrency_limit is None:
            msg = f"app_max_waiting={app_max_waiting!r} needs an app_concurrency_limit to wait for"
            raise ValueError(msg)
        self._limit = checked_limit("app_concurrency_limit", app_concurrency_limit)
        self._max_waiting = checked_limit("app_max_waiting", app_max_waiting, least=0)

    def limit(self) -> SharedLimit | None:
        """Return the limit for one run."""
        if self._limit is None:
            return None
        return SharedLimit(self._limit, max_waiting=self._max_waiting)
