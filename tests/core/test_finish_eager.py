"""`finish` where tasks run their first step at once, and where its waiter is cancelled in it."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from quattro_core import TaskGroup
from tests.core.conftest import Run
from tests.core.test_background import forever
from tests.support.clock import VirtualClockLoop


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
@pytest.mark.parametrize("goes_on", [False, True])
def test_finish_by_a_child_that_the_loop_starts_at_once(goes_on: bool) -> None:
    """C3, C10: A child that would finish its group in its eager first step, on a loop that has no
    task factory to tell of that, can't wait for its own end; the exit waits for it."""
    log = []

    class Loop(VirtualClockLoop):
        def create_task(self, coro: Any, **options: Any) -> Any:
            return asyncio.Task(coro, loop=self, eager_start=True, **options)  # type: ignore[call-arg,unused-ignore]

    async def child(tg: TaskGroup) -> None:
        with pytest.raises(RuntimeError, match="can't wait for the end of the TaskGroup"):
            await tg.finish()
        if goes_on:
            await asyncio.sleep(0.001)
        log.append("child")

    async def main() -> None:
        async with TaskGroup() as tg:
            tg.create_task(child(tg))
        log.append("exit")

    run = Run(Loop)
    run(main)
    assert log == ["child", "exit"]
    assert not run.reports


@pytest.mark.parametrize("immediate", [False, True])
def test_finish_that_is_cancelled_at_once(run: Run, immediate: bool) -> None:
    """C3, C10: A waiter that is cancelled as soon as it waits, under a task factory as well, has
    the children cancelled; with immediate=True it ends after them."""
    log = []

    async def child() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0.001)
            log.append("child")

    async def wait(tg: TaskGroup) -> None:
        try:
            await tg.finish(immediate=immediate)
        finally:
            log.append("waiter")

    async def main() -> None:
        async with TaskGroup() as tg:
            spawned = tg.create_task(child())
            await asyncio.sleep(0)
            waiter = asyncio.create_task(wait(tg))
            if asyncio.get_running_loop().get_task_factory() is None:
                await asyncio.sleep(0)
            waiter.cancel()
            await asyncio.wait((waiter,))
        assert waiter.cancelled() and spawned.cancelled()

    run(main)
    assert log == (["child", "waiter"] if immediate else ["waiter", "child"])
