"""`TaskGroup.gather`: the results of several children, in one line."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from quattro_core import TaskGroup
from tests.core.conftest import Run
from tests.core.test_background import forever
from tests.core.test_limit import Meter


async def give(value: str, delay: float = 0.001) -> str:
    """Return the value after a while."""
    await asyncio.sleep(delay)
    return value


@pytest.mark.parametrize("limit", [None, 1, 2])
def test_results_in_order(run: Run, limit: int | None) -> None:
    """C6, C7: results come in the order of the arguments, which may be functions; limits hold."""

    async def main() -> None:
        async with TaskGroup(concurrency_limit=limit) as tg:
            results = await tg.gather(give("a", 0.003), lambda: give("b", 0.001), give("c", 0.002))
            assert results == ("a", "b", "c")

    run(main)


def test_many(run: Run) -> None:
    """C6: as many as there are, and no more at once than `concurrency_limit`."""
    meter = Meter()

    async def main() -> None:
        async with TaskGroup(concurrency_limit=3) as tg:
            results = await tg.gather(*[meter.child(key) for key in range(20)])
            assert results == tuple(range(20))

    run(main)
    assert meter.most == 3


def test_nothing(run: Run) -> None:
    """Of nothing, there are no results."""

    async def main() -> None:
        async with TaskGroup() as tg:
            assert await tg.gather() == ()

    run(main)


def test_results_that_are_there_at_once(run: Run) -> None:
    """C10: children that never wait are as good as others."""

    async def at_once(value: int) -> int:
        return value

    async def main() -> None:
        async with TaskGroup() as tg:
            assert await tg.gather(at_once(1), at_once(2)) == (1, 2)

    run(main)


def test_by_a_child(run: Run) -> None:
    """C4: a child may gather children of its group, during the exit too."""

    async def child(tg: TaskGroup) -> tuple[str, str]:
        return await tg.gather(give("a"), give("b"))

    async def main() -> tuple[str, str]:
        async with TaskGroup() as tg:
            task = tg.create_task(child(tg))
        return task.result()

    assert run(main) == ("a", "b")


def test_no_reference_cycles(run_plain: Run) -> None:
    """C5: an error that a caller has seen goes when nobody holds it."""
    left: list[weakref.ref[BaseException]] = []

    class OwnError(ValueError):
        def __init__(self) -> None:
            left.append(weakref.ref(self))

    async def fail_by_itself() -> None:
        raise OwnError

    async def outsider(tg: TaskGroup) -> None:
        try:
            await tg.gather(fail_by_itself())
        except ValueError:
            pass

    async def call() -> None:
        try:
            async with TaskGroup() as tg:
                task = asyncio.create_task(outsider(tg))
                await forever()
        except* OwnError:
            await task

    async def main() -> None:
        gc.disable()
        try:
            await asyncio.create_task(call())
            await asyncio.sleep(0)
            assert [reference() for reference in left] == [None]
        finally:
            gc.enable()

    run_plain(main)


def test_failure_is_in_no_reference_cycle(run_plain: Run) -> None:
    """C5: nor is the one that has cancelled the caller, in which the group ends."""
    left: list[weakref.ref[BaseException]] = []

    class OwnError(ValueError):
        def __init__(self) -> None:
            left.append(weakref.ref(self))

    async def fail_by_itself() -> None:
        await asyncio.sleep(0)
        raise OwnError

    async def call() -> None:
        try:
            async with TaskGroup() as tg:
                await tg.gather(fail_by_itself(), forever())
        except* OwnError:
            pass

    async def main() -> None:
        gc.disable()
        try:
            await call()
            assert [ref() for ref in left] == [None]
        finally:
            gc.enable()

    run_plain(main)
