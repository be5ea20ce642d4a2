"""`finish`, for code that can't leave its `async with`, or has none of its own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from quattro_core import TaskGroup
from tests.core.conftest import Run
from tests.core.test_background import forever
from tests.core.test_cancel import assert_clean
from tests.core.test_errors import errors_of, fail, fail_when_cancelled


async def end(group: TaskGroup) -> None:
    """Leave a group that `enter` opened."""
    await group.__aexit__(None, None, None)


@pytest.mark.parametrize("limit", [None, 1])
def test_finish_waits_as_the_exit_does(run: Run, limit: int | None) -> None:
    """C3: finish waits for foreground children, then cancels background tasks and awaits them."""
    log = []

    async def pump() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0.001)
            log.append("pump")

    async def child(key: int) -> None:
        await asyncio.sleep(0.001)
        log.append(f"child {key}")

    async def main() -> None:
        async with TaskGroup(concurrency_limit=limit) as tg:
            tg.create_background_task(pump())
            for key in (1, 2):
                tg.create_task(child(key))
            await tg.finish()
            log.append("finished")
            with pytest.raises(RuntimeError, match="is finished"):
                tg.create_task(forever)
            refused = forever()
            with pytest.raises(RuntimeError, match="is finished"):
                tg.create_task(refused)
            refused.close()
            await tg.finish()

    run(main)
    assert log == ["child 1", "child 2", "pump", "finished"]


@pytest.mark.parametrize("immediate", [False, True])
def test_finish_of_a_body_that_is_cancelled(run: Run, immediate: bool) -> None:
    """C3, C10: Where the body is cancelled while it waits in finish, children are cancelled, and
    have cleaned up when finish raises."""
    log = []

    async def child() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0.001)
            log.append("child")

    async def body() -> None:
        async with TaskGroup() as tg:
            tg.create_task(child())
            await asyncio.sleep(0)
            try:
                await tg.finish(immediate=immediate)
            finally:
                log.append("body")

    async def main() -> None:
        task = asyncio.create_task(body())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled()

    run(main)
    assert log == ["child", "body"]


def test_finish_from_several_tasks(run: Run) -> None:
    """C3: several tasks may wait for the end of a group at once; each is told, none disturbs."""

    async def main() -> None:
        group = TaskGroup().enter()
        pump = group.create_background_task(forever())
        child = group.create_task(asyncio.sleep(0.002))
        waiters = [asyncio.create_task(group.finish()) for _ in range(3)]
        await asyncio.wait(waiters)
        assert child.done() and pump.cancelled()
        await asyncio.gather(*waiters)
        await end(group)
        await group.finish()

    run(main)


@pytest.mark.parametrize("exiting", [False, True])
def test_cancelled_waiter(run: Run, exiting: bool) -> None:
    """C10: a waiter that is cancelled cancels the children, awaits them, and passes it on."""
    log = []

    async def child() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0.002)
            log.append("clean-up")

    async def main() -> None:
        async with TaskGroup() as tg:
            tg.create_task(child())
            waiters = [asyncio.create_task(tg.finish()) for _ in range(2)]
            await asyncio.sleep(0.001)
            waiters[0].cancel("why")
            if not exiting:
                await asyncio.wait(waiters)
        assert log == ["clean-up"]
        await asyncio.wait(waiters)
        with pytest.raises(asyncio.CancelledError, match="why"):
            waiters[0].result()
        waiters[1].result()
        await assert_clean()

    run(main)


@pytest.mark.parametrize("fails", [False, True])
def test_finish_tells_of_failures(run: Run, fails: bool) -> None:
    """C3: finish says whether any child has failed."""

    async def main() -> None:
        parent = asyncio.create_task(forever())
        tg = TaskGroup().enter(parent)
        tg.create_task(fail(ValueError()) if fails else asyncio.sleep(0))
        assert await tg.finish() is fails
        assert bool(tg.exceptions) is fails
        parent.cancel()
        await asyncio.wait((parent,))

    run(main)


def test_finish_immediately(run: Run) -> None:
    """C3: finish(immediate=True) cancels the children instead of waiting, but not the body."""

    async def main() -> None:
        async with TaskGroup(concurrency_limit=1) as tg:
            tasks: list[asyncio.Task[Any]] = [tg.create_task(forever()) for _ in range(3)]
            tasks.append(tg.create_background_task(forever()))
            await asyncio.sleep(0)
            await tg.finish(immediate=True)
            assert all(task.cancelled() for task in tasks)
            await assert_clean()
        await assert_clean()

    run(main)


@pytest.mark.parametrize("immediate", [False, True])
def test_errors_are_raised_by_the_exit(run: Run, immediate: bool) -> None:
    """C5: finish raises no error of a child; the exit does."""

    async def main() -> None:
        async with TaskGroup() as tg:
            tg.create_task(fail_when_cancelled(ValueError("clean-up")))
            if not immediate:
                tg.create_task(fail(ValueError("child")))
            await asyncio.sleep(0)
            if immediate:
                await tg.finish(immediate=True)
            else:
                with pytest.raises(asyncio.CancelledError):
                    await tg.finish()
            assert len(tg.exceptions) == 2 - immediate

    assert errors_of(run, main) == (["clean-up"] if immediate else ["child", "clean-up"])


@pytest.mark.parametrize("method", ["create_task", "create_background_task"])
def test_not_from_a_child(run: Run, method: str) -> None:
    """C4: a child that waits for the end of its group is a RuntimeError, not a hang."""

    async def main() -> None:
        async with TaskGroup() as tg:
            tg.create_task(asyncio.sleep(0.001))  # an eager one must not begin to wait for it
            child = getattr(tg, method)(tg.finish)
            with pytest.raises(RuntimeError, match="can't wait for the end of the TaskGroup"):
                await asyncio.shield(child)

    errors = errors_of(run, main)
    assert len(errors) == 1


@pytest.mark.parametrize("method", ["create_task", "create_background_task"])
def test_child_that_is_cancelled_before_it_is_refused(run_plain: Run, method: str) -> None:
    """C10: Such a child that is cancelled at once is no more than that: the others go on."""

    async def main() -> None:
        async with TaskGroup() as tg:
            other = tg.create_task(asyncio.sleep(0.001))
            child = getattr(tg, method)(tg.finish)
            await asyncio.sleep(0)
            child.cancel()
            await other
            assert child.cancelled()
            assert not tg.exceptions

    run_plain(main)
