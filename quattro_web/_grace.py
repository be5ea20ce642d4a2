"""How long a shutdown may take."""

from __future__ import annotations

import math
from dataclasses import dataclass

# Seconds that the clean-up of what was cancelled may take, before it is given up.
CLEANUP = 1.0


@dataclass(frozen=True, kw_only=True)
class ShutdownGrace:
    """The seconds that each part of a shutdown may take, counted from the signal, in this order.

    What is done sooner hands its time to nobody: the next part begins at once. What is cancelled
    has one more second for its clean-up. The defaults are 24 s together, for the 30 s that
    Kubernetes gives.

    Args:
        requests: For requests, streams and WebSockets that are open: they are told at once, and
            cancelled after this.
        tasks: For work that was handed over to the app: cancelled after this.
        pumps: For the clean-up of the pumps, which are cancelled when this begins.
        resources: For what the app's own lifespan closes, and for the server to end. After it the
            process is ended as it is, with status 1. None means that it may take for ever.

    Raises:
        TypeError: If one of them is not a number.
        ValueError: If one of them is negative or not finite.

    .. versionadded:: 0.1
    """

    requests: float = 8.0
    tasks: float = 5.0
    pumps: float = 5.0
    resources: float | None = 4.0

    def __post_init__(self) -> None:
        for name in ("requests", "tasks", "pumps", "resources"):
            seconds = getattr(self, name)
            if name == "resources" and seconds is None:
                continue
            if isinstance(seconds, bool) or not isinstance(seconds, int | float):
                msg = f"{name} must be a number of seconds, got {seconds!r}"
                raise TypeError(msg)
            if not 0 <= seconds < math.inf:
                msg = f"{name} must be a number of seconds that is not negative, got {seconds!r}"
                raise ValueError(msg)

    @property
    def total(self) -> float | None:
        """All of it together, in seconds; None if the resources may take for ever."""
        if self.resources is None:
            return None
        return self.until_pumps_end + self.resources

    @property
    def until_requests_end(self) -> float:
        """Seconds from the signal until no request is waited for any more."""
        return self.requests + CLEANUP

    @property
    def until_tasks_end(self) -> float:
        """Seconds from the signal until no handed-over work is waited for any more."""
        return self.until_requests_end + self.tasks + CLEANUP

    @property
    def until_pumps_end(self) -> float:
        """Seconds from the signal until no pump is waited for any more."""
        return self.until_tasks_end + self.pumps
