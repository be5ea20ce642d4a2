"""`TaskGroup.map`: what it yields, in which order, and how much of the items it holds."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any

import pytest

from quattro_core import TaskGroup
from tests.core.conftest import Run
from tests.core.items import LIMITS, ORDERS, Items, at_once, later
from tests.core.test_background import forever

SOURCES = pytest.mark.parametrize("source", [iter, later, at_once])


@ORDERS
@LIMITS
@SOURCES
def test_every_result_once(
    run: Run, source: Callable[[Items], Any], limit: int, ordered: bool
) -> None:
    """C10: every result comes once, never more than `limit` calls run, and twice as many items are
    held at the most."""
    items = Items()

    async def main() -> list[int]:
        results = []
        async with TaskGroup() as tg:
            async for number in tg.map(items.call, source(items), limit=limit, ordered=ordered):
                items.yielded += 1
                results.append(number)
        return results

    results = run(main)
    assert (results if ordered else sorted(results)) == list(range(20))
    assert 1 <= items.most_running <= limit
    assert items.most_held <= 2 * limit
    assert source is later or items.most_running == min(limit, 20)


def test_as_they_finish(run: Run) -> None:
    """Without `ordered`, results come as they are ready."""

    async def main() -> None:
        may_end = [asyncio.Event() for _ in range(3)]

        async def call(number: int) -> int:
            await may_end[number].wait()
            return number

        async with TaskGroup() as tg:
            may_end[1].set()
            results = []
            async for number in tg.map(call, range(3), limit=3):
                results.append(number)
                may_end[2 if number == 1 else 0].set()
            assert results == [1, 2, 0]

    run(main)


@LIMITS
def test_calls_begin_in_order(run: Run, limit: int) -> None:
    """Calls begin in the order of the items, the first ones included."""
    begun: list[int] = []

    async def call(number: int) -> None:
        begun.append(number)
        await asyncio.sleep(0.001)

    async def main() -> None:
        async with TaskGroup() as tg:
            async for _ in tg.map(call, range(20), limit=limit):
                pass

    run(main)
    assert begun == list(range(20))


@SOURCES
@LIMITS
def test_slow_first_item(run_plain: Run, source: Callable[[Items], Any], limit: int) -> None:
    """In order, a first item that takes long holds up the others, of whatever source, when twice
    `limit` are ahead, and not before."""
    items = Items(20 * limit)

    async def call(number: int) -> int:
        if number == 0:
            await asyncio.sleep(3600)
        return number

    async def main() -> None:
        async with TaskGroup() as tg:
            async for _ in tg.map(call, source(items), limit=limit, ordered=True):
                items.yielded += 1

    run_plain(main)
    assert items.yielded == items.count
    assert 2 * limit - (limit == 1) <= items.most_held <= 2 * limit + 1


@ORDERS
@LIMITS
def test_slow_consumer(run_plain: Run, limit: int, ordered: bool) -> None:
    """A consumer that takes its time holds the calls back: never more than twice `limit` are
    ahead."""
    items = Items()

    async def main() -> None:
        async with TaskGroup() as tg:
            async for _ in tg.map(items.call, items, limit=limit, ordered=ordered):
                await asyncio.sleep(1)
                ahead = items.pulled - items.yielded
                assert min(limit, 20 - items.yielded) <= ahead <= 2 * limit + 1
                items.yielded += 1

    run_plain(main)
    # The one that the consumer works with was handed to it.
    assert items.most_held <= 2 * limit + 1


@ORDERS
@pytest.mark.parametrize("limit", [1, 5])
def test_nothing_to_do(run: Run, limit: int, ordered: bool) -> None:
    """A map of no items ends at once, for ever."""

    async def main() -> None:
        async with TaskGroup() as tg:
            results = tg.map(forever, [], limit=limit, ordered=ordered)  # type: ignore[arg-type]
            for _ in range(3):
                with pytest.raises(StopAsyncIteration):
                    await anext(results)
            assert tg.tasks == ()

    run(main)


@pytest.mark.parametrize("end", [iter, at_once])
def test_the_end_stays(run: Run, end: Callable[[Items], Any]) -> None:
    """After its last result a map has ended for ever."""
    items = Items(3)

    async def main() -> None:
        async with TaskGroup() as tg:
            results = tg.map(items.call, end(items), limit=2)
            assert sorted([number async for number in results]) == [0, 1, 2]
            assert [number async for number in results] == []
            await results.aclose()
            assert [number async for number in results] == []

    run(main)


def test_no_more_workers_than_items(run: Run) -> None:
    """A map of two items under a high limit starts two tasks or so, not as many as it may."""
    items = Items(2)

    async def main() -> None:
        async with TaskGroup() as tg:
            results = tg.map(items.call, items, limit=1000)
            assert tg.tasks == ()
            await anext(results)
            assert len(tg.tasks) <= 2

    run(main)


def test_workers_are_background_tasks(run: Run) -> None:
    """C3, C6: the group waits for no worker, and its `concurrency_limit` counts none."""
    items = Items()

    async def main() -> None:
        async with TaskGroup(concurrency_limit=1) as tg:
            results = tg.map(items.call, items, limit=5)
            assert await tg.create_task(results.__anext__()) in range(20)
            assert items.most_running == 5
        assert items.pulled < 20

    run(main)


def test_context(run: Run) -> None:
    """R11: the calls see the context variables of the one who called `map`."""
    variable = contextvars.ContextVar("variable", default="unset")

    async def call(_: int) -> str:
        return variable.get()

    async def main() -> None:
        async with TaskGroup() as tg:
            variable.set("set")
            results = tg.map(call, range(9), limit=3)
            variable.set("too late")
            assert {value async for value in results} == {"set"}

    run(main)


def test_name(run_plain: Run) -> None:
    """Logs that name the tasks of a group say which map they work for."""
    items = Items()

    async def main() -> None:
        async with TaskGroup() as tg:
            results = tg.map(items.call, items, limit=2)
            await anext(results)
            assert {task.get_name() for task in tg.tasks} == {"map of Items.call"}

    run_plain(main)


def test_calls_that_never_wait(run: Run) -> None:
    """Calls that never wait don't keep others from running."""

    async def call(number: int) -> int:
        return number

    async def tick(ticks: list[int]) -> None:
        while True:
            ticks.append(1)
            await asyncio.sleep(0)

    async def main() -> None:
        ticks: list[int] = []
        async with TaskGroup() as tg:
            tg.create_background_task(tick(ticks))
            assert [n async for n in tg.map(call, range(99), limit=3, ordered=True)] == [*range(99)]
        assert len(ticks) > 15

    run(main)
