"""Ways to have many children of which ten run at once.

Each starts *count* calls of *function*, waits for *during* while they wait for their slots, and
then for all of them. An error of *during* ends all of them early.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

import aiojobs
import aiometer
import anyio
import quattro

from benchmarks.core_spawning import OURS
from quattro_core import TaskGroup

LIMIT = 10

Function = Callable[[], Coroutine[Any, Any, None]]
During = Callable[[], Awaitable[None]]
Limiter = Callable[[Function, int, During], Coroutine[Any, Any, None]]


async def nothing() -> None:
    """Do nothing while the others wait."""


async def in_group(
    kind: Callable[..., Any], function: Function, count: int, during: During
) -> None:
    async with kind(concurrency_limit=LIMIT) as group:
        for _ in range(count):
            group.create_task(function())
        await during()


async def with_semaphore(function: Function, count: int, during: During) -> None:
    slots = asyncio.Semaphore(LIMIT)

    async def limited() -> None:
        async with slots:
            await function()

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(limited())
        await during()


async def in_anyio(
    kind: Callable[[int], Any], function: Function, count: int, during: During
) -> None:
    slots = kind(LIMIT)

    async def limited() -> None:
        async with slots:
            await function()

    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(limited)
        await during()


async def in_aiojobs(function: Function, count: int, during: During) -> None:
    scheduler = aiojobs.Scheduler(limit=LIMIT, pending_limit=0, close_timeout=None)
    try:
        for _ in range(count):
            await scheduler.spawn(function())
        await during()
        await scheduler.wait_and_close()
    finally:
        await scheduler.close()


async def in_aiometer(function: Function, count: int, during: During) -> None:
    async def each(_: int) -> None:
        await function()

    running = asyncio.create_task(aiometer.run_on_each(each, range(count), max_at_once=LIMIT))
    try:
        await during()
        await running
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


LIMITERS: dict[str, Limiter] = {
    OURS: partial(in_group, TaskGroup),
    "quattro": partial(in_group, quattro.TaskGroup),
    "asyncio, Semaphore": with_semaphore,
    "anyio, CapacityLimiter": partial(in_anyio, anyio.CapacityLimiter),
    "anyio, Semaphore": partial(in_anyio, anyio.Semaphore),
    "aiojobs": in_aiojobs,
    "aiometer": in_aiometer,
}
