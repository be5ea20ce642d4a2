"""A limit on how many children run at once: time, memory, and an early end."""

from __future__ import annotations

import asyncio
import gc
import math
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from benchmarks.core_limiters import LIMIT, LIMITERS, Limiter, nothing
from benchmarks.core_spawning import OURS, SLOW, child
from benchmarks.goals import Goal, exactly
from benchmarks.measure import interleaved, ratios, spread
from benchmarks.memory import traced, tracing
from benchmarks.plot import Bar
from benchmarks.report import Report
from benchmarks.size import Size


class EarlyEndError(Exception):
    """What ends children early here."""


def waiting_bytes(limiter: Limiter, count: int) -> float:
    """Return the bytes of a child that waits for its slot, its coroutine included."""
    found = 0.0

    async def run() -> None:
        freed = asyncio.Event()

        async def patient() -> None:
            await freed.wait()

        async def measure() -> None:
            nonlocal found
            for _ in range(5):
                await asyncio.sleep(0)  # until those that are tasks have come to their slots
            found = (traced() - before) / count
            freed.set()

        with tracing():
            before = traced()
            await limiter(patient, count, measure)

    asyncio.run(run())
    return found


def abort_seconds(limiter: Limiter, count: int) -> float:
    """Return the time from an error to the end of a group whose children wait for their slots."""
    started = 0.0

    async def fail() -> None:
        nonlocal started
        for _ in range(3):
            await asyncio.sleep(0)
        started = time.perf_counter()
        raise EarlyEndError

    async def run() -> float:
        async def patient() -> None:
            await asyncio.Event().wait()

        try:
            await limiter(patient, count, fail)
        except* EarlyEndError:
            seconds = time.perf_counter() - started
        return seconds

    gc.collect()
    return asyncio.run(run())


@contextmanager
def warned() -> Iterator[list[Any]]:
    """Gather the warnings of the block, such as those of coroutines that were never awaited."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield found
        gc.collect()


def early_end(limiter: Limiter, size: Size) -> tuple[str, float, int]:
    """Return the time of an early end, as text and as a number, and how many warnings came."""
    count = 2 * size.few_waiting
    with warned() as found:
        half = abort_seconds(limiter, size.few_waiting)
        found.clear()
        seconds = abort_seconds(limiter, count)
        power = math.log2(max(seconds / half, 1))
        if seconds * (size.waiting / count) ** power < size.patience:
            found.clear()
            count, seconds = size.waiting, abort_seconds(limiter, size.waiting)
    return f"{seconds:.2f} s" + f" for {count}" * (count != size.waiting), seconds, len(found)


def limit(report: Report, size: Size) -> None:
    """Compare many children under a limit of ten."""
    count = size.waiting
    scenarios = {
        name: partial(limiter, child, count, nothing) for name, limiter in LIMITERS.items()
    }
    slow = [name for name in LIMITERS if name.startswith(SLOW)]
    samples = interleaved(scenarios, size.rounds(110), slow=slow, few=size.few)
    times = ratios(samples, "quattro")
    sizes = {name: waiting_bytes(limiter, count // 10) for name, limiter in LIMITERS.items()}
    ends = {name: early_end(limiter, size) for name, limiter in LIMITERS.items()}
    rows = [
        ["time, of quattro", *(str(times[name]) for name in LIMITERS)],
        ["bytes a waiting child", *(f"{sizes[name]:.0f}" for name in LIMITERS)],
        ["early end", *(ends[name][0] for name in LIMITERS)],
        ["warnings at the early end", *(str(ends[name][2]) for name in LIMITERS)],
    ]
    what = f"{count} children, limit {LIMIT}"
    bars = [Bar.of(what, name, times[name], 0.85 if name == OURS else None) for name in LIMITERS]
    report.goal(Goal(what, "time, of quattro", 0.85, times[OURS]))
    report.goal(Goal(what, "bytes a waiting child", 1100, exactly(sizes[OURS]), digits=0))
    _, seconds, warnings_there = ends[OURS]
    rest = [abort_seconds(LIMITERS[OURS], count) for _ in range(size.least)]
    early = spread([seconds, *rest])
    report.goal(Goal(what, "seconds from an error to the end", 1, early))
    report.goal(Goal(what, "warnings at the early end", 0, exactly(warnings_there), digits=0))
    report.table("limit", f"{what}; time: quattro = 1", ["", *LIMITERS], rows, bars=bars)
