"""What a map hands to its consumer."""

from __future__ import annotations

import asyncio
from asyncio.events import _get_running_loop
from contextlib import suppress
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from quattro_core._map import MapRun
from quattro_core._map_slot import EMPTY

R_co = TypeVar("R_co", covariant=True)


class MapResults(Generic[R_co]):
    """The results of `TaskGroup.map`: an asynchronous iterator, and a context manager.

    ::

        async with group.map(fetch, urls, limit=10) as pages:
            async for page in pages: ...

    Who leaves the block, calls `aclose`, or lets go of the object ends the work that is still being
    done, and no more items are pulled. Several tasks may iterate over it at once, and each result
    goes to one of them. When there is none left, or it was closed, it stays at its end.

    .. versionadded:: 0.1
    """

    __slots__ = ("__weakref__", "_run")

    def __init__(self, run: MapRun[Any, R_co]) -> None:
        self._run = run

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> R_co:
        """Return the next result.

        Raises:
            RuntimeError: If the group is not open when the iteration begins; if it ends while a
                task that it does not know of iterates; in another thread.
            asyncio.CancelledError: If the group has failed or was cancelled, also in a task that
                the group does not know of.

        .. versionadded:: 0.1
        """
        run = self._run
        if _get_running_loop() is not run.loop:
            run.check_thread()
        results = run.results
        if not (results and results[0].value is not EMPTY) and not await run.ready():
            raise StopAsyncIteration
        return run.take()

    async def aclose(self) -> None:
        """Cancel the calls that are running, and wait for their clean-up. Results are dropped.

        One of those calls may do it as well, and does not wait then.

        Raises:
            RuntimeError: In another thread than that of the event loop.

        .. versionadded:: 0.1
        """
        self._run.check_thread()
        self._run.stop()
        workers = self._run.workers
        # A call of the map does not wait: not for itself, nor for one that would wait for it.
        if workers and asyncio.current_task() not in workers:
            await asyncio.wait(workers)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        et: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        run = self._run
        if not run.workers:
            return
        run.is_stopped = True
        if _get_running_loop() is run.loop:
            run.stop()
            return
        # The garbage collector is at work in another thread, or the loop has stopped.
        with suppress(RuntimeError):  # it is closed
            run.loop.call_soon_threadsafe(run.stop)
