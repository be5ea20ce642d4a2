"""`TaskGroup.map`: what becomes of the work when its consumer leaves early."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from quattro_core import MapResults, TaskGroup
from tests.core.conftest import Run, turns
from tests.core.test_background import forever

WAYS = pytest.mark.parametrize("way", ["break", "error", "return", "close", "with", "del"])


async def call(number: int) -> int:
    """Return even numbers at once, and odd ones never."""
    if number % 2:
        await asyncio.sleep(3600)
    return number


async def leave(way: str, results: MapResults[int]) -> None:
    if way == "with":
        async with results as entered:
            assert entered is results
            await anext(results)
    elif way in {"close", "del"}:
        await anext(results)
        if way == "close":
            await results.aclose()
    else:
        async for number in results:  # pragma: no branch (it is left in the midst of it)
            assert number == 0
            if way == "return":
                return
            if way == "error":
                raise LookupError
            break


@WAYS
@pytest.mark.parametrize("ordered", [False, True])
def test_work_ends(run: Run, way: str, ordered: bool) -> None:
    """Whichever way a consumer leaves, calls are cancelled, and what was not pulled stays there."""
    items = iter(range(100))

    async def main() -> None:
        async with TaskGroup() as tg:
            try:
                await leave(way, tg.map(call, items, limit=3, ordered=ordered))
            except LookupError:
                pass
            pulled = next(items)
            assert pulled <= 8
            await turns()
            assert tg.tasks == ()
            assert next(items) == pulled + 1

    run(main)


def test_close_waits_for_the_clean_up(run: Run) -> None:
    """C2: `aclose`, and so the end of an `async with`, waits until the calls have ended."""
    cleaned: list[int] = []

    async def slow(number: int) -> int:
        try:
            return await call(number)
        finally:
            await asyncio.sleep(0.001 * number)
            cleaned.append(number)

    async def main() -> None:
        async with TaskGroup() as tg:
            async with tg.map(slow, [0, 1, 3], limit=3) as results:
                assert await anext(results) == 0
            assert sorted(cleaned) == [0, 1, 3]  # no order of their ends is promised
            with pytest.raises(StopAsyncIteration):
                await anext(results)

    run(main)


def test_close_that_is_cancelled_waits_for_the_clean_up(run: Run) -> None:
    """C2: Whatever cancels who waits for it meanwhile, each call has ended, uncut, when the end of
    an `async with` has."""
    cleaned: list[int] = []

    async def main() -> None:
        may_end = asyncio.Event()

        async def slow(number: int) -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                await may_end.wait()
                cleaned.append(number)

        async def consume(group: TaskGroup) -> None:
            async with group.map(slow, range(9), limit=2) as results:
                await anext(results)

        async with TaskGroup() as tg:
            consumer = tg.create_task(consume(tg))
            await turns()
            for _ in range(3):
                consumer.cancel()
                await turns()
            has_waited = not consumer.done()
            may_end.set()
            await asyncio.wait([consumer])
            assert has_waited
            assert consumer.cancelled()
            assert sorted(cleaned) == [0, 1]

    run(main)


def test_closed_before_it_began(run: Run) -> None:
    """A map that is closed before the iteration begins does nothing."""
    items = iter(range(3))

    async def main() -> None:
        async with TaskGroup() as tg:
            async with tg.map(call, items, limit=3) as results:
                pass
            with pytest.raises(StopAsyncIteration):
                await anext(results)
            del results
            tg.map(call, items, limit=3)
            assert tg.tasks == ()
        assert list(items) == [0, 1, 2]

    run(main)


def test_closed_while_others_wait(run: Run) -> None:
    """Closing a map ends the iteration of those that wait for it."""

    async def main() -> None:
        async with TaskGroup() as tg:
            results = tg.map(call, [1], limit=1)

            async def consume() -> list[int]:
                return [number async for number in results]

            consumers = [tg.create_task(consume()) for _ in range(2)]
            await turns()
            await results.aclose()
        assert [consumer.result() for consumer in consumers] == [[], []]

    run(main)


def test_closed_while_one_is_being_cancelled(run_plain: Run) -> None:
    """C10: a consumer that is cancelled at the same time as the map is closed is cancelled."""

    async def main() -> None:
        async with TaskGroup() as tg:
            results = tg.map(call, [1], limit=1)
            consumer = tg.create_task(results.__anext__())
            await turns()
            consumer.cancel()
            await results.aclose()
        assert consumer.cancelled()

    run_plain(main)


def test_closed_by_a_call(run: Run) -> None:
    """A call may close the map that it is of: it is cancelled with the others."""
    held: list[MapResults[int]] = []

    async def close(_: int) -> int:
        await held[0].aclose()
        return await asyncio.sleep(0, 0)

    async def main() -> None:
        async with TaskGroup() as tg:
            held.append(tg.map(close, range(9), limit=2))
            assert [number async for number in held[0]] == []

    run(main)


def test_closed_by_the_clean_up_of_a_call(run: Run) -> None:
    """C5: a call that closes its map in its clean-up does not wait for itself."""
    held: list[MapResults[int]] = []

    async def close(number: int) -> int:
        try:
            return await call(number)
        finally:
            await held[0].aclose()

    async def main() -> None:
        async with TaskGroup() as tg:
            held.append(tg.map(close, [1, 3], limit=2))
            tg.create_task(held[0].__anext__())
            await turns()
            tg.cancel()

    run(main)


def test_the_consumer_is_cancelled(run: Run) -> None:
    """C10: the cancellation of a consumer ends its work, and the group goes on."""

    async def main() -> None:
        async with TaskGroup() as tg:

            async def consume() -> None:
                async for _ in tg.map(call, range(9), limit=2):
                    pass

            consumer = tg.create_task(consume())
            await turns()
            assert len(tg.tasks) == 3
            consumer.cancel()
            await asyncio.wait([consumer])
            del consumer
            await turns()
            assert not tg.tasks

    run(main)


def test_the_group_does_not_wait(run: Run) -> None:
    """C3: a map that somebody holds, and nobody iterates over, does not keep the group open."""

    async def main() -> MapResults[int]:
        async with TaskGroup() as tg:
            results = tg.map(call, range(9), limit=2)
            assert await anext(results) == 0
        return results

    results = run(main)
    with pytest.raises(RuntimeError, match="another thread"):
        asyncio.run(results.__anext__())


def test_iterables_are_not_closed(run: Run) -> None:
    """An iterable is left as it is: the caller may go on with it."""

    async def numbers() -> AsyncGenerator[int, None]:
        number = 0
        while True:
            yield number
            number += 2

    async def main() -> int:
        source = numbers()
        async with TaskGroup() as tg:
            async with tg.map(call, source, limit=2) as results:
                await anext(results)
            number = await anext(source)
        await source.aclose()
        return number

    assert run(main) in {2, 4, 6}


def test_closed_by_the_first_step_of_a_call(run: Run) -> None:
    """C2: A call that closes its map before the group knows its task, as an eager one may, is
    cancelled like the others."""

    async def main() -> None:
        async with TaskGroup() as tg:

            async def call(number: int) -> None:
                if number == 0:
                    results._run.stop()
                await forever()

            results = tg.map(call, range(3), limit=3)
            assert [each async for each in results] == []
            await results.aclose()
            assert not tg.tasks

    run(main)
