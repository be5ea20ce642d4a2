"""A few calls at once, and their results."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import quattro

from benchmarks.core_mappers import call
from benchmarks.core_spawning import OURS
from benchmarks.goals import Goal
from benchmarks.measure import interleaved, ratios
from benchmarks.report import Report
from benchmarks.size import Size
from quattro_core import TaskGroup

CALLS = 10


async def in_asyncio(groups: int, calls: int = CALLS, *, return_exceptions: bool = False) -> None:
    for _ in range(groups):
        coros = [call(item) for item in range(calls)]
        await asyncio.gather(*coros, return_exceptions=return_exceptions)


async def in_quattro(groups: int) -> None:
    for _ in range(groups):
        await quattro.gather(*(call(item) for item in range(CALLS)))


async def by_hand(kind: Callable[[], Any], groups: int) -> None:
    for _ in range(groups):
        async with kind() as group:
            tasks = [group.create_task(call(item)) for item in range(CALLS)]
        [task.result() for task in tasks]


async def in_group(groups: int, calls: int = CALLS, *, return_exceptions: bool = False) -> None:
    for _ in range(groups):
        async with TaskGroup() as group:
            coros = [call(item) for item in range(calls)]
            await group.gather(*coros, return_exceptions=return_exceptions)


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
    gathers(report, size)


def gathers(report: Report, size: Size) -> None:
    """Compare `gather` with that of asyncio, for few calls and for many."""
    errors = {
        "errors are raised": False,
        "return_exceptions=True": True,
    }
    rows = []
    for calls in size.gathered:
        groups, row = max(1, size.batch // calls), [f"{calls}"]
        for what, returned in errors.items():
            with_errors = {"return_exceptions": returned}
            scenarios = {
                name: partial(run, groups, calls, **with_errors)
                for name, run in (("asyncio", in_asyncio), (OURS, in_group))
            }
            found = ratios(interleaved(scenarios, size.rounds(8)), "asyncio")[OURS]
            row.append(str(found))
            how = f"time, of asyncio.gather, {what}"
            report.goal(Goal(f"gather of {calls}", how, 1.0, found))
        rows.append(row)
    title = "gather, with its group, asyncio.gather = 1"
    report.table("gathers", title, ["calls", *errors], rows)
