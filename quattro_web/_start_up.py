"""The start-up of an app: it waits for the pumps that say when they are ready."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from quattro_core import TaskGroup
from quattro_web._pump_run import PumpRun
from quattro_web._shutdown import ShutdownEvent


class StartUp:
    """Waits until an app's pumps are ready, or one of them has failed.

    Args:
        pumps: The pumps.
        shutdown: What tells that the server was asked to stop meanwhile.
    """

    def __init__(self, pumps: Iterable[PumpRun], shutdown: ShutdownEvent) -> None:
        self._declared = [pump for pump in pumps if pump.declares_ready]
        self._shutdown = shutdown
        self._failed = asyncio.Event()
        self._error: BaseException | None = None

    def fail(self, exc: BaseException, name: str) -> bool:
        """Let the start-up fail with an error of a pump. Returns whether it was the first."""
        if self._error is not None:
            return False
        exc.add_note(f"raised by pump {name}, before the app has started")
        self._error = exc
        self._failed.set()
        return True

    async def wait(self) -> None:
        """Wait, and raise what lets the start-up fail."""
        try:
            async with TaskGroup() as group:
                group.create_background_task(self._fail(), name="start-up")
                group.create_background_task(self._stop(), name="start-up")
                for pump in self._declared:
                    group.create_task(pump.wait_ready(), name=f"start-up of {pump.name}")
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None  # the first tells why, the others follow from it
        if self._error is not None:  # of a pump that nothing was waited for
            raise self._error

    async def _fail(self) -> None:
        await self._failed.wait()
        assert self._error is not None
        raise self._error

    async def _stop(self) -> None:
        await self._shutdown.wait()
        msg = "the server was asked to stop before the pumps of the app were ready"
        raise RuntimeError(msg)
