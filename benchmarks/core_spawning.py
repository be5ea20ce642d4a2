"""Opening a group, spawning N children, and joining them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import aiojobs
import aiometer
import anyio
import quattro

from benchmarks.goals import Goal
from benchmarks.measure import Scenario, interleaved, ratios
from benchmarks.plot import Bar
from benchmarks.report import Report
from benchmarks.size import Size
from quattro_core import TaskGroup

OURS = "quattro_core"
SLOW = ("anyio", "aiojobs", "aiometer")


async def child() -> None:
    """Wait once, and end."""
    await asyncio.sleep(0)


async def in_groups(kind: Callable[[], Any], children: int, groups: int) -> None:
    """Open groups that are made as an `asyncio.TaskGroup` is, one after the other."""
    for _ in range(groups):
        async with kind() as group:
            for _ in range(children):
                group.create_task(child())


async def in_anyio(children: int, groups: int) -> None:
    for _ in range(groups):
        async with anyio.create_task_group() as group:
            for _ in range(children):
                group.start_soon(child)


async def in_aiojobs(children: int, groups: int) -> None:
    for _ in range(groups):
        async with aiojobs.Scheduler(limit=None) as scheduler:
            for _ in range(children):
                await scheduler.spawn(child())


async def in_aiometer(children: int, groups: int) -> None:
    for _ in range(groups):
        await aiometer.run_all([child] * children)


SPAWNERS: dict[str, Callable[[int, int], Any]] = {
    "asyncio": partial(in_groups, asyncio.TaskGroup),
    OURS: partial(in_groups, TaskGroup),
    "quattro": partial(in_groups, quattro.TaskGroup),
    "anyio": in_anyio,
    "aiojobs": in_aiojobs,
    "aiometer": in_aiometer,
}


def spawning(report: Report, size: Size) -> None:
    """Compare groups of one child, and of more and more."""
    rows, bars = [], []
    for children in size.children:
        groups = max(1, size.batch // children)
        scenarios: dict[str, Scenario] = {
            name: partial(spawn, children, groups) for name, spawn in SPAWNERS.items()
        }
        many = children > 1000
        samples = interleaved(
            scenarios,
            size.rounds(130 if many else 20),
            slow=SLOW if many else (),
            few=size.few,
        )
        found = ratios(samples, "asyncio")
        most = 1.02 if children == 1 else 1.0
        rows.append([f"{children}", *(str(found[name]) for name in SPAWNERS)])
        group = "1 child" if children == 1 else f"{children} children"
        bars += [
            Bar.of(group, name, found[name], most if name == OURS else None) for name in SPAWNERS
        ]
        report.goal(Goal(group, "time, of asyncio.TaskGroup", most, found[OURS]))
        beside = ratios(samples, "quattro")[OURS]
        report.goal(Goal(group, "time, of quattro", 1.0, beside))
    title = "Spawning and joining children, asyncio.TaskGroup = 1"
    report.table("spawning", title, ["children", *SPAWNERS], rows, bars=bars)
