"""The clean-up of a child for which others wait, who hand a cancellation of theirs on to it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from quattro_core import TaskGroup
from tests.core.conftest import Run

Wait = Callable[[asyncio.Task[None]], Awaitable[Any]]


async def await_(task: asyncio.Task[None]) -> None:
    await task


async def group_of_asyncio(task: asyncio.Task[None]) -> None:
    async with asyncio.TaskGroup() as inner:
        inner.create_task(await_(task))


async def group_of_ours(task: asyncio.Task[None]) -> None:
    async with TaskGroup() as inner:
        inner.create_background_task(asyncio.sleep(3600))
        inner.create_task(await_(task))


async def group_of_anyio(task: asyncio.Task[None]) -> None:
    async with anyio.create_task_group() as inner:
        inner.start_soon(await_, task)


async def group_in_a_group(task: asyncio.Task[None]) -> None:
    async with asyncio.TaskGroup() as inner:
        inner.create_task(group_of_ours(task))


async def gather(task: asyncio.Task[None]) -> None:
    async with TaskGroup() as inner:
        await inner.gather(await_(task), asyncio.sleep(3600))


async def gather_of_asyncio(task: asyncio.Task[None]) -> None:
    await asyncio.gather(task, group_of_asyncio(task))


async def wait_for(task: asyncio.Task[None]) -> None:
    await asyncio.wait_for(task, 7200)


WAYS = [
    await_,
    group_of_asyncio,
    group_of_ours,
    group_of_anyio,
    group_in_a_group,
    gather,
    gather_of_asyncio,
    wait_for,
]


@pytest.mark.parametrize("why", ["failure", "cancel"])
@pytest.mark.parametrize("who", ["body", "child", "child of a child", "background task"])
@pytest.mark.parametrize("wait", WAYS)
def test_no_clean_up_is_cut_by_those_who_wait(run: Run, wait: Wait, who: str, why: str) -> None:
    """C5, C9: The clean-up of a child for which the body or another child waits is not cut, by
    whatever they wait; nor is theirs."""
    log: list[str] = []

    async def cleans_up() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.001)
            await asyncio.sleep(0.001)
            log.append("child")

    async def waits(task: asyncio.Task[None]) -> None:
        try:
            await wait(task)
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.001)
            log.append("waiter")

    async def main() -> None:
        async with TaskGroup() as tg:
            task = tg.create_task(cleans_up())
            tg.create_task(fail(tg))
            if who == "body":
                await waits(task)
            elif who == "child":
                tg.create_task(waits(task))
            elif who == "background task":
                tg.create_background_task(waits(task))
            else:
                await tg.create_task(waits(task))

    async def fail(tg: TaskGroup) -> None:
        await asyncio.sleep(0.001)
        if why == "failure":
            raise ZeroDivisionError
        tg.cancel()

    if why == "failure":
        with pytest.RaisesGroup(ZeroDivisionError):
            run(main)
    else:
        run(main)
    assert log == ["child", "waiter"]


def test_body_that_is_cancelled_by_somebody_else_as_well(run: Run) -> None:
    """C10: A cancellation from outside is not taken for that of the group, though the body has been
    told by the end of a child."""

    async def cleans_up() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.002)

    async def body() -> None:
        async with TaskGroup() as tg:
            task = tg.create_task(cleans_up())
            asyncio.get_running_loop().call_later(0.001, tg.cancel)
            try:
                await wait_for(task)
            finally:
                await asyncio.sleep(3600)

    async def main() -> None:
        task = asyncio.create_task(body())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main)
