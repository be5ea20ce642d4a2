"""`TaskGroup.map`: what it yields, in which order, and how much of the items it holds."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from quattro_core import TaskGroup
from tests.core.conftest import Run
from tests.core.test_background import forever

ORDERS = pytest.mark.parametrize("ordered", [False, True])
LIMITS = pytest.mark.parametrize("limit", [1, 2, 7, 100])


class Items:
    """Twenty numbers, which count how many were pulled, and how many calls run."""

    def __init__(self, count: int = 20) -> None:
        self.count = count
        self.pulled = self.yielded = self.running = self.most_running = self.most_held = 0

    def __iter__(self) -> Iterator[int]:
        for number in range(self.count):
            self.pulled += 1
            self.most_held = max(self.most_held, self.pulled - self.yielded)
            yield number

    async def call(self, number: int) -> int:
        """Return the number after a while: odd ones sooner."""
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        await asyncio.sleep(0.001 if number % 2 else 0.003)
        self.running -= 1
        return number


async def later(numbers: Items) -> AsyncIterator[int]:
    """Yield the numbers, each after a while."""
    for number in numbers:
        await asyncio.sleep(0.001)
        yield number


async def at_once(numbers: Items) -> AsyncIterator[int]:
    """Yield the numbers without ever waiting."""
    for number in numbers:
        yield number


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

    async def call(delay: float) -> float:
        await asyncio.sleep(delay)
        return delay

    async def main() -> None:
        async with TaskGroup() as tg:
            results = tg.map(call, [0.003, 0.001, 0.002], limit=3)
            assert [delay async for delay in results] == [0.001, 0.002, 0.003]

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


# What it refuses


@pytest.mark.parametrize("limit", [0, -1])
def test_limit_too_low(run_plain: Run, limit: int) -> None:
    """C6: a limit below 1 is a ValueError that names and shows it."""

    async def main() -> None:
        async with TaskGroup() as tg:
            with pytest.raises(ValueError, match=f"limit must be at least 1, got {limit}"):
                tg.map(asyncio.sleep, [1], limit=limit)

    run_plain(main)


@pytest.mark.parametrize("limit", [None, "3", 2.0, True])
def test_limit_of_another_type(run_plain: Run, limit: Any) -> None:
    """C6: a limit that is not an int is a TypeError that names and shows it."""

    async def main() -> None:
        async with TaskGroup() as tg:
            with pytest.raises(TypeError, match=f"limit must be an int, got {limit!r}"):
                tg.map(asyncio.sleep, [1], limit=limit)

    run_plain(main)


def test_no_function_and_no_iterable(run_plain: Run) -> None:
    """What can't be called, and what can't be iterated over, is a TypeError at once."""

    async def main() -> None:
        anything: Any = 3
        async with TaskGroup() as tg:
            with pytest.raises(TypeError, match="function must be a coroutine function of one"):
                tg.map(anything, [1], limit=1)
            with pytest.raises(TypeError, match="'int' object is not iterable"):
                tg.map(asyncio.sleep, anything, limit=1)

    run_plain(main)


def test_group_that_is_not_open(run: Run) -> None:
    """C4: a group that is not entered, or finished, refuses a map, and one that was not begun."""

    async def main() -> None:
        tg = TaskGroup()
        with pytest.raises(RuntimeError, match="has not been entered"):
            tg.map(forever, [], limit=1)  # type: ignore[arg-type]
        async with tg:
            results = tg.map(asyncio.sleep, [0], limit=1)
        with pytest.raises(RuntimeError, match="is finished"):
            tg.map(asyncio.sleep, [0], limit=1)
        with pytest.raises(RuntimeError, match="is finished"):
            await anext(results)

    run(main)


def test_group_that_shuts_down(run: Run) -> None:
    """C9: a group that was cancelled refuses a map."""

    async def main() -> None:
        async with TaskGroup() as tg:
            tg.cancel()
            with pytest.raises(RuntimeError, match="is shutting down"):
                tg.map(asyncio.sleep, [0], limit=1)

    run(main)


def test_another_thread(run: Run) -> None:
    """C8: in another thread, `map` and what it has returned raise a RuntimeError that says so."""

    async def main() -> None:
        async with TaskGroup() as tg:
            results = tg.map(asyncio.sleep, [0, 0], limit=1)

            def elsewhere() -> None:
                with pytest.raises(RuntimeError, match=r"TaskGroup\.map was called in thread"):
                    tg.map(asyncio.sleep, [0], limit=1)
                for call in (results.__anext__, results.aclose):
                    with pytest.raises(RuntimeError, match="can't be used in another thread"):
                        asyncio.run(call())

            await asyncio.to_thread(elsewhere)
            assert [result async for result in results] == [None, None]

    run(main)
