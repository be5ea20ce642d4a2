"""What the log tells of a lock that this process does not have."""

from __future__ import annotations

import logging

logger = logging.getLogger("quattro_web")

# Seconds between the first two warnings; each further one comes after twice the time.
_FIRST_PAUSE = 60.0
_LONGEST_PAUSE = 600.0


class LockLog:
    """Tells the log that another process holds a lock, or that it is out of reach.

    Args:
        name: The name of the pump.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._stands_by = False
        self._unreachable_since: float | None = None
        self._next = 0.0
        self._pause = 0.0

    @property
    def is_unreachable(self) -> bool:
        """Whether it was out of reach when it was last tried."""
        return self._unreachable_since is not None

    def unreachable(self, exc: Exception, now: float) -> None:
        """Tell that it is out of reach: at once, and again in growing intervals."""
        if self._unreachable_since is None:
            self._unreachable_since, self._pause = now, _FIRST_PAUSE
            logger.warning("the lock of pump %s is out of reach: %r", self._name, exc)
        elif now < self._next:
            return
        else:
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            logger.warning(
                "the lock of pump %s is out of reach for %.0f minutes now: %r",
                self._name,
                (now - self._unreachable_since) / 60,
                exc,
            )
        self._next = now + self._pause

    def reached(self) -> None:
        """Tell that it is within reach, if it was not."""
        if self.is_unreachable:
            logger.info("the lock of pump %s is within reach again", self._name)
        self._unreachable_since = None

    def stands_by(self, holder: str | None) -> None:
        """Tell who holds it: once, until this process has held it."""
        if not self._stands_by:
            who = holder or "another process"
            logger.info("pump %s stands by: its lock is held by %s", self._name, who)
        self._stands_by = True

    def acquired(self) -> None:
        """Take note that this process holds it."""
        self._stands_by = False
