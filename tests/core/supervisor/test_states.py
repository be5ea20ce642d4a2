"""What a supervisor says of its function, and that it runs once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from quattro_core import Supervisor, SupervisorState, TaskGroup, TaskStatus
from tests.core.conftest import Run
from tests.core.supervisor.flaky import FIXED, Flaky


def test_it_runs_once(run: Run) -> None:
    """A3: A supervisor that runs, or has run, is not run again: that is a clear error."""

    async def main() -> None:
        supervisor = Supervisor(Flaky((1, None)), name="flaky", on_return="ok")
        task = asyncio.create_task(supervisor.run())
        await asyncio.sleep(0)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="flaky was run before: a Supervisor runs once"):
                await supervisor.run()
            await task

    run(main)


def test_two_at_once(run: Run) -> None:
    """A3: What one supervised function does is nothing to another one's supervisor."""
    one = Flaky(*[(1, ZeroDivisionError()) for _ in range(3)])
    two = Flaky((2, LookupError()))

    async def main() -> None:
        supervisors = [Supervisor(each, on_failure="restart", restart=FIXED) for each in (one, two)]
        async with TaskGroup() as group:
            for supervisor in supervisors:
                group.create_background_task(supervisor.run)
            await asyncio.sleep(50)
        assert [supervisor.restarts for supervisor in supervisors] == [3, 1]

    run(main)


def test_states(run: Run) -> None:
    """A3: What a function does can be asked for, with the time since when."""

    async def ready(*, task_status: TaskStatus) -> None:
        await asyncio.sleep(1)
        task_status.started()
        await asyncio.sleep(1)
        raise ZeroDivisionError

    async def main() -> None:
        supervisor = Supervisor(ready, name="ready", on_failure="restart", restart=FIXED)
        assert supervisor.state is SupervisorState.WAITING
        assert abs(datetime.now(UTC) - supervisor.since).total_seconds() < 60
        before = datetime.now(UTC)
        states = []
        async with TaskGroup() as group:
            group.create_background_task(supervisor.run)
            for _ in range(4):
                await asyncio.sleep(0.9)
                states.append(supervisor.state)
                assert before <= supervisor.since <= datetime.now(UTC)
        starting, running, backing_off = (
            SupervisorState.STARTING,
            SupervisorState.RUNNING,
            SupervisorState.BACKING_OFF,
        )
        assert states == [starting, running, backing_off, starting]

    run(main)
