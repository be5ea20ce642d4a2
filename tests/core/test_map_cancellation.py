"""`TaskGroup.map`: what a cancellation of the group, a worker or a consumer does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from quattro_core import TaskGroup
from tests.core.conftest import Run, turns
from tests.core.items import ORDERS
from tests.core.test_background import forever
from tests.core.test_clean_up import cancel_soon, group_of_asyncio
from tests.core.test_errors import errors_of, fail
from tests.core.test_map_failures import fail_at_three


@pytest.mark.parametrize("where", ["body", "child", "background"])
def test_consumers_of_the_group_are_cancelled(run: Run, where: str) -> None:
    """C5: a failure cancels the consumer, be it the body, a child or a background task."""
    seen: list[BaseException] = []

    async def consume(tg: TaskGroup) -> None:
        try:
            results = tg.map(fail_at_three, range(9), limit=2)
            while True:
                await anext(results)
        except BaseException as error:
            seen.append(error)
            raise

    async def main() -> None:
        async with TaskGroup() as tg:
            if where == "child":
                tg.create_task(consume(tg))
            elif where == "background":
                tg.create_background_task(consume(tg))
                await forever()
            else:
                await consume(tg)

    assert errors_of(run, main) == ["three"]
    assert [type(error) for error in seen] == [asyncio.CancelledError]


REASONS = pytest.mark.parametrize("reason", ["call", "child", "cancel", "exit"])


@REASONS
@ORDERS
def test_outsiders_are_told(run: Run, reason: str, ordered: bool) -> None:
    """C5: a consumer that the group does not know of does not hang: it is cancelled with the group,
    and gets an error if the group has ended without it."""

    async def outsider(tg: TaskGroup) -> None:
        call: Any = fail_at_three if reason == "call" else asyncio.sleep
        results = tg.map(call, [1, 2, 3, 3600], limit=4, ordered=ordered)
        cut = RuntimeError if reason == "exit" else asyncio.CancelledError
        with pytest.raises(cut, match=r"the map was cut short|TaskGroup of the map has failed"):
            while True:
                await anext(results)
        with pytest.raises(cut):
            await anext(results)
        await results.aclose()

    async def group(tg: TaskGroup, entered: asyncio.Event) -> None:
        async with tg:
            entered.set()
            await turns()
            if reason == "child":
                tg.create_task(fail(ValueError("child")))
            elif reason == "cancel":
                tg.cancel()
            if reason != "exit":
                await forever()

    async def main() -> None:
        tg, entered = TaskGroup(), asyncio.Event()
        task = asyncio.create_task(group(tg, entered))
        await entered.wait()
        consumer = asyncio.create_task(outsider(tg))
        await asyncio.wait([task, consumer])
        consumer.result()
        assert (task.exception() is None) == (reason in {"cancel", "exit"})

    run(main)


def test_a_worker_is_cancelled(run: Run) -> None:
    """C5: cancelling a worker by itself cuts the map short, and its consumer is told."""

    async def main() -> None:
        async with TaskGroup() as tg:
            results = tg.map(asyncio.sleep, [0, 3600, 3600], limit=2)
            await anext(results)
            tg.tasks[0].cancel()
            with pytest.raises(RuntimeError, match="the map was cut short"):
                await anext(results)
            await turns()
            assert tg.tasks == ()

    run(main)


@pytest.mark.parametrize("source", ["items", "async items", "call"])
def test_swallowed_cancellation(run: Run, source: str) -> None:
    """C2: a call, or an iterable, that swallows the cancellation does not keep the group open."""
    calls: list[int] = []

    async def swallow() -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            pass

    async def call(number: int) -> int:
        calls.append(number)
        if number == 1 and source != "async items":
            await swallow()
        return number

    async def later() -> AsyncIterator[int]:
        yield 0
        await swallow()
        yield 1

    async def main() -> None:
        async with TaskGroup() as tg:
            items: Any = later() if source == "async items" else range(5)
            results = tg.map(call, items, limit=2, ordered=source == "items")
            assert await anext(results) == 0
            await turns()

    run(main)
    # What the iterable gave after the cancellation is not worked on, whoever is ahead goes on.
    assert sorted(calls) == list(range(1 if source == "async items" else len(calls)))


def test_each_worker_is_cancelled_once(run: Run) -> None:
    """C5: a clean-up that the end of the iteration has begun is not cut short by the group's."""
    cleaned: list[int] = []

    async def call(number: int) -> int:
        try:
            await asyncio.sleep(number)
        finally:
            if number:
                await asyncio.sleep(0.002)
                cleaned.append(number)
        return number

    async def main() -> None:
        async with TaskGroup() as tg:
            await anext(tg.map(call, [0, 3600, 3601], limit=3))
            await turns()
            tg.cancel()

    run(main)
    assert sorted(cleaned) == [3600, 3601]


def test_cancelled_before_the_workers_start(run: Run) -> None:
    """C9: a group that is cancelled before the first worker runs leaves no warning behind."""

    async def main() -> None:
        async with TaskGroup() as tg:
            task = tg.create_task(tg.map(fail_at_three, range(9), limit=2).__anext__())
            await asyncio.sleep(0)
            tg.cancel()
        assert task.cancelled()

    run(main)


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_a_call_cancels_the_group(run: Run, limit: int) -> None:
    """C9, C10: a call that cancels the group, an eager one at once, ends it without an error."""

    async def main() -> None:
        async with TaskGroup() as tg:

            async def call(number: int) -> int:
                if number == 2:
                    tg.cancel()
                return number

            async for _ in tg.map(call, range(9), limit=limit):
                pass

    run(main)


def test_outer_cancellation(run: Run) -> None:
    """C10: a timeout around the group cancels consumer and workers, and is a TimeoutError."""

    def numbers() -> Iterator[float]:
        yield 0
        while True:
            yield 3600

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.002), TaskGroup() as tg:
                async for _ in tg.map(asyncio.sleep, numbers(), limit=3):
                    pass
        assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]

    run(main)


def test_call_that_sees_the_end_of_a_child(run: Run) -> None:
    """C9: A call that is cancelled by what it waits for, before its group has cancelled it, is no
    failure of the map."""

    async def cleans_up() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0.001)

    async def main() -> None:
        async with TaskGroup() as tg:
            child = tg.create_task(cleans_up())
            behind = tg.create_task(group_of_asyncio(child))
            other = tg.create_task(forever())
            tg.create_task(cancel_soon(tg))

            async def call(_: int) -> None:
                await asyncio.gather(behind, other)

            async for _ in tg.map(call, [1], limit=1):
                raise AssertionError

    run(main)
