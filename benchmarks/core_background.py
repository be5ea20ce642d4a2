"""Background tasks that live as long as there are children."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import aiojobs
import anyio
import quattro

from benchmarks.core_spawning import OURS, child
from benchmarks.goals import Goal
from benchmarks.measure import interleaved, ratios
from benchmarks.report import Report
from benchmarks.size import Size
from quattro_core import TaskGroup


async def pump() -> None:
    """Go on until somebody ends it."""
    await asyncio.get_running_loop().create_future()


async def by_hand(count: int, groups: int) -> None:
    """Keep the pumps, wait for the children in a group of their own, and cancel the pumps."""
    for _ in range(groups):
        async with asyncio.TaskGroup() as outer:
            pumps = [outer.create_task(pump()) for _ in range(count)]
            async with asyncio.TaskGroup() as inner:
                for _ in range(count):
                    inner.create_task(child())
            for task in pumps:
                task.cancel()


async def with_background(kind: Callable[[], Any], count: int, groups: int) -> None:
    for _ in range(groups):
        async with kind() as group:
            for _ in range(count):
                group.create_background_task(pump())
            for _ in range(count):
                group.create_task(child())


async def begun_in_quattro(count: int, groups: int) -> None:
    """Let the tasks begin: quattro cancels them when the body ends, which is before that."""
    for _ in range(groups):
        async with quattro.TaskGroup() as group:
            for _ in range(count):
                group.create_background_task(pump())
            for _ in range(count):
                group.create_task(child())
            await asyncio.sleep(0)


async def bare(count: int, groups: int) -> None:
    """Do without a group what each has to do: begin all, wait for the children, end the pumps."""
    loop = asyncio.get_running_loop()
    for _ in range(groups):
        pumps = [loop.create_task(pump()) for _ in range(count)]
        for task in [loop.create_task(child()) for _ in range(count)]:
            await task
        for task in pumps:
            task.cancel()
        for task in pumps:
            with suppress(asyncio.CancelledError):
                await task


async def in_anyio(count: int, groups: int) -> None:
    for _ in range(groups):
        async with anyio.create_task_group() as outer:
            for _ in range(count):
                outer.start_soon(pump)
            async with anyio.create_task_group() as inner:
                for _ in range(count):
                    inner.start_soon(child)
            outer.cancel_scope.cancel()


async def in_aiojobs(count: int, groups: int) -> None:
    for _ in range(groups):
        scheduler = aiojobs.Scheduler(limit=None, close_timeout=None)
        for _ in range(count):
            await scheduler.spawn(pump())
        for job in [await scheduler.spawn(child()) for _ in range(count)]:
            await job.wait()
        await scheduler.close()


BEGUN = "quattro, all begun"
KEEPERS: dict[str, Callable[[int, int], Any]] = {
    "asyncio, by hand": by_hand,
    OURS: partial(with_background, TaskGroup),
    "quattro": partial(with_background, quattro.TaskGroup),
    BEGUN: begun_in_quattro,
    "tasks without a group": bare,
    "anyio, by hand": in_anyio,
    "aiojobs, by hand": in_aiojobs,
}


def background(report: Report, size: Size) -> None:
    """Compare groups of N background tasks and N children."""
    rows = []
    for count in size.pumps:
        groups = max(1, size.batch // count)
        scenarios = {name: partial(keep, count, groups) for name, keep in KEEPERS.items()}
        samples = interleaved(scenarios, size.rounds(15))
        found = ratios(samples, "asyncio, by hand")
        for beside in ("quattro", BEGUN):
            ours = ratios(samples, beside)[OURS]
            report.goal(Goal(f"background tasks: {count}", f"time, of {beside}", 1.0, ours))
        rows.append([f"{count}", *(str(found[name]) for name in KEEPERS), ""])
    title = "As many background tasks as children, two groups of asyncio by hand = 1"
    report.table("background", title, ["of each", *KEEPERS, "aiometer"], rows)
