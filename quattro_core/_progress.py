"""How far a supervised function has come, and those who wait until it has started."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from quattro_core._supervised import SupervisorState


class Progress:
    """How far a supervised function has come.

    Args:
        name: The name of the function.

    Attributes:
        state: What it does.
        since: Since when, in UTC.
        last_error: Its last failure; None if there was none.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.state: SupervisorState = SupervisorState.WAITING
        self.since: datetime = datetime.now(UTC)
        self.last_error: Exception | None = None
        self._told = asyncio.Event()
        self._has_started = False
        self._raised: BaseException | None = None

    def set(self, state: SupervisorState) -> None:
        """Take note of what it does from now on."""
        self.state = state
        self.since = datetime.now(UTC)

    def ready(self) -> None:
        """Take note that it is ready, and tell those who wait for that."""
        self.set(SupervisorState.RUNNING)
        self._has_started = True
        self._told.set()

    def end(self, state: SupervisorState, exc: BaseException | None = None) -> None:
        """Take note of its end, and of what comes out of it: nothing more is to be waited for."""
        self.set(state)
        if not self._has_started:
            self._raised = exc
        self._told.set()

    async def wait_started(self, timeout: float | None) -> None:  # noqa: ASYNC109  # its error tells
        """Wait until it has been ready once, or has ended.

        Args:
            timeout: For how many seconds. None means for ever.

        Raises:
            TimeoutError: If it is not ready in time.
            Exception: What has come out of it, if that was before.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._told.wait()
        except TimeoutError:
            what = "called task_status.started()"
            if self.state is SupervisorState.WAITING:
                what = "been run: nobody has called run()"
            msg = f"{self._name} has not {what} within {timeout:g} s"
            if self.last_error is not None:
                msg += f"; its last error was {self.last_error!r}"
            raise TimeoutError(msg) from self.last_error
        if self._raised is not None:
            if isinstance(self._raised, asyncio.CancelledError):
                msg = f"{self._name} was cancelled before it has started"
                raise RuntimeError(msg)
            raise self._raised
