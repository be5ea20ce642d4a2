"""How the cost grows with the number of children, and what is left after them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from benchmarks.core_background import with_background
from benchmarks.core_limit import EarlyEndError
from benchmarks.core_limiters import LIMITERS, nothing
from benchmarks.core_mappers import MAP, mappers
from benchmarks.core_spawning import OURS, SPAWNERS, child
from benchmarks.goals import Goal, exactly
from benchmarks.measure import Samples, Spread, interleaved, spread
from benchmarks.memory import left_of
from benchmarks.report import Report
from benchmarks.size import Size
from quattro_core import TaskGroup

# What is linear has 1, and what is quadratic has 2; memory that no longer fits in a cache has a bit
# more than 1, as the children of an asyncio.TaskGroup show.
LINEAR = 1.15
LEFT = 0.1  # bytes a child
NOT_OURS = "children of asyncio.TaskGroup"


async def of_asyncio(count: int) -> None:
    await SPAWNERS["asyncio"](count, 1)


async def spawned(count: int) -> None:
    await SPAWNERS[OURS](count, 1)


async def pumped(count: int) -> None:
    await with_background(TaskGroup, count, 1)


async def limited(count: int) -> None:
    await LIMITERS[OURS](child, count, nothing)


async def ended_early(count: int) -> None:
    async def fail() -> None:
        raise EarlyEndError

    try:
        await LIMITERS[OURS](child, count, fail)
    except* EarlyEndError:
        pass


def kinds() -> dict[str, Callable[[int], Coroutine[Any, Any, object]]]:
    """Return what is known to grow."""
    found: dict[str, Callable[[int], Coroutine[Any, Any, object]]] = {
        NOT_OURS: of_asyncio,
        "children": spawned,
        "children and background tasks": pumped,
        "children under a limit": limited,
        "children under a limit, ended early": ended_early,
    }
    if MAP in mappers():
        found["items of a map"] = mappers()[MAP]
    return found


def exponent(samples: Samples, counts: Sequence[int]) -> Spread:
    """Return the power of N that the cost grows with, of a line through the points of a round."""
    x = [math.log(count) for count in counts]
    rounds = zip(*(samples[f"{count}"] for count in counts), strict=True)
    slopes = [
        statistics.linear_regression(x, [math.log(max(cost, 1e-9)) for cost in costs]).slope
        for costs in rounds
    ]
    return spread(slopes)


async def again(run: Callable[[int], Coroutine[Any, Any, object]], count: int, times: int) -> None:
    for _ in range(times):
        await run(count)


def growth(report: Report, size: Size) -> None:
    """Compare the cost of a child among few with that among many; count what is left."""
    rows, counts, lefts = [], size.growing, []
    for name, run in kinds().items():
        times = {count: max(1, size.batch // count) for count in counts}
        scenarios = {f"{count}": partial(again, run, count, times[count]) for count in counts}
        raw = interleaved(scenarios, size.rounds(12))
        samples = {
            f"{count}": [seconds / times[count] for seconds in raw[f"{count}"]] for count in counts
        }
        grows = exponent(samples, counts)
        left = left_of(partial(run, size.left))
        cells = [f"{spread(samples[f'{c}']).median / c * 1e6:.1f} µs" for c in counts]
        rows.append([name, *cells, str(grows), str(left.tasks), f"{left.bytes}"])
        if name == NOT_OURS:
            continue
        what = f"{counts[0]} to {counts[-1]} {name}"
        report.goal(Goal(what, "time, power of their number", LINEAR, grows))
        lefts.append(left)
    what = f"{size.left} of any of these"
    tasks = max(left.tasks for left in lefts)
    report.goal(Goal(what, "tasks left", 0, exactly(tasks), digits=0))
    bytes_each = max(left.bytes for left in lefts) / size.left
    report.goal(Goal(what, "bytes left, for each", LEFT, exactly(bytes_each)))
    header = ["for each of", *map(str, counts), "grows with the power"]
    header += [f"tasks left of {size.left}", f"bytes left of {size.left}"]
    report.table("growth", "CPU time for each child, by their number", header, rows)
