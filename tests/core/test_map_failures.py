"""`TaskGroup.map`: what an error of a call or of the iterable does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from quattro_core import TaskGroup
from tests.core.conftest import Run
from tests.core.items import ORDERS
from tests.core.test_background import forever
from tests.core.test_errors import errors_of


async def fail_at_three(number: int) -> int:
    """Fail for the number three, after a while."""
    await asyncio.sleep(0.001)
    if number == 3:
        raise ValueError("three")
    return number


async def fail_at_once(number: int) -> int:
    """Fail for the number three, before anything is awaited."""
    if number == 3:
        raise ValueError("three")
    return number


CALLS = pytest.mark.parametrize("call", [fail_at_three, fail_at_once])


@ORDERS
@CALLS
@pytest.mark.parametrize("limit", [1, 4, 50])
def test_a_call_fails(
    run: Run, call: Callable[[int], Coroutine[Any, Any, int]], limit: int, ordered: bool
) -> None:
    """C5: an error of a call aborts the group and is in the ExceptionGroup, once."""

    async def main() -> None:
        async with TaskGroup() as tg:
            async for _ in tg.map(call, range(20), limit=limit, ordered=ordered):
                pass

    assert errors_of(run, main) == ["three"]


class Failing:
    """Yields two numbers, then fails, and would go on if it were asked again."""

    def __init__(self) -> None:
        self.asked = 0

    def ask(self) -> bool:
        """Tell whether there is a number, and not an error."""
        self.asked += 1
        return self.asked != 3


class FailingIterator(Failing):
    """The iterator."""

    def __iter__(self) -> FailingIterator:
        return self

    def __next__(self) -> int:
        if not self.ask():
            raise ValueError("iterable")
        return 0


class FailingAsyncIterator(Failing):
    """The asynchronous iterator."""

    def __aiter__(self) -> FailingAsyncIterator:
        return self

    async def __anext__(self) -> int:
        has_one = self.ask()
        await asyncio.sleep(0.001)
        if not has_one:
            raise ValueError("iterable")
        return 0


@ORDERS
@pytest.mark.parametrize("limit", [1, 2, 50])
@pytest.mark.parametrize("source", [FailingIterator, FailingAsyncIterator])
def test_the_iterable_fails(
    run: Run, source: type[FailingIterator | FailingAsyncIterator], limit: int, ordered: bool
) -> None:
    """C5: an error of the iterable is one of a child, too, and it is not asked for more."""
    items = source()

    async def call(item: int) -> int:
        await asyncio.sleep(0)
        return item

    async def main() -> None:
        async with TaskGroup() as tg:
            async for _ in tg.map(call, items, limit=limit, ordered=ordered):
                pass

    assert errors_of(run, main) == ["iterable"]
    assert items.asked == 3


@pytest.mark.parametrize("error", [StopAsyncIteration, StopIteration, asyncio.CancelledError])
@pytest.mark.parametrize("is_early", [False, True])
def test_nothing_ends_the_map_in_silence(
    run: Run, error: type[BaseException], is_early: bool
) -> None:
    """C5: a call that raises what ends an iteration, or a task, has failed like any other."""

    def call(number: int) -> Coroutine[Any, Any, int]:
        async def inner() -> int:
            if number == 3:
                raise error("odd")
            return number

        if is_early and number == 3:
            raise error("odd")
        return inner()

    async def main() -> None:
        async with TaskGroup() as tg:
            async for _ in tg.map(call, range(9), limit=2):
                pass

    [told] = errors_of(run, main)
    assert {
        StopAsyncIteration: "odd",
        StopIteration: "coroutine raised StopIteration",
        asyncio.CancelledError: f"the map of {call!r} was cancelled by something that it awaited",
    }[error] == told


def test_an_awaited_task_was_cancelled(run: Run) -> None:
    """C5: a call that awaits a task which somebody cancels has failed, and the error says so."""

    async def call(task: asyncio.Task[None]) -> None:
        await task

    async def main() -> None:
        async with TaskGroup() as tg:
            task = asyncio.create_task(forever())
            task.cancel()
            await anext(tg.map(call, [task], limit=1))

    [told] = errors_of(run, main)
    assert "was cancelled by something that it awaited" in told


def test_error_in_a_clean_up(run: Run) -> None:
    """C5: an error that a call raises while it is being cancelled is not lost."""

    async def call(number: int) -> int:
        try:
            await asyncio.sleep(number)
        except asyncio.CancelledError:
            raise ValueError("clean-up") from None
        return number

    async def main() -> None:
        async with TaskGroup() as tg:
            await anext(tg.map(call, [0, 3600], limit=2))

    assert errors_of(run, main) == ["clean-up"]
