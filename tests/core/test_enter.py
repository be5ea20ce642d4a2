"""Groups that are opened by `enter`, for code that has no `async with` of its own."""

from __future__ import annotations

import asyncio
import inspect

import pytest

from quattro_core import TaskGroup
from tests.core.conftest import Run
from tests.core.test_background import forever
from tests.core.test_cancel import assert_clean
from tests.core.test_errors import fail
from tests.core.test_finish import end


def test_not_before_the_entry(run_plain: Run) -> None:
    """C4: finish before the entry is an error, not a group that is open and closed at once."""

    async def main() -> None:
        with pytest.raises(RuntimeError, match="has not been entered"):
            await TaskGroup().finish()

    run_plain(main)


def test_enter_for_another_task(run: Run) -> None:
    """C5: a group that was entered for another task cancels that one when a child fails."""

    async def main() -> None:
        groups: asyncio.Queue[TaskGroup] = asyncio.Queue()

        async def handler() -> None:
            group = await groups.get()
            try:
                await forever()
            finally:
                await end(group)

        task = asyncio.create_task(handler())
        group = TaskGroup().enter(task)
        group.create_task(fail(ValueError("child")))
        groups.put_nowait(group)
        await asyncio.wait((task,))
        error = task.exception()
        assert isinstance(error, ExceptionGroup)
        assert str(error.exceptions[0]) == "child"
        await assert_clean()

    run(main)


@pytest.mark.parametrize("method", ["create_task", "create_background_task"])
def test_coroutine_that_is_refused(run_plain: Run, method: str) -> None:
    """C4: A group that was entered for another task closes the coroutines that it refuses."""

    async def main() -> None:
        task = asyncio.create_task(forever())
        group = TaskGroup().enter(task)
        await group.finish()
        coro = forever()
        with pytest.raises(RuntimeError, match="is finished"):
            getattr(group, method)(coro)
        assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED
        task.cancel()
        await asyncio.wait((task,))

    run_plain(main)


def test_enter_without_a_task(run_plain: Run) -> None:
    """C1: without a task there is nothing to cancel, and the entry says so."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        result = loop.create_future()

        def callback() -> None:
            with pytest.raises(RuntimeError, match="cannot determine the parent task"):
                TaskGroup().enter()
            result.set_result(None)

        loop.call_soon(callback)
        await result

    run_plain(main)


@pytest.mark.parametrize("limit", [None, 1])
def test_child_that_fails_after_its_parent(run: Run, limit: int | None) -> None:
    """C5: an error in a group whose parent has gone is logged, and stops the others; no hang."""

    tasks: list[asyncio.Task[None]] = []

    async def main() -> None:
        async def nothing() -> None:
            await asyncio.sleep(0)

        parent = asyncio.create_task(nothing())
        group = TaskGroup(concurrency_limit=limit).enter(parent)
        tasks.append(group.create_task(fail(ValueError("late")), name="who fails"))
        other = group.create_task(forever())
        await parent
        await group.finish()
        assert other.cancelled()

    run(main)
    (report,) = run.reports
    run.reports.clear()
    assert str(report["exception"]) == "late"
    assert "name='who fails'" in report["message"].partition(" has failed after ")[0]
    assert report["task"] is tasks[0]


def test_parent_of_another_event_loop() -> None:
    """C8: A group can't be opened for a task of another event loop, which it could not cancel."""
    other = asyncio.new_event_loop()
    parent = other.create_task(asyncio.sleep(0))

    async def main() -> None:
        with pytest.raises(RuntimeError, match="runs in another event loop"):
            TaskGroup().enter(parent)

    try:
        asyncio.run(main())
        other.run_until_complete(parent)
    finally:
        other.close()
