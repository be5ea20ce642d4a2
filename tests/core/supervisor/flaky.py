"""A function that fails when a test wants it to."""

from __future__ import annotations

import asyncio

from quattro_core import RestartPolicy, Supervisor, TaskGroup

FIXED = RestartPolicy(base=1, ceiling=8, reset_after=100, max_restarts=None)


class Flaky:
    """A function that ends in different ways, one after the other: an error, or None to return.

    Args:
        ends: How it ends, each after how many seconds; then it runs for ever.
    """

    def __init__(self, *ends: tuple[float, BaseException | None]) -> None:
        self._ends = iter(ends)
        self.starts: list[float] = []

    async def __call__(self) -> None:
        self.starts.append(asyncio.get_running_loop().time())
        seconds, error = next(self._ends, (1e9, None))
        await asyncio.sleep(seconds)
        if error is not None:
            raise error


async def live(supervisor: Supervisor, seconds: float) -> None:
    """Run a supervisor for some seconds, then cancel it."""
    async with TaskGroup() as group:
        group.create_background_task(supervisor.run)
        await asyncio.sleep(seconds)
