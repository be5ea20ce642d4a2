"""Children of children, created at every time."""

from __future__ import annotations

import asyncio
import inspect
import sys

import pytest

from quattro_core import TaskGroup
from tests.core.conftest import Run
from tests.core.test_background import forever


def test_pump_made_just_before_the_exit(run: Run) -> None:
    """C4: a background task that is created by the last line of the body does not hang the exit."""

    async def main() -> None:
        async with TaskGroup() as tg:
            tg.create_task(asyncio.sleep(0.001))
            await asyncio.sleep(0.002)
            tg.create_background_task(forever())

    run(main)


@pytest.mark.parametrize("limit", [None, 1])
def test_pump_made_by_a_child_during_the_exit(run: Run, limit: int | None) -> None:
    """C4: a child may create a background task during the exit, which ends with the others."""
    made = []

    async def child(tg: TaskGroup) -> None:
        await asyncio.sleep(0.001)
        made.append(tg.create_background_task(forever()))
        await asyncio.sleep(0.001)
        assert not made[0].done()

    async def main() -> None:
        async with TaskGroup(concurrency_limit=limit) as tg:
            tg.create_task(child(tg))
        assert made[0].cancelled()

    run(main)


def test_pump_made_by_a_childs_last_line(run: Run) -> None:
    """C4: a background task that the last child creates with its last line ends with the group."""
    made = []

    async def child(tg: TaskGroup) -> None:
        await asyncio.sleep(0.001)
        made.append(tg.create_background_task(forever()))

    async def main() -> None:
        async with TaskGroup() as tg:
            tg.create_task(child(tg))
        assert made[0].cancelled()

    run(main)


@pytest.mark.parametrize("delay", [0, 0.001])
def test_pump_made_by_a_dying_pump(run: Run, delay: float) -> None:
    """C4: a background task may create another while it is cancelled at the exit."""
    made = []

    async def pump(tg: TaskGroup) -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(delay)
            made.append(tg.create_background_task(forever()))
            await asyncio.sleep(delay)

    async def main() -> None:
        async with TaskGroup() as tg:
            tg.create_background_task(pump(tg))
            await asyncio.sleep(0)
        assert made[0].cancelled()

    run(main)


@pytest.mark.parametrize("limit", [None, 1])
def test_child_made_by_a_dying_pump(run: Run, limit: int | None) -> None:
    """C4: a background task may create foreground children while it is cancelled at the exit."""
    made: list[asyncio.Task[str]] = []

    async def pump(tg: TaskGroup) -> None:
        try:
            await forever()
        finally:
            made.extend(tg.create_task(asyncio.sleep(0.001, "flushed")) for _ in range(2))

    async def main() -> None:
        async with TaskGroup(concurrency_limit=limit) as tg:
            tg.create_background_task(pump(tg))
            await asyncio.sleep(0)
        assert [task.result() for task in made] == ["flushed", "flushed"]

    run(main)


def test_pump_that_outlives_the_cancellation_of_another(run: Run) -> None:
    """C4: children that a dying pump creates are awaited, and other dying pumps with them."""
    log = []

    async def slow() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0.005)
            log.append("slow")

    async def spawner(tg: TaskGroup) -> None:
        try:
            await forever()
        finally:
            tg.create_task(asyncio.sleep(0.001))

    async def main() -> None:
        async with TaskGroup() as tg:
            tg.create_background_task(slow())
            tg.create_background_task(spawner(tg))
            await asyncio.sleep(0)

    run(main)
    assert log == ["slow"]


@pytest.mark.parametrize("limit", [None, 3])
def test_deep_tree(run: Run, limit: int | None) -> None:
    """C4: children of children of children are awaited, however deep."""
    leaves = 0

    async def node(tg: TaskGroup, depth: int) -> None:
        nonlocal leaves
        await asyncio.sleep(0.0001)
        if depth == 0:
            leaves += 1
            return
        for _ in range(2):
            tg.create_task(node(tg, depth - 1))

    async def main() -> None:
        async with TaskGroup(concurrency_limit=limit) as tg:
            tg.create_task(node(tg, 5))

    run(main)
    assert leaves == 32


def assert_refused(tg: TaskGroup, method: str, match: str) -> None:
    coro = forever()
    for child in (forever, coro):
        with pytest.raises(RuntimeError, match=match):
            getattr(tg, method)(child)
    # Before 3.13 `asyncio.TaskGroup` leaves it to the caller.
    is_closed = inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED
    assert is_closed == (sys.version_info >= (3, 13))
    coro.close()


METHODS = pytest.mark.parametrize("method", ["create_task", "create_background_task"])
LIMITS = pytest.mark.parametrize("limit", [None, 1])


@LIMITS
@METHODS
def test_not_after_the_end(run: Run, method: str, limit: int | None) -> None:
    """C1, C4: a group that has finished takes no children, and says so; as asyncio's, it closes a
    coroutine from Python 3.13 on."""

    async def main() -> None:
        async with TaskGroup(concurrency_limit=limit) as tg:
            pass
        assert_refused(tg, method, "is finished")

    run(main)


@LIMITS
@METHODS
def test_not_before_the_entry(run: Run, method: str, limit: int | None) -> None:
    """C4: a group that was not entered takes no children, and says so, in an event loop or not."""

    async def main() -> None:
        assert_refused(TaskGroup(concurrency_limit=limit), method, "has not been entered")

    run(main)
    assert_refused(TaskGroup(concurrency_limit=limit), method, "has not been entered")


@LIMITS
@METHODS
def test_not_while_shutting_down(run: Run, method: str, limit: int | None) -> None:
    """C4: a group that was aborted takes no more children, and says so."""

    async def child(tg: TaskGroup) -> None:
        try:
            await forever()
        finally:
            assert_refused(tg, method, "is shutting down")

    async def main() -> None:
        async with TaskGroup(concurrency_limit=limit) as tg:
            tg.create_task(child(tg))
            await asyncio.sleep(0)
            raise ValueError

    with pytest.raises(ExceptionGroup):
        run(main)
