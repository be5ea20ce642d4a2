"""Ten calls at once, and their results."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import quattro

from benchmarks.core_mappers import call
from benchmarks.core_spawning import OURS
from benchmarks.measure import interleaved, ratios
from benchmarks.report import Report
from benchmarks.size import Size
from quattro_core import TaskGroup

CALLS = 10


async def in_asyncio(groups: int) -> None:
    for _ in range(groups):
        await asyncio.gather(*(call(item) for item in range(CALLS)))


async def in_quattro(groups: int) -> None:
    for _ in range(groups):
        await quattro.gather(*(call(item) for item in range(CALLS)))


async def by_hand(kind: Callable[[], Any], groups: int) -> None:
    for _ in range(groups):
        async with kind() as group:
            tasks = [group.create_task(call(item)) for item in range(CALLS)]
        [task.result() for task in tasks]


async def in_group(groups: int) -> None:
    for _ in range(groups):
        async with TaskGroup() as group:
            await group.gather(*(call(item) for item in range(CALLS)))


def gather(report: Report, size: Size) -> None:
    """Compare `gather` with that of others, and with a group by hand."""
    kinds: dict[str, Callable[[int], Coroutine[Any, Any, None]]] = {
        "asyncio.gather": in_asyncio,
        "asyncio.TaskGroup, by hand": partial(by_hand, asyncio.TaskGroup),
        f"{OURS}, by hand": partial(by_hand, TaskGroup),
        "quattro.gather": in_quattro,
        f"{OURS}, gather": in_group,
    }
    groups = max(1, size.batch // CALLS)
    samples = interleaved(
        {name: partial(run, groups) for name, run in kinds.items()}, size.rounds(15)
    )
    asyncios, by_hands = (
        ratios(samples, base) for base in ("asyncio.gather", "asyncio.TaskGroup, by hand")
    )
    rows = [[name, str(asyncios[name]), str(by_hands[name])] for name in kinds]
    header = ["", "of asyncio.gather", "of asyncio.TaskGroup, by hand"]
    report.table("gather", f"{CALLS} calls and their results, time", header, rows)
