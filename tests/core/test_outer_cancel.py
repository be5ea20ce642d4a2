"""Cancellation from outside at every await, and the cancel counts that are left."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from quattro_core import TaskGroup
from tests.core.conftest import Run, turns
from tests.core.test_background import forever
from tests.core.test_cancel import assert_clean
from tests.core.test_errors import fail, fail_when_cancelled

LIMITS = pytest.mark.parametrize("limit", [None, 1])


async def cancelled_after(
    steps: int, body: Callable[[], Coroutine[Any, Any, None]]
) -> asyncio.Task[None]:
    """Run the body as a task and cancel it once, some turns of the event loop later."""
    task = asyncio.create_task(body())
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel("from outside")
    await asyncio.wait((task,))
    return task


@LIMITS
@pytest.mark.parametrize("steps", range(1, 9))
def test_at_every_await(run: Run, steps: int, limit: int | None) -> None:
    """C10: cancelled from outside at any await, the group ends clean and passes it on, once."""
    tasks: list[asyncio.Task[Any]] = []

    async def child() -> None:
        for _ in range(2):
            await asyncio.sleep(0)

    async def body() -> None:
        async with TaskGroup(concurrency_limit=limit) as tg:
            tasks.append(tg.create_background_task(forever()))
            tasks.extend(tg.create_task(child()) for _ in range(2))
            await asyncio.sleep(0)
        await forever()

    async def main() -> None:
        task = await cancelled_after(steps, body)
        assert task.cancelled()
        assert task.cancelling() == 1
        with pytest.raises(asyncio.CancelledError, match="from outside"):
            task.result()

    run(main)
    assert all(task.done() for task in tasks)


def test_child_fails_during_the_exit(run: Run) -> None:
    """C10: a child that fails while the exit waits leaves no cancel count on the parent (trap:
    leaked cancel count)."""

    async def main() -> None:
        with pytest.raises(ExceptionGroup):
            async with TaskGroup() as tg:
                tg.create_task(fail(ValueError()))
                tg.create_background_task(forever())
        await assert_clean()

    run(main)


def test_child_fails_during_the_body(run: Run) -> None:
    """C10: a child that fails while the body waits leaves no cancel count on the parent."""

    async def main() -> None:
        with pytest.raises(ExceptionGroup):
            async with TaskGroup() as tg:
                tg.create_task(fail(ValueError()))
                await forever()
        await assert_clean()

    run(main)


@pytest.mark.parametrize("method", ["create_task", "create_background_task"])
@pytest.mark.parametrize("awaits", [0, 1])
def test_eager_child_fails_at_once(run_eager: Run, method: str, awaits: int) -> None:
    """C10: an eager child that fails in its first step leaves no stale CancelledError."""

    async def failing() -> None:
        raise ValueError

    async def main() -> None:
        log = []
        with pytest.raises(ExceptionGroup):
            async with TaskGroup() as tg:
                getattr(tg, method)(failing())
                log.append("the body goes on to its next await")
                for _ in range(awaits):
                    await asyncio.sleep(0)
        await assert_clean()
        assert log

    run_eager(main)


@pytest.mark.parametrize("exiting", [False, True])
@pytest.mark.parametrize("first", ["error", "cancel"])
def test_outer_cancel_meets_an_error(run: Run, first: str, exiting: bool) -> None:
    """C10: errors are raised, and the cancellation that met them is raised by the next await, with
    its message."""
    log: list[list[str]] = []

    async def body() -> None:
        try:
            async with TaskGroup() as tg:
                tg.create_task(fail_when_cancelled(ValueError("late"), 0.002))
                if first == "error":
                    tg.create_task(fail(ValueError("early"), 0))
                if not exiting:
                    await forever()
        except* ValueError as group:
            log.append([str(error) for error in group.exceptions])
        with pytest.raises(asyncio.CancelledError, match="from outside"):
            await asyncio.sleep(0)
        raise asyncio.CancelledError

    async def main() -> None:
        task = asyncio.create_task(body())
        await asyncio.sleep(0.002)
        task.cancel("from outside")
        await asyncio.wait((task,))
        assert task.cancelled()
        assert task.cancelling() == 1

    run(main)
    assert log == [["early", "late"] if first == "error" else ["late"]]


def test_outer_cancel_while_a_cancelled_child_cleans_up(run: Run) -> None:
    """C10: cancelled again from outside, the group goes on waiting for the clean-up of children."""
    log: list[str] = []

    async def child() -> None:
        try:
            await forever()
        finally:
            await may_end.wait()
            log.append("clean-up")

    async def body() -> None:
        async with TaskGroup() as tg:
            tg.create_task(child())
            await forever()

    may_end = asyncio.Event()

    async def main() -> None:
        task = asyncio.create_task(body())
        for _ in range(3):
            await asyncio.sleep(0.001)
            task.cancel()
        await asyncio.sleep(0.001)
        may_end.set()
        await asyncio.wait((task,))
        assert task.cancelled()
        assert task.cancelling() == 3

    run(main)
    assert log == ["clean-up"]


def test_cancelled_in_the_step_in_which_the_last_child_ends(run: Run) -> None:
    """C10: a cancellation that arrives together with the end of the last child is not lost."""

    async def body(ready: asyncio.Event) -> None:
        async with TaskGroup() as tg:
            tg.create_task(ready.wait())

    async def main() -> None:
        for steps in range(4):
            ready = asyncio.Event()
            task = asyncio.create_task(body(ready))
            await asyncio.sleep(0.001)
            ready.set()
            for _ in range(steps):
                await asyncio.sleep(0)
            ended = task.done()
            task.cancel()
            await asyncio.wait((task,))
            assert task.cancelled() != ended

    run(main)


def test_child_that_was_cancelled_and_is_awaited(run: Run) -> None:
    """C10: the CancelledError of a child that the body awaits leaves the group as itself."""

    async def main() -> None:
        with pytest.raises(asyncio.CancelledError):
            async with TaskGroup() as tg:
                child = tg.create_task(forever())
                child.cancel()
                await child
        await assert_clean()

    run(main)


def test_outer_cancel_meets_an_error_of_a_cancelled_body(run: Run) -> None:
    """C9: the error of a body that has cancelled its group is not lost to an outer cancellation."""
    log: list[list[str]] = []

    async def body() -> None:
        try:
            async with TaskGroup() as tg:
                tg.create_task(fail_when_cancelled(ValueError("child"), 0.001))
                await asyncio.sleep(0)
                tg.cancel()
                raise ValueError("body")
        except* ValueError as group:
            log.append([str(error) for error in group.exceptions])
        await asyncio.sleep(0)

    async def main() -> None:
        for steps in range(1, 5):
            assert (await cancelled_after(steps, body)).cancelled()

    run(main)
    # The first cancellations come before the body cancels its group.
    assert all(errors[0] == "child" for errors in log)
    assert log[-1] == ["child", "body"]


def test_outer_cancel_meets_a_cancelled_body_that_fails(run: Run) -> None:
    """C9: so it is without any child: the exit takes in the group's own cancellation first."""
    log: list[str] = []

    async def body() -> None:
        try:
            async with TaskGroup() as tg:
                tg.cancel()
                raise ValueError("body")
        except* ValueError:
            log.append("error")
        await forever()

    async def main() -> None:
        assert (await cancelled_after(1, body)).cancelled()

    run(main)
    assert log == ["error"]


