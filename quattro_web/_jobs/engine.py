"""The interface between jobs and the queue that they run on.

An engine moves bytes: it knows neither functions nor exceptions. `client` and `worker` are written
against these protocols alone. ``tests/jobs/conformance.py`` has a test for each sentence here, for
any engine.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Submission:
    """A call of a job, as it goes to the engine.

    Attributes:
        key: Its name, which begins with that of whoever watches it, and a colon.
        job: The name of the job.
        payload: What the worker gets.
        delay: After how many seconds it may begin.
        context: The context of its caller, for engines that pass on a trace.
    """

    key: str
    job: str
    payload: bytes
    delay: float = 0.0
    context: Context = field(default_factory=copy_context, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A call of a job, as a worker gets it.

    Attributes:
        key: The key of its submission.
        job: The name of the job.
        payload: The payload of its submission.
        deliveries: How often it was given to a worker, this time included, but without those that
            have handed it back and said that this does not count.
    """

    key: str
    job: str
    payload: bytes
    deliveries: int


class CallState(Enum):
    """How far a call has come."""

    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"
    """Done, failed, or cancelled with its clean-up."""
    LOST = "lost"
    """The engine knows nothing of it."""


@dataclass(frozen=True, slots=True)
class News:
    """What an engine says of a call.

    Attributes:
        key: The key of its submission.
        state: How far it has come.
        worker: The name of its worker, while it runs.
        outcome: What the worker has returned for it, if it has ended; None if nothing is there: it
            was cancelled, or a worker has dropped it.
    """

    key: str
    state: CallState
    worker: str = ""
    outcome: bytes | None = None


@dataclass(frozen=True, slots=True)
class Renewal:
    """What an engine says when leases are renewed.

    Attributes:
        alive: Those of the others whose leases have not run out.
        now: The time by the clock of the engine, in seconds.
    """

    alive: frozenset[str]
    now: float


class HandedBackError(Exception):
    """What a worker raises for a call that another one is to run, or the same one later.

    Attributes:
        delay: After how many seconds.
        counts: Whether it counts as one of the deliveries: it has failed.
    """

    def __init__(self, delay: float = 0.0, *, counts: bool = False) -> None:
        super().__init__(delay)
        self.delay = delay
        self.counts = counts


RunCall = Callable[[Delivery], Awaitable[bytes]]
"""Runs a call in a worker, and returns its outcome. It is cancelled when the call is."""


class Watch(Protocol):
    """A subscription to the calls of one process."""

    async def follow(self, keys: Sequence[str]) -> None:
        """Hear of these calls, which are submitted next; where all are heard, do nothing."""
        ...

    async def next(self) -> Sequence[News]:
        """Wait for news, up to a second or so; none is fine, and so are some of them.

        Raises:
            Exception: Any, if the subscription was lost.
        """
        ...


class EngineWorker(Protocol):
    """The part of a worker that is the engine's: it takes calls, and has them run."""

    def set_slots(self, slots: int) -> None:
        """Run that many calls at once from now on."""
        ...

    async def take_no_more(self) -> None:
        """Take no more calls, and return when none is on its way."""
        ...

    async def run(self) -> None:
        """Take calls until it is cancelled.

        An engine that is unreachable for a while is no error: it is tried again.
        """
        ...


class EngineConnection(Protocol):
    """An engine, as one process uses it.

    Its methods may raise anything and may hang: whoever calls them has a bound and knows that an
    exception means "out of reach". An outage that is over is none any more, for any call. None of
    them is asked for an effect that must be exact: leases end what is left over.
    """

    async def submit(self, calls: Sequence[Submission]) -> Sequence[Exception | None]:
        """Submit calls, in as few round trips as there can be; return what is wrong with each.

        A key that is known already is submitted once.
        """
        ...

    async def cancel(self, keys: Sequence[str]) -> None:
        """Cancel calls, those that wait and those that run; others are left alone."""
        ...

    def watch(self, owner: str) -> AbstractAsyncContextManager[Watch]:
        """Subscribe to the calls whose keys begin with *owner* and a colon.

        Nothing of a call that was followed before it was submitted is missed, unless `Watch.next`
        raises.
        """
        ...

    async def look(self, keys: Sequence[str]) -> Sequence[News]:
        """Return how far calls have come, for those whose news may have been lost.

        Not for all of them, if their outcomes are large: for one of them at least.
        """
        ...

    async def cancelled(self, keys: Sequence[str]) -> Sequence[bool]:
        """Return which calls were cancelled, for a worker that may not have been told.

        Those that have ended count, too: another worker has done what this one was late with.
        """
        ...

    async def settle(self, key: str, kept: bytes | None) -> None:
        """Note for a day that a call which was handed over is over, and what to keep of it.

        None means that it is done: what was kept of it before is forgotten. What was kept first is
        forgotten when there is more than the engine keeps, which the log says.
        """
        ...

    async def unsettle(self, key: str) -> None:
        """Forget that a call is over, so that it can be submitted once more."""
        ...

    async def is_settled(self, key: str) -> bool:
        """Return whether a call was noted as over."""
        ...

    async def kept(self) -> Mapping[str, bytes]:
        """Return what was kept, by the keys of the calls."""
        ...

    async def forget(self, key: str) -> None:
        """Forget what was kept of a call."""
        ...

    async def renew(
        self,
        names: Collection[str],
        seconds: float,
        others: Collection[str],
        *,
        since: float | None = None,
        within: float = math.inf,
    ) -> Renewal:
        """Let the leases of *names* run for that many seconds, and look at those of others.

        The seconds are measured by the engine, whose clock is the same for everybody. They begin at
        *since* by that clock, or now if it is None. A renewal that arrives more than *within*
        seconds after that, or when they are over, as where the engine hung or a cable was pulled,
        renews nothing: whoever has sent it waits no longer, and may have given everything up.
        """
        ...

    def worker(
        self, name: str, jobs: Iterable[str], run: RunCall
    ) -> AbstractAsyncContextManager[EngineWorker]:
        """Make a worker that has each call run by *run*, also those of jobs that it does not know.

        A call whose worker dies is given to another one, and so is one that *run* hands back by
        `HandedBackError`, unless it was cancelled or has been given to another one meanwhile. Its
        outcome is kept until it was seen, and its watcher learns of its end when *run* has ended,
        not before.
        """
        ...


class JobEngine(Protocol):
    """The queue behind `Jobs`.

    This interface may still change. It is in ``quattro_web/_jobs/engine.py``, and the tests that an
    engine must pass are in ``tests/jobs/conformance.py``.

    .. versionadded:: 0.1
    """

    @property
    def is_local(self) -> bool:
        """Whether the queue exists only in this process, and needs a worker here."""
        ...

    def connect(self) -> AbstractAsyncContextManager[EngineConnection]:
        """Connect to the queue. If it is unreachable, later calls raise the error."""
        ...
