"""A shutdown: whether it has begun, and how long each part of it may take."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from quattro_web._util.injection import NotInjected, schema_of_injected

T = TypeVar("T")

# Seconds that the clean-up of what was cancelled may take, before it is given up.
CLEANUP = 1.0


@dataclass(frozen=True, kw_only=True)
class ShutdownGrace:
    """The seconds that each part of a shutdown may take, from the signal on, in this order.

    A part that ends early leaves its time to the next one, which begins at once. Cancelled tasks
    get one more second for their clean-up. The defaults add up to 24 s, which fits into the 30 s of
    Kubernetes.

    Args:
        requests: For open requests, streams and WebSockets: they are notified at once, and
            cancelled after this time.
        tasks: For handed-over work, which is cancelled after this time.
        pumps: For the clean-up of the pumps, which are cancelled at the start of this time.
        resources: For the app's own lifespan to close its resources, and for the server to end.
            After this time the process exits abruptly, with status 1. None means no limit.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If an argument is negative or not finite.

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
        """The whole shutdown, in seconds; None if *resources* has no limit."""
        if self.resources is None:
            return None
        return self.until_pumps_end + self.resources

    @property
    def until_requests_end(self) -> float:
        """Seconds from the signal until the shutdown stops waiting for requests."""
        return self.requests + CLEANUP

    @property
    def until_tasks_end(self) -> float:
        """Seconds from the signal until the shutdown stops waiting for handed-over work."""
        return self.until_requests_end + self.tasks + CLEANUP

    @property
    def until_pumps_end(self) -> float:
        """Seconds from the signal until the shutdown stops waiting for pumps."""
        return self.until_tasks_end + self.pumps


# Where FastAPI takes the class itself for a dependency.
_Event = Annotated[
    asyncio.Event, NotInjected("shutdown: quattro_web.fastapi.ShutdownEvent, without Depends")
]


class ShutdownEvent:
    """An event that is set when the server gets its signal to shut down.

    `shutdown_event` returns it for a request, and pumps take it as their parameter ``shutdown``. In
    FastAPI, annotate a parameter of a handler or a dependency with
    `quattro_web.fastapi.ShutdownEvent`.

    .. versionadded:: 0.1
    """

    __slots__ = ("_event",)

    def __init__(self, event: _Event) -> None:
        self._event = event

    def is_set(self) -> bool:
        """Return whether the shutdown has begun.

        .. versionadded:: 0.1
        """
        return self._event.is_set()

    async def wait(self) -> None:
        """Wait until the shutdown begins; return at once if it has.

        .. versionadded:: 0.1
        """
        await self._event.wait()

    def __repr__(self) -> str:
        return f"<ShutdownEvent {'set' if self.is_set() else 'unset'}>"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: Callable[[object], T]) -> T:
        return schema_of_injected(cls, source, handler)


class Shutdown:
    """The shutdown of one run of an app. Its clock starts at the signal, if the app sees one.

    Args:
        grace: The seconds of its parts.
    """

    def __init__(self, grace: ShutdownGrace) -> None:
        self.grace = grace
        self._begun = asyncio.Event()
        self._grace_skipped = asyncio.Event()
        self._start = 0.0
        self.event: ShutdownEvent = ShutdownEvent(self._begun)

    @property
    def has_begun(self) -> bool:
        return self._begun.is_set()

    @property
    def skips_grace(self) -> bool:
        """Whether the grace periods are skipped: whatever still runs is cancelled at once."""
        return self._grace_skipped.is_set()

    @property
    def age(self) -> float:
        """Seconds since it has begun."""
        return asyncio.get_running_loop().time() - self._start if self.has_begun else 0.0

    def begin(self) -> bool:
        """Begin, and tell whoever waits for it. Return whether it had not begun yet."""
        if self.has_begun:
            return False
        self._start = asyncio.get_running_loop().time()
        self._begun.set()
        return True

    def skip_grace(self) -> None:
        """Skip the grace periods from now on; clean-up keeps its time."""
        self._grace_skipped.set()

    async def wait(
        self, tasks: Collection[asyncio.Future[Any]], *, until: float, is_grace: bool = True
    ) -> set[asyncio.Future[Any]]:
        """Wait for tasks, and return those that are not done after all.

        Args:
            tasks: The tasks.
            until: For how long: seconds since the shutdown has begun.
            is_grace: Whether this is a grace period, which may be skipped, and not clean-up.
        """
        pending = {task for task in tasks if not task.done()}
        left = until - self.age
        if not pending or left <= 0 or (is_grace and self.skips_grace):
            return pending
        skipped = asyncio.ensure_future(self._grace_skipped.wait()) if is_grace else None
        everything = asyncio.ensure_future(asyncio.wait(pending))
        try:
            either = {everything, skipped} if skipped is not None else {everything}
            await asyncio.wait(either, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            everything.cancel()
            if skipped is not None:
                skipped.cancel()
        return {task for task in pending if not task.done()}
