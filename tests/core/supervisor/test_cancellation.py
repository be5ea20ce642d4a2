"""The cancellation of a supervised function, whatever it makes of it."""

from __future__ import annotations

import asyncio

import pytest

from quattro_core import Supervisor, SupervisorState
from tests.core.conftest import Run
from tests.core.supervisor.flaky import FIXED, Flaky


@pytest.mark.parametrize("at", ["attempt", "backoff"])
def test_cancellation_ends_it(run: Run, at: str) -> None:
    """A3: A cancellation ends the supervision, while the function runs and between two runs."""
    flaky = Flaky((5, ZeroDivisionError()))

    async def main() -> None:
        supervisor = Supervisor(flaky, on_failure="restart", restart=FIXED)
        task = asyncio.create_task(supervisor.run())
        await asyncio.sleep(5.5 if at == "backoff" else 1)
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await task
        assert supervisor.state is SupervisorState.CANCELLED

    run(main)
    assert flaky.starts == [0]


@pytest.mark.parametrize("answer", ["return", "raise"])
def test_function_that_answers_its_cancellation(run: Run, answer: str) -> None:
    """A3: A function that returns or fails when it is cancelled is never started again: its error
    comes out, and a cancellation that it swallows does."""
    starts: list[int] = []

    async def stubborn() -> None:
        starts.append(1)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if answer == "raise":
                raise ZeroDivisionError from None

    async def main() -> None:
        supervisor = Supervisor(stubborn, on_failure="restart", on_return="restart")
        task = asyncio.create_task(supervisor.run())
        await asyncio.sleep(1)
        task.cancel()
        expected = ZeroDivisionError if answer == "raise" else asyncio.CancelledError
        with pytest.raises(expected):
            await task

    run(main)
    assert starts == [1]


def test_function_that_ignores_its_cancellation(run: Run) -> None:
    """A3: A function that goes on when it is cancelled is waited for, and not started again."""

    async def deaf() -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            await asyncio.sleep(10)

    async def main() -> None:
        task = asyncio.create_task(Supervisor(deaf, on_return="restart").run())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.get_running_loop().time() == 11

    run(main)


def test_cancel_counts_are_left_alone(run: Run) -> None:
    """A3: A timeout inside of the function, or around the supervisor, is none of its business."""

    async def times_out() -> None:
        async with asyncio.timeout(1):
            await asyncio.Event().wait()

    async def main() -> None:
        supervisor = Supervisor(times_out, on_failure="restart", restart=FIXED)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10):
                await supervisor.run()
        assert supervisor.restarts == 2
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    run(main)
