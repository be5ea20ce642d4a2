"""A pump that is called repeatedly: at a fixed interval, or at the times of a cron expression."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import Any

from quattro_web._locks.holder import LastRun
from quattro_web._pumps.cron import Cron
from quattro_web._util.facts import facts

logger = logging.getLogger("quattro_web")

# Seconds between two looks at the clock of a pump that waits, since that may be set meanwhile.
LOOK = 60.0

# A clock that is changed by more seconds than that has been corrected: the rule of Debian's cron.
CORRECTION = 3 * 3600.0


def wall_time() -> float:
    """Return the Unix time; with a virtual clock, that of the event loop."""
    now: float = getattr(asyncio.get_running_loop(), "wall_time", time.time)()
    return now


class Times(ABC):
    """When a pump is called, in the seconds of one clock."""

    @abstractmethod
    def now(self) -> float:
        """Return the time."""

    @abstractmethod
    def wall(self, moment: float, *, back: bool = False) -> float:
        """Return the Unix time of a moment; or, if *back*, the moment of a Unix time."""

    @abstractmethod
    def first(self, now: float) -> float:
        """Return the first time, if nothing is known of a former one."""

    @abstractmethod
    def before(self, first: float, now: float) -> float:
        """Return what is said to be done when the *first* one is still to come."""

    @abstractmethod
    def after(self, done: float, since: float) -> float:
        """Return the first time after the one that is done, and not before *since*."""

    @abstractmethod
    def covered(self, due: float, now: float) -> float:
        """Return the last time that a call is for which was due at *due*, and begins *now*."""

    def checked(self, due: float, now: float) -> float:
        """Return the time that is due, by a look at the clock."""
        del now
        return due


class EveryTimes(Times):
    """A fixed rate, by the event loop's clock, which nobody sets.

    Args:
        every: The seconds from one begin to the next.
        wait_first: The seconds until the first begin.
    """

    def __init__(self, every: float, wait_first: float) -> None:
        self._every = every
        self._wait_first = wait_first

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self, moment: float, *, back: bool = False) -> float:
        ahead = wall_time() - self.now()
        return moment - ahead if back else moment + ahead

    def first(self, now: float) -> float:
        return now + self._wait_first

    def before(self, first: float, now: float) -> float:
        del now
        return first - self._every

    def after(self, done: float, since: float) -> float:
        return done + self._every * max(math.ceil((since - done) / self._every), 1)

    def covered(self, due: float, now: float) -> float:
        return due + self._every * max(math.floor((now - due) / self._every), 0)


class CronTimes(Times):
    """The times of a cron expression, by the clock of the machine.

    Args:
        cron: The expression.
        name: The name of the pump.
        latest: Up to how many seconds too late it is called, when the clock has gone past a time.
    """

    def __init__(self, cron: Cron, name: str, latest: float) -> None:
        self._cron = cron
        self._name = name
        self._latest = latest
        self._looked = -math.inf

    def now(self) -> float:
        return wall_time()

    def wall(self, moment: float, *, back: bool = False) -> float:
        del back
        return moment

    def first(self, now: float) -> float:
        return self._cron.after(now)

    def before(self, first: float, now: float) -> float:
        del first
        return now

    def after(self, done: float, since: float) -> float:
        return self._cron.after(max(done, since))

    def covered(self, due: float, now: float) -> float:
        return max(due, now)

    def checked(self, due: float, now: float) -> float:
        looked, self._looked = self._looked, now
        is_set_back = now < looked - CORRECTION
        if not is_set_back and now <= due + self._latest:
            return due
        following = self._cron.after(now)
        if not is_set_back:
            logger.warning(
                "pump %s is not called for %s, which is too long ago now: its next time is %s",
                self._name,
                self._cron.text(due),
                self._cron.text(following),
                extra=facts(pump=self._name),
            )
        return following


class Schedule:
    """The times of a pump in one run of an app; what it does when it is started again follows them.

    Args:
        times: The times.
        name: The name of the pump.
        jitter: By how many seconds each begin may be later, at random.
        is_let_go: Whether a failure is logged, and the next call comes all the same.
        catch_up: Up to how many seconds too late a time is made up for that was missed. None means
            that it is not, and that nothing is remembered.
    """

    def __init__(
        self,
        times: Times,
        name: str,
        *,
        jitter: float,
        is_let_go: bool,
        catch_up: float | None,
    ) -> None:
        self._times = times
        self._name = name
        self._jitter = jitter
        self._is_let_go = is_let_go
        self._catch_up = catch_up
        self._due: float | None = None
        self._has_failed = False
        # The Unix time of the next call, while that is waited for.
        self.next_run: float | None = None

    def of(self, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """Return a function that calls another one by this schedule, with what it is given."""

        @wraps(function)
        async def scheduled(*args: Any, **kwargs: Any) -> None:
            await self.run(partial(function, *args, **kwargs))

        return scheduled

    async def run(
        self, function: Callable[[], Awaitable[Any]], last_run: LastRun | None = None
    ) -> None:
        """Call a function by this schedule.

        Args:
            function: The function.
            last_run: Where the last run is remembered, if the pump has a lock.
        """
        last_run = None if self._catch_up is None else last_run
        due = await self._begin(last_run)
        while True:
            self._due = due = await self._wait(due)
            self._has_failed = False
            try:
                await function()
            except Exception:
                if not self._is_let_go:
                    self._has_failed = True
                    raise  # it is called again at once when its pump is restarted
                message = "pump %s failed, and is called again at its next time"
                logger.exception(message, self._name, extra=facts(pump=self._name))
            if last_run is not None:
                await last_run.write(self._times.wall(due))
            due = self._due = self._next(due)

    async def _begin(self, last_run: LastRun | None) -> float:
        """Return the time of the first call."""
        times, due = self._times, self._due
        done = None if last_run is None else await last_run.read()
        now = times.now()
        if done is not None:
            done = times.wall(done, back=True)
            is_tried_again = self._has_failed and due is not None and done < due
            if done <= now + CORRECTION and not is_tried_again:
                return self._next(done)
        # With a lock that was lost and is back, another process may have done what is due.
        if due is not None and (due > now or self._has_failed):
            return due
        first = times.first(now)
        if last_run is not None and last_run.is_empty:
            await last_run.write(times.wall(times.before(first, now)))
        return first

    def _next(self, done: float) -> float:
        return self._times.after(done, self._times.now() - (self._catch_up or 0))

    async def _wait(self, due: float) -> float:
        """Wait for a time. Returns the last one that the call is for: two never overlap."""
        late = random.uniform(0, self._jitter)  # noqa: S311  # no secret
        try:
            while True:
                now = self._times.now()
                due = self._times.checked(due, now)
                left = due + late - now
                self.next_run = self._times.wall(due + late)
                await asyncio.sleep(min(max(left, 0), LOOK))
                if left <= 0:
                    return self._times.covered(due, now)
        finally:
            self.next_run = None
