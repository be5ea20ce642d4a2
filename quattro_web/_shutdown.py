"""The shutdown of an app: that it has begun, and how much of its time is left."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

from quattro_web._grace import ShutdownGrace


class ShutdownEvent:
    """Tells whether the server is shutting down, from the moment of its signal on.

    It annotates what a pump takes as ``shutdown``, and what `shutdown_event` returns. The handlers
    of FastAPI take `quattro_web.fastapi.ShutdownEvent`, which can annotate the others as well: one
    that takes this class is a ``FastAPIError`` where its route is added, "Invalid args for response
    field!".

    .. versionadded:: 0.1
    """

    __slots__ = ("_event",)

    def __init__(self, event: asyncio.Event) -> None:
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


class Shutdown:
    """One run's shutdown. Its clock starts at the signal, or where none was seen, when it is told.

    Args:
        grace: The seconds of its parts.
    """

    def __init__(self, grace: ShutdownGrace) -> None:
        self.grace = grace
        self._begun = asyncio.Event()
        self._hurried = asyncio.Event()
        self._start = 0.0
        self.event: ShutdownEvent = ShutdownEvent(self._begun)

    @property
    def has_begun(self) -> bool:
        return self._begun.is_set()

    @property
    def is_hurried(self) -> bool:
        """Whether somebody has lost patience: nothing is waited for that may go on by itself."""
        return self._hurried.is_set()

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

    def hurry(self) -> None:
        """Wait for nothing any more but for clean-up."""
        self._hurried.set()

    async def patience(
        self, tasks: Collection[asyncio.Future[Any]], *, until: float, hurries: bool = True
    ) -> set[asyncio.Future[Any]]:
        """Wait for tasks, and return those that are not done after all.

        Args:
            tasks: What is waited for.
            until: For how long: seconds since the begin.
            hurries: Whether it ends as soon as somebody has lost patience.
        """
        pending = {task for task in tasks if not task.done()}
        left = until - self.age
        if not pending or left <= 0 or (hurries and self.is_hurried):
            return pending
        hurried = asyncio.ensure_future(self._hurried.wait()) if hurries else None
        everything = asyncio.ensure_future(asyncio.wait(pending))
        try:
            either = {everything, hurried} if hurried is not None else {everything}
            await asyncio.wait(either, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            everything.cancel()
            if hurried is not None:
                hurried.cancel()
        return {task for task in pending if not task.done()}
