"""How often, and after which delay, a failed function is restarted."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass


class RestartLimitError(RuntimeError):
    """A supervised function failed more often than its `RestartPolicy` allows.

    Its cause is an `ExceptionGroup` of the failures. It is not a group itself, so that ``except*``
    can catch it by name.

    Attributes:
        errors: The failures within the policy's time window, oldest first.

    .. versionadded:: 0.1
    """

    def __init__(self, message: str, errors: Sequence[Exception] = ()) -> None:
        super().__init__(message, errors)
        self.errors: tuple[Exception, ...] = tuple(errors)
        if errors:
            self.__cause__: BaseException | None = ExceptionGroup(
                "its failures, one after the other", errors
            )

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, kw_only=True)
class RestartPolicy:
    """Exponential backoff with full jitter, and a limit on the number of restarts.

    Each delay is drawn uniformly between 0 and ``min(ceiling, base * 2**n)`` seconds, where *n* is
    the number of consecutive failures before this one. The jitter keeps processes that failed
    together, as when a service is down, from all restarting at the same moment.

    Args:
        base: The upper bound of the first delay, in seconds.
        ceiling: The upper bound of every delay, in seconds.
        reset_after: After running for this many seconds, the next failure counts as the first one
            again.
        max_restarts: How many restarts are allowed in any *within* seconds. None means no limit.
        within: The time window of *max_restarts*, in seconds.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If an argument is negative or not finite, if *base* exceeds *ceiling*, or if
            *within* is 0.

    .. versionadded:: 0.1
    """

    base: float = 0.5
    ceiling: float = 30.0
    reset_after: float = 60.0
    max_restarts: int | None = 10
    within: float = 300.0

    def __post_init__(self) -> None:
        for name in ("base", "ceiling", "reset_after", "within"):
            _check_seconds(name, getattr(self, name))
        if self.base > self.ceiling:
            msg = f"base must be at most the ceiling of {self.ceiling!r} seconds, got {self.base!r}"
            raise ValueError(msg)
        if self.within == 0:
            msg = "within must be more than 0 seconds, got 0: max_restarts=None means no limit"
            raise ValueError(msg)
        limit = self.max_restarts
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int)):
            msg = f"max_restarts must be an int or None, got {limit!r}"
            raise TypeError(msg)
        if limit is not None and limit < 0:
            msg = f"max_restarts must not be negative, got {limit!r}"
            raise ValueError(msg)

    def delay(
        self, failures: int, *, uniform: Callable[[float, float], float] = random.uniform
    ) -> float:
        """Return how many seconds to wait before the next start.

        Args:
            failures: How many consecutive failures came before this one.
            uniform: Draws a number between two others, like `random.uniform`.

        .. versionadded:: 0.1
        """
        # Beyond 2**64, any base has reached any ceiling, and floats overflow at 2**1024.
        return uniform(0, min(self.ceiling, self.base * 2.0 ** min(failures, 64)))


def checked_restart(restart: RestartPolicy | None, *, on: Collection[str]) -> RestartPolicy:
    """Return a policy that was given as argument *restart*, if it is one; None means the default.

    Args:
        restart: The policy.
        on: What is to happen on a failure, and on a return.

    Raises:
        TypeError: If it is none.
        ValueError: If it says how often to do what is never done.
    """
    if restart is None:
        return RestartPolicy()
    if not isinstance(restart, RestartPolicy):
        msg = f"restart must be a RestartPolicy or None, got {restart!r}"
        raise TypeError(msg)
    if "restart" not in on:
        msg = f'restart={restart!r} needs on_failure="restart" or on_return="restart"'
        raise ValueError(msg)
    return restart


class Restarts:
    """Counts the restarts of one function, and holds them to their policy.

    Args:
        name: The name of the function.
        policy: The policy.
    """

    def __init__(self, name: str, policy: RestartPolicy) -> None:
        self._name = name
        self._policy = policy
        self._recent: deque[tuple[float, Exception]] = deque()
        self._in_a_row = 0
        self._began = 0.0

    def begin(self, now: float) -> None:
        """Take note that the function begins."""
        self._began = now

    def count(self, now: float, error: Exception) -> float:
        """Count an end of the function, and return after how many seconds it is started again.

        Raises:
            RestartLimitError: If that is once too often.
        """
        policy = self._policy
        if policy.max_restarts is not None:
            self._recent.append((now, error))
            self._check(now, policy.max_restarts)
        if now - self._began >= policy.reset_after:
            self._in_a_row = 0
        self._in_a_row += 1
        return policy.delay(self._in_a_row - 1)

    def clear(self) -> None:
        """Forget the errors."""
        self._recent.clear()

    def _check(self, now: float, limit: int) -> None:
        recent, within = self._recent, self._policy.within
        while recent[0][0] < now - within:
            recent.popleft()
        if len(recent) > limit:
            msg = f"{self._name} has ended {len(recent)} times within {within:g} s"
            raise RestartLimitError(msg, [error for _, error in recent])


def _check_seconds(name: str, seconds: object) -> None:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        msg = f"{name} must be a number of seconds, got {seconds!r}"
        raise TypeError(msg)
    if not 0 <= seconds < math.inf:
        msg = f"{name} must be a number of seconds that is not negative, got {seconds!r}"
        raise ValueError(msg)
