"""`TaskGroup.gather`: what it refuses."""

from __future__ import annotations

import asyncio
import inspect
import threading
from typing import Any

import pytest

from quattro_core import SharedLimit, TaskGroup, TooManyWaitingError
from tests.core.conftest import Run
from tests.core.test_background import forever
from tests.core.test_gather import give
from tests.core.test_gather_failures import slow_to_end


def test_a_group_that_is_not_open(run: Run) -> None:
    """C4: in a group that is not entered, or finished, it raises, and closes the coroutines."""

    async def main() -> None:
        tg = TaskGroup()
        for _ in range(2):
            coros = [forever(), forever()]
            with pytest.raises(RuntimeError, match=r"has not been entered|is finished"):
                await tg.gather(*coros)
            assert {inspect.getcoroutinestate(coro) for coro in coros} == {inspect.CORO_CLOSED}
            if not tg._entered:
                async with tg:
                    pass

    run(main)


def test_something_else(run: Run) -> None:
    """C7: what is neither a coroutine nor a function is a TypeError, and none is started."""

    ended: list[str] = []

    async def main() -> None:
        coros: list[Any] = [slow_to_end(ended, "an eager one"), 3, forever()]
        async with TaskGroup() as tg:
            with pytest.raises(TypeError, match="a coroutine was expected"):
                await tg.gather(*coros)
            assert tg.tasks == ()

    run(main)
    assert ended == []


@pytest.mark.parametrize("kind", [list, tuple, set, lambda coros: (coro for coro in coros)])
def test_no_star(run_plain: Run, kind: Any) -> None:
    """C7: coroutines in a list, or the like, are a TypeError that shows the star, and are closed;
    those of a generator were not made yet."""
    coros = [forever(), forever()]

    async def main() -> None:
        async with TaskGroup() as tg:
            for method in (tg.gather, tg.create_task):
                with pytest.raises(TypeError, match=r"as in gather\(\*coroutines\)"):
                    await method(kind(coros))

    run_plain(main)
    if kind in (list, tuple, set):
        assert {inspect.getcoroutinestate(coro) for coro in coros} == {inspect.CORO_CLOSED}
    for coro in coros:
        coro.close()


def test_tasks_that_are_no_children(run: Run) -> None:
    """C7: a task that is none of the group's, one that the group does not wait for, and that of
    the caller are a TypeError that says what to gather; those before it are cancelled."""
    ended: list[str] = []

    async def main() -> None:
        other = asyncio.create_task(forever())
        async with TaskGroup() as tg:
            helper = tg.create_background_task(forever())

            async def itself() -> None:
                with pytest.raises(TypeError, match="can't gather itself"):
                    await tg.gather(asyncio.current_task())  # type: ignore[arg-type]

            await tg.create_task(itself())
            for task in (other, helper):
                child = tg.create_task(slow_to_end(ended, "a"))
                await asyncio.sleep(0)
                with pytest.raises(TypeError, match="with its coroutine, or with what create_task"):
                    await tg.gather(task, child)
                assert child.cancelled()
            assert not (other.done() or helper.done())
            other.cancel()
            await asyncio.wait([other])

    run(main)
    assert ended == ["a", "a"]


def test_some_are_refused(run: Run) -> None:
    """C6: where a limit refuses one, those before it are cancelled, and have ended."""
    ended: list[str] = []

    async def main() -> None:
        async with TaskGroup(shared_limit=SharedLimit(1, max_waiting=1)) as tg:
            with pytest.raises(TooManyWaitingError):
                await tg.gather(*[slow_to_end(ended, name) for name in "abcd"])
            assert tg.tasks == ()
            assert await tg.gather(give("next")) == ("next",)

    run(main)
    # A plain task that is cancelled before it starts never does.
    assert ended in ([], ["a"])


def test_another_thread(run: Run) -> None:
    """C8: in another thread it raises a RuntimeError, and closes the coroutines."""

    async def main() -> None:
        async with TaskGroup() as tg:
            coros = [forever(), forever()]

            def elsewhere() -> None:
                with pytest.raises(RuntimeError, match="which is not that of its event loop"):
                    asyncio.run(tg.gather(*coros))

            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join()
            assert {inspect.getcoroutinestate(coro) for coro in coros} == {inspect.CORO_CLOSED}

    run(main)
