"""The concurrency limit: who runs, who waits, who never starts."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from quattro_core import TaskGroup
from tests.core.conftest import Run
from tests.core.test_background import forever
from tests.core.test_errors import errors_of, fail


class Meter:
    """Counts the children that run, and logs the order in which they start."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.started: list[object] = []

    async def child(self, key: object, delay: float = 0.001) -> object:
        """Be counted for a while."""
        self.started.append(key)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(delay)
        finally:
            self.now -= 1
        return key


@pytest.mark.parametrize("limit", [1, 2, 7, 100])
def test_cap(run: Run, limit: int) -> None:
    """C6: never more than `concurrency_limit` foreground children run, and never fewer than can."""
    meter = Meter()

    async def main() -> None:
        async with TaskGroup(concurrency_limit=limit) as tg:
            for key in range(20):
                tg.create_task(meter.child(key))

    run(main)
    assert meter.most == min(limit, 20)
    assert len(meter.started) == 20


@pytest.mark.parametrize("limit", [1, 3])
def test_first_come_first_served(run: Run, limit: int) -> None:
    """C6: children start in the order of their creation, those that children create as well."""
    meter = Meter()

    async def parent(tg: TaskGroup, key: int) -> None:
        tg.create_task(meter.child(100 + key))
        await meter.child(key)

    async def main() -> None:
        async with TaskGroup(concurrency_limit=limit) as tg:
            tasks = [tg.create_task(parent(tg, key)) for key in range(5)]
            await asyncio.wait(tasks)

    run(main)
    assert [key for key in meter.started if key < 100] == list(range(5))  # type: ignore[operator]
    assert [key for key in meter.started if key >= 100] == list(range(100, 105))  # type: ignore[operator]
    assert meter.most <= limit


def test_background_tasks_do_not_count(run: Run) -> None:
    """C6: background tasks take no slot."""
    meter = Meter()

    async def main() -> None:
        async with TaskGroup(concurrency_limit=1) as tg:
            for key in range(3):
                tg.create_background_task(meter.child(key, 1))
            tg.create_task(meter.child(3))

    run(main)
    assert meter.most == 4


@pytest.mark.parametrize("limit", [0, -1])
def test_limit_too_low(limit: int) -> None:
    """C6: a limit below 1 is a ValueError that names and shows it."""
    with pytest.raises(ValueError, match=f"concurrency_limit must be >= 1, got {limit}"):
        TaskGroup(concurrency_limit=limit)


@pytest.mark.parametrize("limit", ["3", 2.0, True, False, [1]])
def test_limit_of_another_type(limit: Any) -> None:
    """C6: a limit that is not an int, or a bool, is a TypeError that names and shows it."""
    with pytest.raises(TypeError, match=r"concurrency_limit must be an int or None, got"):
        TaskGroup(concurrency_limit=limit)


@pytest.mark.parametrize("reason", ["body", "child", "pump", "cancel", "outer"])
def test_nothing_starts_after_the_abort(run: Run, reason: str) -> None:
    """C6: a child that waits for its slot when the group is aborted never starts; no warning
    (trap: semaphore as limit)."""
    meter = Meter()
    waiting: list[asyncio.Task[Any]] = []

    async def group() -> None:
        async with TaskGroup(concurrency_limit=2) as tg:
            tg.create_task(fail(ValueError(reason)) if reason == "child" else meter.child(0, 9))
            tg.create_task(meter.child(1, 9))
            waiting.extend(tg.create_task(meter.child(key)) for key in range(2, 50))
            waiting.append(tg.create_task(lambda: meter.child(50)))
            if reason == "pump":
                tg.create_background_task(fail(ValueError(reason)))
            await asyncio.sleep(0.001)
            if reason == "body":
                raise ValueError(reason)
            if reason == "cancel":
                tg.cancel()
            await forever()

    async def main() -> None:
        task = asyncio.create_task(group())
        await asyncio.sleep(0.003)
        if reason == "outer":
            task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled() == (reason == "outer")
        assert task.cancelled() or (task.exception() is None) == (reason == "cancel")

    run(main)
    assert set(meter.started) <= {0, 1}
    assert meter.now == 0
    assert all(task.cancelled() for task in waiting)


def test_a_failing_child_hands_its_slot_to_nobody(run: Run) -> None:
    """C6: the error of a child aborts the group before its own slot is handed on."""
    meter = Meter()

    async def main() -> None:
        async with TaskGroup(concurrency_limit=1) as tg:
            tg.create_task(fail(ValueError("first"), 0))
            tg.create_task(meter.child("second"))

    assert errors_of(run, main) == ["first"]
    assert meter.started == []


def test_a_cancelled_child_hands_its_slot_on(run: Run) -> None:
    """C6: a child that is cancelled by the user while it runs makes room for the next."""
    meter = Meter()

    async def main() -> None:
        async with TaskGroup(concurrency_limit=1) as tg:
            first = tg.create_task(forever())
            tg.create_task(meter.child("second"))
            await asyncio.sleep(0)
            first.cancel()

    run(main)
    assert meter.started == ["second"]


def test_a_child_that_cannot_be_made_takes_no_slot(run: Run) -> None:
    """C6: if the task of a child can't be made, its slot is for the next one, and for no other."""

    def refuses(loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> Any:
        raise MemoryError

    async def main() -> None:
        loop = asyncio.get_running_loop()
        factory = loop.get_task_factory()
        loop.set_task_factory(refuses)
        async with TaskGroup(concurrency_limit=1) as tg:
            with pytest.raises(MemoryError):
                tg.create_task(forever())
            loop.set_task_factory(factory)
            meter = Meter()
            async with asyncio.timeout(60):
                await tg.gather(meter.child("a"), meter.child("b"))
            assert meter.most == 1

    run(main)


def test_a_waiting_child_that_is_cancelled_takes_no_slot(run: Run) -> None:
    """C6: a child that is cancelled while it waits never starts, the others keep their order."""
    meter = Meter()

    async def main() -> None:
        async with TaskGroup(concurrency_limit=1) as tg:
            tasks = [tg.create_task(meter.child(key)) for key in range(6)]
            for key in (1, 3, 5):
                assert tasks[key].cancel()
        assert [task.cancelled() for task in tasks] == [False, True] * 3

    run(main)
    assert meter.started == [0, 2, 4]


def test_room_again(run: Run) -> None:
    """C6: slots that were given back are there for children that come later."""
    meter = Meter()

    async def main() -> None:
        async with TaskGroup(concurrency_limit=2) as tg:
            for burst in range(3):
                await asyncio.wait([tg.create_task(meter.child(burst)) for _ in range(4)])
                await asyncio.sleep(0.001)
                assert meter.now == 0

    run(main)
    assert meter.most == 2


def test_abort_is_linear(run_plain: Run) -> None:
    """C6: the abort of ten thousand waiting children takes no time to speak of.

    A bound on real time, generous: what is quadratic takes a minute.
    """

    async def main() -> float:
        with pytest.raises(ExceptionGroup):
            async with TaskGroup(concurrency_limit=10) as tg:
                for _ in range(10_000):
                    tg.create_task(forever())
                started = time.process_time()
                raise ValueError
        return time.process_time() - started

    # Not in debug mode, which keeps a stack for each child.
    assert asyncio.run(main(), debug=False) < 2
