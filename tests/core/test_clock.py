"""The tools of these tests can fail: the virtual clock, and what is checked after a run."""

from __future__ import annotations

import asyncio

import pytest

from quattro_core import TaskGroup
from tests.core.conftest import Run
from tests.core.test_background import forever
from tests.support import clock
from tests.support.clock import DeadlockError, VirtualClockLoop


def test_time_jumps() -> None:
    """An hour on the virtual clock takes no time, and timers come in their order."""
    log: list[str] = []

    async def main() -> float:
        loop = asyncio.get_running_loop()
        loop.call_later(3, log.append, "late")
        loop.call_later(1, log.append, "early")
        await asyncio.sleep(3600)
        return loop.time()

    assert Run(VirtualClockLoop)(main) == 3600
    assert log == ["early", "late"]


def test_deadlock_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can run any more, the tasks that wait are named, with the line of each."""
    monkeypatch.setattr(clock, "GRACE", 0.1)  # there is no thread

    async def main() -> None:
        async with TaskGroup() as tg:
            tg.create_task(forever(), name="the one that hangs")

    with pytest.raises(
        DeadlockError, match=r"the one that hangs \(forever\) at .*test_background.py:\d+"
    ):
        Run(VirtualClockLoop)(main)


def test_a_task_that_was_left_is_reported() -> None:
    """A task that outlives the run is noticed."""
    run = Run(VirtualClockLoop)
    kept = []

    async def main() -> None:
        kept.append(asyncio.create_task(forever()))
        await asyncio.sleep(0)

    run(main)
    assert len(run.left) == 1


def test_a_thread_may_wake_the_loop() -> None:
    """A loop that waits for a thread is no deadlock."""

    async def main() -> str:
        return await asyncio.to_thread(lambda: "from the thread")

    assert Run(VirtualClockLoop)(main) == "from the thread"
