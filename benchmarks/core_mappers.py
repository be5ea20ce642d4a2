"""Ways to call a function for each item, ten at once, and take the results one by one.

Each returns how many results there were.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import aiometer
import aiostream
import quattro

from benchmarks.core_spawning import OURS
from quattro_core import TaskGroup

LIMIT = 10

Mapper = Callable[[int], Coroutine[Any, Any, int]]


async def call(item: int) -> int:
    """Wait once, and return."""
    await asyncio.sleep(0)
    return item


async def with_children(kind: Callable[..., Any], count: int) -> int:
    """Make a child for each item; all results are there at the end."""
    async with kind(concurrency_limit=LIMIT) as group:
        tasks = [group.create_task(call(item)) for item in range(count)]
    return sum(1 for task in tasks if task.result() is not None)


async def with_workers(count: int) -> int:
    """Let ten workers take items, and put the results in a queue: what one writes by hand."""
    items, found = iter(range(count)), 0
    results: asyncio.Queue[int | None] = asyncio.Queue(LIMIT)

    async def work() -> None:
        for item in items:
            await results.put(await call(item))
        await results.put(None)

    async with asyncio.TaskGroup() as group:
        working = LIMIT
        for _ in range(LIMIT):
            group.create_task(work())
        while working:
            if await results.get() is None:
                working -= 1
            else:
                found += 1
    return found


async def with_map(count: int, *, ordered: bool = False) -> int:
    found = 0
    async with TaskGroup() as group:
        async for _ in group.map(call, range(count), limit=LIMIT, ordered=ordered):
            found += 1
    return found


async def in_aiometer(count: int) -> int:
    found = 0
    async with aiometer.amap(call, range(count), max_at_once=LIMIT) as results:
        async for _ in results:
            found += 1
    return found


async def in_aiostream(count: int) -> int:
    map_: Any = aiostream.stream.map  # its types know of no function of one argument
    found, items = 0, aiostream.stream.iterate(range(count))
    results = map_(items, call, ordered=False, task_limit=LIMIT)
    async with results.stream() as streamer:
        async for _ in streamer:
            found += 1
    return found


MAP, ORDERED = f"{OURS}, map", f"{OURS}, map in order"
BASE = "quattro, a limit"
SLOW = ("aiometer, amap", "aiostream, map")


def mappers() -> dict[str, Mapper]:
    """Return what there is."""
    return {
        f"{OURS}, a limit": partial(with_children, TaskGroup),
        MAP: with_map,
        ORDERED: partial(with_map, ordered=True),
        BASE: partial(with_children, quattro.TaskGroup),
        "asyncio, workers by hand": with_workers,
        "aiometer, amap": in_aiometer,
        "aiostream, map": in_aiostream,
    }