def test_cancel_count_that_an_inner_group_has_left(run: Run) -> None:
    """C10: What an `asyncio.TaskGroup` of the body leaves counted before Python 3.13
    (cpython 116720) is no cancellation from outside: nothing is raised after the group."""

    async def main() -> None:
        with pytest.raises(ExceptionGroup):
            async with TaskGroup(), asyncio.TaskGroup() as inner:
                inner.create_task(fail(ValueError()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    run(main)


@pytest.mark.parametrize("is_handled", [True, False])
def test_error_that_takes_the_place_of_a_cancellation(run: Run, *, is_handled: bool) -> None:
    """C9: A cancellation from outside is not lost when the body makes an error of it."""
    log: list[str] = []

    async def body() -> None:
        try:
            async with TaskGroup():
                try:
                    await forever()
                except asyncio.CancelledError:
                    if is_handled:
                        raise ValueError from None
                    raise
                finally:
                    if not is_handled:
                        raise ValueError
        except* ValueError:
            log.append("error")
        await forever()

    async def main() -> None:
        assert (await cancelled_after(2, body)).cancelled()

    run(main)
    assert log == ["error"]


def test_cancellation_of_a_group_before(run: Run) -> None:
    """C1, C10: What `asyncio.TaskGroup` leaves behind before 3.13, when a child has failed, is no
    cancellation from outside: a later group does not pass it on."""

    async def main() -> None:
        groups = asyncio.TaskGroup(), TaskGroup(), TaskGroup(concurrency_limit=1)
        for group in groups:
            with pytest.raises(ExceptionGroup):
                async with group:
                    group.create_task(fail(ValueError()))
            await asyncio.sleep(0)

    run(main)


async def cancelled_task() -> None:
    await asyncio.create_task(forever())


async def cancelled_gather() -> None:
    await asyncio.gather(forever(), forever())


@pytest.mark.parametrize("wait", [forever, cancelled_task, cancelled_gather])
def test_parent_that_has_just_been_cancelled(
    run: Run, wait: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    """C10: A cancellation that the parent was asked for before the group was opened, and that it
    meets afterwards, is not lost when it makes an error of it."""
    log: list[str] = []

    async def body(groups: list[TaskGroup]) -> None:
        try:
            try:
                await wait()
            finally:
                raise ValueError
        except ValueError as error:
            with pytest.raises(ExceptionGroup):
                await groups[0].__aexit__(type(error), error, None)
        log.append("error")
        await forever()

    async def main() -> None:
        groups: list[TaskGroup] = []
        task = asyncio.create_task(body(groups))
        await turns()
        task.cancel()
        groups.append(TaskGroup().enter(task))
        await asyncio.wait((task,))
        assert task.cancelled()

    run(main)
    assert log == ["error"]


@pytest.mark.parametrize("wait", [forever, cancelled_task, cancelled_gather])
def test_parent_that_was_cancelled_long_ago(
    run: Run, wait: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    """C10: What `asyncio.TaskGroup` has left counted is no cancellation from outside either of a
    group that another task opens, whatever the parent waits for at that moment."""

    async def body(groups: list[TaskGroup]) -> None:
        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as before:
                before.create_task(fail(ValueError()))
        try:
            await wait()
        except asyncio.CancelledError as error:
            with pytest.raises(ExceptionGroup):
                await groups[0].__aexit__(type(error), error, None)
        await turns()

    async def main() -> None:
        groups: list[TaskGroup] = []
        task = asyncio.create_task(body(groups))
        await asyncio.sleep(0.01)
        groups.append(TaskGroup().enter(task))
        groups[0].create_task(fail(ValueError()))
        await task

    run(main)


def test_body_that_was_cancelled_before_it_began(run: Run) -> None:
    """C10: So it is where the group is opened by a task that is to meet its cancellation yet."""
    log: list[str] = []

    async def body() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        with pytest.raises(ExceptionGroup):
            async with TaskGroup():
                try:
                    await forever()
                finally:
                    raise ValueError
        log.append("error")
        await forever()

    async def main() -> None:
        task = asyncio.create_task(body())
        await asyncio.wait((task,))
        assert task.cancelled()

    run(main)
    assert log == ["error"]


def test_task_that_ends_with_the_group(run: Run) -> None:
    """C10: Where nothing comes after the group that raises errors, the cancellation that met them
    stays counted."""

    async def body() -> None:
        async with TaskGroup() as tg:
            tg.create_task(fail_when_cancelled(ValueError("late")))
            await forever()

    async def main() -> None:
        task = asyncio.create_task(body())
        await turns()
        task.cancel()
        await asyncio.wait((task,))
        await turns()
        assert isinstance(task.exception(), ExceptionGroup)
        assert task.cancelling() == 1

    run(main)


def test_errors_that_are_each_others_context(run: Run) -> None:
    """C10: A group ends, too, where the error of its body is, by some way, its own context."""
    log: list[str] = []

    async def body() -> None:
        error, other = ValueError(), KeyError()
        error.__context__, other.__context__ = other, error
        with pytest.raises(ExceptionGroup):
            async with TaskGroup():
                with contextlib.suppress(asyncio.CancelledError):
                    await forever()
                raise error
        error.__context__ = None
        log.append("error")

    async def main() -> None:
        task = asyncio.create_task(body())
        await turns()
        task.cancel()
        await asyncio.wait((task,))

    run(main)
    assert log == ["error"]


@pytest.mark.skipif(sys.version_info < (3, 13), reason="asyncio leaks cancel counts before 3.13")
@pytest.mark.parametrize("how", ["child", "body"])
def test_cancellation_that_was_swallowed_before(run: Run, how: str) -> None:
    """C1, C10: After a cancellation that somebody has swallowed, and not taken back, a group does
    what `asyncio.TaskGroup` does."""

    async def body(group: asyncio.TaskGroup) -> list[Any]:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await forever()
        found: list[Any] = []
        try:
            async with group:
                if how == "body":
                    raise ValueError
                group.create_task(fail(ValueError()))
                await forever()
        except BaseException as error:
            found.append(type(error))
        found.append(task.cancelling())
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            found.append("next")
        return found

    async def main() -> None:
        groups = asyncio.TaskGroup(), TaskGroup(), TaskGroup(concurrency_limit=1)
        first, *others = [await asyncio.create_task(body(group)) for group in groups]
        assert others == [first, first]

    run(main)
