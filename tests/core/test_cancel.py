"""`TaskGroup.cancel()`, from everywhere and at every time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from quattro_core import TaskGroup
from tests.core.conftest import Run
from tests.core.test_background import forever
from tests.core.test_errors import errors_of, fail_when_cancelled


async def assert_clean() -> None:
    """Check that no cancellation is left in the current task, asked for or not yet delivered."""
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await asyncio.sleep(0)


@pytest.mark.parametrize("who", ["body", "child", "pump", "callback", "task"])
def test_cancel(run: Run, who: str) -> None:
    """C9: cancel stops body and children; the block ends without an error, whoever calls it."""
    log = []

    async def main() -> None:
        async with TaskGroup() as tg:

            async def cancel() -> None:
                await asyncio.sleep(0)
                tg.cancel()
                await asyncio.sleep(0)

            tasks: list[asyncio.Task[Any]] = [
                tg.create_task(forever()),
                tg.create_background_task(forever()),
            ]
            if who == "body":
                tg.cancel()
            elif who == "child":
                tg.create_task(cancel())
            elif who == "pump":
                tg.create_background_task(cancel())
            elif who == "callback":
                asyncio.get_running_loop().call_later(0.001, tg.cancel)
            else:
                outside = asyncio.create_task(cancel())
            try:
                await forever()
            except asyncio.CancelledError:
                log.append("body cancelled")
                raise
        assert all(task.cancelled() for task in tasks)
        await assert_clean()
        if who == "task":
            await outside

    run(main)
    assert log == ["body cancelled"]


@pytest.mark.parametrize("who", ["child", "pump", "callback"])
def test_cancel_during_the_exit(run: Run, who: str) -> None:
    """C9: cancel ends a group whose exit waits for its children."""

    async def main() -> None:
        async with TaskGroup() as tg:

            async def cancel() -> None:
                await asyncio.sleep(0.001)
                tg.cancel()

            child = tg.create_task(forever())
            if who == "child":
                tg.create_task(cancel())
            elif who == "pump":
                tg.create_background_task(cancel())
            else:
                asyncio.get_running_loop().call_later(0.001, tg.cancel)
        assert child.cancelled()
        await assert_clean()

    run(main)


def test_cancel_in_a_body_that_never_awaits(run: Run) -> None:
    """C9: a body that cancels its group and ends without an await leaves no cancellation behind."""

    async def main() -> None:
        async with TaskGroup() as tg:
            child = tg.create_task(forever())
            tg.cancel()
        assert child.cancelled()
        await assert_clean()
        async with TaskGroup() as tg:
            tg.cancel()
        await assert_clean()

    run(main)


def test_cancel_by_an_eager_child(run_eager: Run) -> None:
    """C9: a child that cancels its group in its eager first step is cancelled with the others."""

    async def cancel(tg: TaskGroup) -> None:
        tg.cancel()
        await forever()

    async def main() -> None:
        for method in ("create_task", "create_background_task"):
            for child in (cancel, None):
                async with TaskGroup() as tg:
                    function = (lambda: cancel(tg)) if child is None else None
                    task = getattr(tg, method)(function or cancel(tg))
                assert task.cancelled()
                await assert_clean()

    run_eager(main)


def test_cancel_before_the_entry(run: Run) -> None:
    """C9: a group that was cancelled before its entry is cancelled on entry."""
    log = []

    async def main() -> None:
        group = TaskGroup()
        group.cancel()
        async with group as tg:
            with pytest.raises(RuntimeError, match="is shutting down"):
                tg.create_task(forever)
            log.append("body")
            await forever()
        await assert_clean()

    run(main)
    assert log == ["body"]


def test_cancel_after_the_end(run: Run) -> None:
    """C9: cancel after the end does nothing, and neither does a second call."""

    async def main() -> None:
        async with TaskGroup() as tg:
            tg.create_task(asyncio.sleep(0))
        tg.cancel()
        tg.cancel()
        await assert_clean()

    run(main)


def test_cancel_twice(run: Run) -> None:
    """C9: cancel twice is cancel once: the body's clean-up is not cut short by the second."""
    log = []

    async def main() -> None:
        async with TaskGroup() as tg:
            tg.cancel()
            tg.cancel()
            try:
                await forever()
            finally:
                asyncio.get_running_loop().call_later(0.001, tg.cancel)
                await asyncio.sleep(0.002)
                log.append("clean-up")
        await assert_clean()

    run(main)
    assert log == ["clean-up"]


@pytest.mark.parametrize("where", ["child", "pump", "body"])
def test_cancel_together_with_errors(run: Run, where: str) -> None:
    """C9: an error on the way out of a cancelled group is raised as ever."""

    async def main() -> None:
        try:
            async with TaskGroup() as tg:
                tg.create_task(forever())
                if where == "child":
                    tg.create_task(fail_when_cancelled(ValueError(where)))
                elif where == "pump":
                    tg.create_background_task(fail_when_cancelled(ValueError(where)))
                await asyncio.sleep(0)
                tg.cancel()
                if where == "body":
                    raise ValueError(where)
                await forever()
        finally:
            await assert_clean()

    assert errors_of(run, main) == [where]


@pytest.mark.parametrize("first", ["cancel", "outer"])
def test_cancel_together_with_an_outer_cancellation(run: Run, first: str) -> None:
    """C9: a cancellation from outside is not lost in a group that is cancelled as well."""
    groups = []

    async def body() -> None:
        async with TaskGroup() as tg:
            groups.append(tg)
            tg.create_task(forever())
            await forever()
        raise AssertionError

    async def main() -> None:
        task = asyncio.create_task(body())
        await asyncio.sleep(0)
        for reason in (first, "outer" if first == "cancel" else "cancel"):
            groups[0].cancel() if reason == "cancel" else task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled()
        assert task.cancelling() == 1

    run(main)


def test_cancelled_body_that_goes_on(run: Run) -> None:
    """C9: a body that swallows its cancellation is waited for; the group stays cancelled."""

    async def main() -> None:
        async with TaskGroup() as tg:
            child = tg.create_task(forever())
            tg.cancel()
            with pytest.raises(asyncio.CancelledError):
                await forever()
            await asyncio.sleep(0.001)
        assert child.cancelled()
        await assert_clean()

    run(main)
