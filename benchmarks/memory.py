"""What is there of memory and of tasks, and what is left after."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.measure import Scenario


def traced() -> int:
    """Return the bytes that are allocated, of those that are traced."""
    return tracemalloc.get_traced_memory()[0]


@contextmanager
def tracing() -> Iterator[None]:
    """Trace what is allocated within the block."""
    gc.collect()
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def peak_of(scenario: Scenario) -> int:
    """Return the most bytes that a scenario had at any time, besides what was there before."""

    async def run() -> int:
        await scenario()
        gc.collect()
        with tracing():
            await scenario()
            return tracemalloc.get_traced_memory()[1]

    return asyncio.run(run())


REPEATS = 5


@dataclass(frozen=True)
class Left:
    """What is there after a scenario that was not there before."""

    tasks: int
    bytes: int

    @classmethod
    def of(cls, found: Sequence[Mapping[str, int]]) -> Left:
        """Return what was left each time, of what was there after each of some repeats.

        A leak is one every time; a table that was enlarged, or a cache that was filled, is not.
        """
        tasks, sizes = ([there[key] for there in found] for key in ("tasks", "bytes"))
        return cls(*(min(b - a for a, b in pairwise(values)) for values in (tasks, sizes)))


def there() -> dict[str, int]:
    """Return the number of tasks, and of bytes that were allocated since they are traced."""
    return {"tasks": len(asyncio.all_tasks()), "bytes": traced()}


def left_of(scenario: Scenario) -> Left:
    """Return what a scenario leaves each time that it is run."""

    async def run() -> Left:
        # Made before, or what is found would count as left.
        found: list[dict[str, int]] = [{"tasks": 0, "bytes": 0} for _ in range(REPEATS)]
        with tracing():
            for each in found:
                await scenario()
                gc.collect()
                each.update(there())
        return Left.of(found)

    return asyncio.run(run())
