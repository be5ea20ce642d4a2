"""`TaskGroup.map`: who may go through the results, several at once included."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from quattro_core import TaskGroup
from tests.core.conftest import Run
from tests.core.items import ORDERS, Items, later


def test_child_consumes_during_the_exit(run: Run) -> None:
    """C3: a child may rely on a map that it iterates over, to its last line."""
    items = Items()

    async def consume(tg: TaskGroup) -> list[int]:
        return [number async for number in tg.map(items.call, items, limit=2, ordered=True)]

    async def main() -> list[int]:
        async with TaskGroup() as tg:
            task = tg.create_task(consume(tg))
        return task.result()

    assert run(main) == list(range(20))


def test_map_of_a_map(run: Run) -> None:
    """The results of a map are the items of the next."""
    items = Items()

    async def main() -> None:
        async with TaskGroup() as tg:
            once = tg.map(items.call, items, limit=3, ordered=True)
            twice = tg.map(items.call, once, limit=3, ordered=True)
            assert [number async for number in twice] == list(range(20))

    run(main)


@ORDERS
def test_many_consumers(run: Run, ordered: bool) -> None:
    """Several tasks may iterate over one map: each result goes to one of them."""
    items = Items()

    async def main() -> list[int]:
        async with TaskGroup() as tg:
            results = tg.map(items.call, items, limit=5, ordered=ordered)

            async def consume() -> list[int]:
                return [number async for number in results]

            lists = await tg.gather(*[consume() for _ in range(3)])
        return [number for each in lists for number in each]

    assert sorted(run(main)) == list(range(20))


def test_consumers_are_told_of_each_result(run_plain: Run) -> None:
    """Two results that become ready at once, since they are in order, wake two consumers."""

    async def call(delay: float) -> float:
        await asyncio.sleep(delay)
        return delay

    async def main() -> None:
        async with TaskGroup() as tg:
            results = tg.map(call, [2, 1, 3600], limit=3, ordered=True)
            consumers = [tg.create_task(results.__anext__()) for _ in range(2)]
            await asyncio.sleep(3)
            assert [consumer.result() for consumer in consumers] == [2, 1]

    run_plain(main)


def test_a_timeout_loses_nothing(run: Run) -> None:
    """C10: a timeout of one step goes by; the map goes on, and no result is lost."""
    items = Items()

    async def main() -> list[int]:
        got: list[int] = []
        timeouts = 0
        async with TaskGroup() as tg:
            results = tg.map(items.call, later(items), limit=2)
            while len(got) < 20:
                try:
                    async with asyncio.timeout(0.0007):
                        got.append(await anext(results))
                except TimeoutError:
                    timeouts += 1
        assert timeouts
        return got

    assert sorted(run(main)) == list(range(20))


def test_consumers_that_give_up_leave_nothing(run_plain: Run) -> None:
    """C10: Whoever waits in vain, again and again, as with a timeout, takes no memory."""

    async def main() -> None:
        async with TaskGroup() as tg:
            results = tg.map(asyncio.sleep, [3600], limit=1)
            for _ in range(5):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(1):
                        await anext(results)
            assert not results._run._consumers
            await results.aclose()

    run_plain(main)


def test_a_cancelled_consumer_passes_on_what_it_was_woken_for(run_plain: Run) -> None:
    """C10: a consumer that is cancelled as a result comes leaves that to the next one."""

    async def call(consumer: asyncio.Task[Any]) -> str:
        await asyncio.sleep(1)
        asyncio.get_running_loop().call_soon(consumer.cancel)
        return "result"

    async def main() -> str:
        async with TaskGroup() as tg:
            items: list[asyncio.Task[str]] = []
            results = tg.map(call, items, limit=1)
            items.append(tg.create_task(results.__anext__()))
            second = tg.create_task(results.__anext__())
        assert items[0].cancelled()
        return second.result()

    assert run_plain(main) == "result"


def test_a_consumer_that_is_cancelled_first_is_passed_over(run_plain: Run) -> None:
    """C10: a result that comes right after the consumer's cancellation goes to the next one."""

    async def call(consumer: asyncio.Task[Any]) -> str:
        await asyncio.sleep(1)
        consumer.cancel()
        return "result"

    async def main() -> str:
        async with TaskGroup() as tg:
            items: list[asyncio.Task[str]] = []
            results = tg.map(call, items, limit=1)
            items.append(tg.create_task(results.__anext__()))
            second = tg.create_task(results.__anext__())
        assert items[0].cancelled()
        return second.result()

    assert run_plain(main) == "result"


def test_consumers_that_give_up(run: Run) -> None:
    """C5: Nothing is kept of a consumer that was cancelled while it waited for a result."""

    async def main() -> None:
        async with TaskGroup() as tg:
            results = tg.map(asyncio.sleep, [3600], limit=1)
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.001):
                        await anext(results)
                assert not results._run._consumers
            tg.cancel()

    run(main)
