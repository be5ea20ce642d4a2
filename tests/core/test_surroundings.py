"""Groups in groups, timeouts around and inside, generators around."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from quattro_core import TaskGroup
from tests.core.conftest import Run
from tests.core.test_background import forever
from tests.core.test_cancel import assert_clean
from tests.core.test_errors import fail, fail_when_cancelled


@pytest.mark.parametrize("exiting", [False, True])
def test_timeout_around(run: Run, exiting: bool) -> None:
    """C10: asyncio.timeout around a group cancels it and raises TimeoutError."""

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001), TaskGroup() as tg:
                child = tg.create_task(forever())
                pump = tg.create_background_task(forever())
                if not exiting:
                    await forever()
        assert child.cancelled() and pump.cancelled()
        await assert_clean()

    run(main)


def test_timeout_around_meets_an_error(run: Run) -> None:
    """C10: an error in the clean-up that a timeout caused comes out; nothing is left to deliver."""

    async def main() -> None:
        with pytest.raises(ExceptionGroup):
            async with asyncio.timeout(0.001), TaskGroup() as tg:
                tg.create_task(fail_when_cancelled(ValueError()))
                await forever()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    run(main)


def test_timeout_inside(run: Run) -> None:
    """C10: asyncio.timeout in the body, or in a child, is no concern of the group."""

    async def child() -> str:
        try:
            async with asyncio.timeout(0.001):
                await forever()
        except TimeoutError:
            pass
        return "child"

    async def main() -> None:
        async with TaskGroup() as tg:
            task = tg.create_task(child())
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.002):
                    await forever()
            pump = tg.create_background_task(forever())
            await asyncio.sleep(0.001)
            assert not pump.done()
        assert task.result() == "child"
        await assert_clean()

    run(main)


def test_timeout_inside_meets_an_error(run: Run) -> None:
    """C10: a child that fails inside of a timeout of the body is not taken for the timeout."""

    async def main() -> None:
        with pytest.raises(ExceptionGroup) as caught:
            async with TaskGroup() as tg:
                tg.create_task(fail(ValueError("child")))
                async with asyncio.timeout(60):
                    await forever()
        assert str(caught.value.exceptions[0]) == "child"
        await assert_clean()

    run(main)


@pytest.mark.parametrize("inner_kind", [TaskGroup, asyncio.TaskGroup])
@pytest.mark.parametrize("outer_kind", [TaskGroup, asyncio.TaskGroup])
def test_nested_groups(
    run: Run, outer_kind: type[asyncio.TaskGroup], inner_kind: type[asyncio.TaskGroup]
) -> None:
    """C10: a failure in the outer group cancels the inner one, and leaves as one error."""
    log = []

    async def child() -> None:
        try:
            await forever()
        finally:
            log.append("inner child cancelled")

    async def main() -> None:
        with pytest.raises(ExceptionGroup) as caught:
            async with outer_kind() as outer, inner_kind() as inner:
                inner.create_task(child())
                await asyncio.sleep(0)
                outer.create_task(fail(ValueError("outer")))
                await forever()
        assert [str(error) for error in caught.value.exceptions] == ["outer"]
        await assert_clean()

    run(main)
    assert log == ["inner child cancelled"]


@pytest.mark.parametrize("steps", range(6))
def test_both_of_two_nested_groups_fail(run: Run, steps: int) -> None:
    """C10: when both groups fail, both errors come out, in an order that nesting gives them."""

    async def main() -> None:
        with pytest.raises(ExceptionGroup) as caught:
            async with TaskGroup() as outer:
                async with TaskGroup() as inner:
                    inner.create_task(fail(ValueError("inner"), 0))
                    outer.create_background_task(late())
                    await forever()
        text = [str(error) for error in caught.value.exceptions]
        assert text[-1].startswith("unhandled errors in a TaskGroup")
        assert text[:-1] in ([], ["outer"])
        await assert_clean()

    async def late() -> None:
        for _ in range(steps):
            await asyncio.sleep(0)
        raise ValueError("outer")

    run(main)


def test_cancel_of_the_outer_group(run: Run) -> None:
    """C9: cancelling the outer group ends the inner one; cancelling the inner one ends it alone."""
    log = []

    async def main() -> None:
        async with TaskGroup() as outer:
            async with TaskGroup() as inner:
                inner.create_task(forever())
                inner.cancel()
                await forever()
            log.append("inner was cancelled")
            async with TaskGroup() as inner:
                inner.create_task(forever())
                outer.cancel()
                await forever()
            raise AssertionError
        await assert_clean()

    run(main)
    assert log == ["inner was cancelled"]


def test_closed_generator(run: Run) -> None:
    """C10: an async generator with a group in it can be closed: GeneratorExit leaves as itself."""

    async def numbers() -> AsyncIterator[int]:
        async with TaskGroup():
            yield 1
            yield 2

    async def main() -> None:
        generator = numbers()
        assert await anext(generator) == 1
        await generator.aclose()  # type: ignore[attr-defined]
        await assert_clean()

    run(main)


def test_group_in_the_clean_up_of_a_cancelled_task(run: Run) -> None:
    """C10: a task that is being cancelled may open a group in its clean-up, and wait in it."""
    log = []

    async def body() -> None:
        try:
            await forever()
        finally:
            async with TaskGroup() as tg:
                pump = tg.create_background_task(forever())
                tg.create_task(asyncio.sleep(0.001))
            assert pump.cancelled()
            log.append("clean-up")

    async def main() -> None:
        task = asyncio.create_task(body())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled()

    run(main)
    assert log == ["clean-up"]


def test_entered_twice(run: Run) -> None:
    """C1: a group is entered once."""

    async def main() -> None:
        async with TaskGroup() as tg:
            with pytest.raises(RuntimeError, match="has already been entered"):
                async with tg:
                    raise AssertionError

    run(main)
