"""Waiting until a supervised function says that it is ready."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from quattro_core import Supervisor, TaskGroup, TaskStatus
from tests.core.conftest import Run
from tests.core.supervisor.flaky import FIXED, Flaky


def test_wait_started(run: Run) -> None:
    """A2: Those who wait go on when the function says that it is ready."""

    async def slow(task_status: TaskStatus) -> None:
        await asyncio.sleep(5)
        task_status.started()
        await asyncio.Event().wait()

    async def main() -> None:
        supervisor = Supervisor(slow)
        async with TaskGroup() as group:
            group.create_background_task(supervisor.run)
            await asyncio.gather(supervisor.wait_started(), supervisor.wait_started(10))
            assert asyncio.get_running_loop().time() == 5
            await supervisor.wait_started()

    run(main)


def test_end_after_the_start(run: Run) -> None:
    """A2: Who waits for one that was ready, and has failed since, is told that it was."""

    async def main() -> None:
        supervisor = Supervisor(Flaky((1, LookupError())))
        with pytest.raises(LookupError):
            await supervisor.run()
        await supervisor.wait_started()

    run(main)


def test_function_that_does_not_tell_is_ready_at_once(run: Run) -> None:
    """A2: A function that takes no task_status is ready when it begins."""

    async def main() -> None:
        supervisor = Supervisor(Flaky())
        async with TaskGroup() as group:
            group.create_background_task(supervisor.run)
            await supervisor.wait_started()
            assert asyncio.get_running_loop().time() == 0

    run(main)


def test_start_that_takes_too_long(run: Run) -> None:
    """A2: One that is not ready in time is an error that names it, and its last error."""

    async def broken(*, task_status: TaskStatus) -> None:
        raise ZeroDivisionError("no feed")

    async def main() -> None:
        supervisor = Supervisor(broken, name="feed", on_failure="restart", restart=FIXED)
        async with TaskGroup() as group:
            group.create_background_task(supervisor.run)
            with pytest.raises(TimeoutError, match=r"feed has not called .* within 5 s; its last"):
                await supervisor.wait_started(5)

    run(main)


def test_end_before_the_start(run: Run) -> None:
    """A2: What ends the function before it is ready comes out where that is waited for."""

    async def broken(*, task_status: TaskStatus) -> None:
        await asyncio.sleep(1)
        raise ZeroDivisionError

    async def main() -> None:
        supervisor = Supervisor(broken)
        task = asyncio.create_task(supervisor.run())
        with pytest.raises(ZeroDivisionError):
            await supervisor.wait_started()
        with pytest.raises(ZeroDivisionError):
            await task

    run(main)


def test_cancellation_before_the_start(run: Run) -> None:
    """A2: One that is cancelled before it is ready is an error where that is waited for, and no
    cancellation of who waits."""

    async def slow(*, task_status: TaskStatus) -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        supervisor = Supervisor(slow, name="slow")
        task = asyncio.create_task(supervisor.run())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(RuntimeError, match="slow was cancelled before it has started"):
            await supervisor.wait_started()

    run(main)


@pytest.mark.parametrize("policies", [{"on_failure": "ignore"}, {"on_return": "ok"}])
def test_allowed_end_before_the_start(run: Run, policies: Any) -> None:
    """A2: Nothing is left to be waited for when the function has ended as it may."""

    async def ends(*, task_status: TaskStatus) -> None:
        if "on_failure" in policies:
            raise ZeroDivisionError

    async def main() -> None:
        supervisor = Supervisor(ends, **policies)
        await supervisor.run()
        await supervisor.wait_started()

    run(main)


def test_started_on_each_turn(run: Run) -> None:
    """A2: A function that says it on each turn of its loop is ready from the first time on, in
    each of its runs."""
    turns: list[bool] = []

    async def pump(*, task_status: TaskStatus) -> None:
        for _ in range(3):
            task_status.started()
            turns.append(True)
            await asyncio.sleep(1)
        raise ZeroDivisionError

    async def main() -> None:
        supervisor = Supervisor(pump, on_failure="restart", restart=FIXED)
        async with TaskGroup() as group:
            task = group.create_background_task(supervisor.run)
            await supervisor.wait_started()
            assert turns == [True]
            await asyncio.sleep(20)
            assert len(turns) > 3
            task.cancel()

    run(main)


def test_started_in_a_thread(run: Run) -> None:
    """A2: Saying it in a thread is an error that tells what to call instead."""

    async def threaded(*, task_status: TaskStatus) -> None:
        await asyncio.to_thread(task_status.started)

    async def main() -> None:
        with pytest.raises(RuntimeError, match=r"loop\.call_soon_threadsafe"):
            await Supervisor(threaded).run()

    run(main)


async def forever() -> None:
    await asyncio.Event().wait()


def test_waiting_for_what_nobody_runs() -> None:
    """A2: Who waits for a function that was never run is told so."""

    async def main() -> None:
        supervisor = Supervisor(forever)
        with pytest.raises(TimeoutError, match=r"has not been run: .* run\(\) within 0\.01 s"):
            await supervisor.wait_started(0.01)

    asyncio.run(main())
