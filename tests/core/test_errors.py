"""What an error does, wherever it is raised."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from quattro_core import TaskGroup
from tests.core.conftest import Run
from tests.core.test_background import forever

KINDS = pytest.mark.parametrize("method", ["create_task", "create_background_task"])


async def fail(error: BaseException, delay: float = 0.001) -> None:
    """Raise the error after a while."""
    await asyncio.sleep(delay)
    raise error


async def fail_when_cancelled(error: BaseException, delay: float = 0) -> None:
    """Raise the error in the clean-up."""
    try:
        await forever()
    finally:
        await asyncio.sleep(delay)
        raise error


def errors_of(run: Run, main: Callable[[], Coroutine[Any, Any, object]]) -> list[str]:
    """Run it and return what the group raised, in order, each error by its text."""
    with pytest.raises(BaseExceptionGroup) as caught:
        run(main)
    return [str(error) for error in caught.value.exceptions]


@KINDS
def test_error_aborts_the_group(run: Run, method: str) -> None:
    """C5: an unhandled error of a child cancels body and children, and is in the ExceptionGroup."""
    tasks = []

    async def main() -> None:
        async with TaskGroup() as tg:
            tasks.append(tg.create_task(forever()))
            tasks.append(tg.create_background_task(forever()))
            getattr(tg, method)(fail(ValueError("child")))
            await forever()

    assert errors_of(run, main) == ["child"]
    assert all(task.cancelled() for task in tasks)


@KINDS
def test_error_during_the_exit(run: Run, method: str) -> None:
    """C5: an error of a child while the exit waits aborts the group just the same."""
    tasks = []

    async def main() -> None:
        async with TaskGroup() as tg:
            tasks.append(tg.create_task(forever()))
            tasks.append(tg.create_background_task(forever()))
            getattr(tg, method)(fail(ValueError("child")))

    assert errors_of(run, main) == ["child"]
    assert all(task.cancelled() for task in tasks)


@pytest.mark.parametrize("delay", [0, 0.001])
def test_error_in_the_clean_up_of_a_pump(run: Run, delay: float) -> None:
    """C5: an error that a background task raises while it is cancelled at exit is not lost."""

    async def main() -> None:
        async with TaskGroup() as tg:
            tg.create_background_task(fail_when_cancelled(ValueError("clean-up"), delay))
            await asyncio.sleep(0)

    assert errors_of(run, main) == ["clean-up"]


def test_errors_in_all_clean_ups(run: Run) -> None:
    """C5: of several errors none is lost: the first one, the clean-ups, and the body's."""

    async def main() -> None:
        async with TaskGroup() as tg:
            tg.create_task(fail_when_cancelled(ValueError("child"), 0.002))
            tg.create_background_task(fail_when_cancelled(ValueError("pump"), 0.004))
            tg.create_task(fail(ValueError("first")))
            try:
                await forever()
            finally:
                raise ValueError("body")

    assert errors_of(run, main) == ["first", "child", "pump", "body"]


def test_error_of_the_body(run: Run) -> None:
    """C5: an error of the body cancels the children at once, background tasks as well."""
    tasks = []

    async def main() -> None:
        async with TaskGroup() as tg:
            tasks.append(tg.create_task(forever()))
            tasks.append(tg.create_background_task(forever()))
            raise ValueError("body")

    assert errors_of(run, main) == ["body"]
    assert all(task.cancelled() for task in tasks)


def test_handled_errors(run: Run) -> None:
    """C5: a child that the user cancels, or that handles its error, aborts nothing."""

    async def careful() -> str:
        try:
            await fail(ValueError("handled"))
        except ValueError:
            return "handled"
        raise AssertionError

    async def main() -> None:
        async with TaskGroup() as tg:
            task = tg.create_task(careful())
            tg.create_task(forever()).cancel()
        assert task.result() == "handled"

    run(main)


async def count_cancellations(counts: list[int], clean_up: float) -> None:
    """Count how often a task is cancelled; its clean-up takes a while and is counted too."""
    cancelled = 0
    ends = asyncio.get_running_loop().time() + 10
    while True:
        try:
            await asyncio.sleep(ends - asyncio.get_running_loop().time())
            break
        except asyncio.CancelledError:
            cancelled += 1
            ends = asyncio.get_running_loop().time() + clean_up
    counts.append(cancelled)


@pytest.mark.parametrize("reason", ["child", "pump", "body", "outer", "cancel", "exit"])
def test_each_child_is_cancelled_once(run: Run, reason: str) -> None:
    """C5: each child is cancelled once: the group never cuts its clean-up short."""
    counts: list[int] = []
    pumps: list[int] = []

    async def body() -> None:
        async with TaskGroup() as tg:
            tg.create_background_task(count_cancellations(pumps, 0.004))
            if reason == "exit":
                await asyncio.sleep(0)
                return
            tg.create_task(count_cancellations(counts, 0.004))
            # An error in another clean-up, in the midst of theirs, is a second reason to abort.
            tg.create_background_task(fail_when_cancelled(ValueError("clean-up"), 0.002))
            await asyncio.sleep(0.001)
            if reason in ("child", "pump"):
                create = tg.create_task if reason == "child" else tg.create_background_task
                create(fail(ValueError(reason), 0))
            elif reason == "body":
                raise ValueError(reason)
            elif reason == "cancel":
                tg.cancel()
                tg.cancel()
            await forever()

    async def main() -> None:
        task = asyncio.create_task(body())
        await asyncio.sleep(0.002)
        if reason == "outer":
            task.cancel()
            await asyncio.sleep(0.001)
            task.cancel()
        await asyncio.wait((task,))
        assert not task.cancelled()
        error = task.exception()
        assert (error is None) == (reason == "exit"), error

    run(main)
    assert pumps == [1]
    assert counts == ([] if reason == "exit" else [1])


def test_dismissed_pump_is_not_cancelled_again(run: Run) -> None:
    """C5: a pump that the exit has cancelled is not cancelled again by an error that follows."""
    pumps: list[int] = []

    async def main() -> None:
        async with TaskGroup() as tg:
            tg.create_background_task(count_cancellations(pumps, 0.006))
            tg.create_background_task(fail_when_cancelled(ValueError("clean-up"), 0.002))
            await asyncio.sleep(0)

    assert errors_of(run, main) == ["clean-up"]
    assert pumps == [1]
