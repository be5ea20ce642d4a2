"""What the end of a supervised function means."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from quattro_core import Supervisor, SupervisorState, TaskGroup, TaskReturnedError, TaskStatus
from tests.core.conftest import Run
from tests.core.supervisor.flaky import FIXED, Flaky, live


def test_failure_comes_out(run: Run) -> None:
    """A3: By default, the error of the function comes out as it is: its host decides."""
    error = ZeroDivisionError()

    async def main() -> None:
        supervisor = Supervisor(Flaky((1, error)), name="flaky")
        with pytest.raises(ZeroDivisionError) as caught:
            await supervisor.run()
        assert caught.value is error
        assert supervisor.state is SupervisorState.FAILED
        assert supervisor.last_error is error

    run(main)


def test_return_comes_out(run: Run) -> None:
    """A3: By default, a function that returns is an error: it was to run for ever."""

    async def main() -> None:
        supervisor = Supervisor(Flaky((1, None)), name="flaky")
        with pytest.raises(TaskReturnedError, match="flaky has returned, but should run forever"):
            await supervisor.run()

    run(main)


def test_return_that_is_ok(run: Run) -> None:
    """A3: With on_return="ok" a function may be done."""

    async def main() -> None:
        supervisor = Supervisor(Flaky((1, None)), on_return="ok")
        await supervisor.run()
        assert supervisor.state is SupervisorState.RETURNED

    run(main)


def test_failure_that_is_ignored(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """A3: With on_failure="ignore" an error is logged, with its traceback, and nothing follows."""

    async def main() -> None:
        supervisor = Supervisor(Flaky((1, ZeroDivisionError())), name="flaky", on_failure="ignore")
        await supervisor.run()
        assert supervisor.state is SupervisorState.FAILED

    run(main)
    [record] = caplog.records
    assert (record.levelname, record.name) == ("ERROR", "quattro_core")
    assert record.getMessage() == "flaky failed, and is not restarted"
    assert record.exc_info is not None


class NoError(Exception):
    """One that is false, such as a collection of errors that is empty."""

    def __len__(self) -> int:
        return 0


@pytest.mark.parametrize("policy", ["ignore", "restart"])
def test_failure_that_is_false(run: Run, policy: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A3: An error that is false is logged with its traceback as well."""

    async def main() -> None:
        supervisor = Supervisor(Flaky((1, NoError())), on_failure=policy)
        await live(supervisor, 3)

    run(main)
    assert "NoError" in caplog.text


def test_cancelled_by_what_it_awaits(run: Run) -> None:
    """A3: A function that ends since something it awaited was cancelled has failed."""

    async def main() -> None:
        async def awaits() -> None:
            other = asyncio.create_task(asyncio.Event().wait())
            asyncio.get_running_loop().call_later(1, other.cancel)
            await other

        supervisor = Supervisor(awaits, name="awaits")
        with pytest.raises(RuntimeError, match="awaits was cancelled by something it awaited"):
            await supervisor.run()
        assert supervisor.state is SupervisorState.FAILED

    run(main)


class CustomError(BaseException):
    """Not an Exception."""


@pytest.mark.parametrize("error", [CustomError("custom"), SystemExit(3), GeneratorExit()])
def test_error_that_is_no_exception(run: Run, error: BaseException) -> None:
    """A3: What is no Exception would end the event loop: it is a failure like others."""

    async def main() -> None:
        with pytest.raises(RuntimeError, match=f"flaky raised {type(error).__name__}") as caught:
            await Supervisor(Flaky((1, error)), name="flaky").run()
        assert caught.value.__cause__ is error

    run(main)


class ShyError(BaseException):
    """One that fails to show itself."""

    def __repr__(self) -> str:
        raise LookupError


def test_error_that_can_not_be_shown(run: Run) -> None:
    """A3: Its policy holds for an error that fails to show itself, too."""

    async def main() -> None:
        flaky = Flaky((1, ShyError()))
        await live(Supervisor(flaky, on_failure="restart", restart=FIXED), 10)
        assert len(flaky.starts) == 2

        async def never_ready(*, task_status: TaskStatus) -> None:
            raise ShyError

        supervisor = Supervisor(never_ready, on_failure="restart", restart=FIXED)
        async with TaskGroup() as tg:
            tg.create_background_task(supervisor.run)
            with pytest.raises(TimeoutError, match="raised <ShyError>"):
                await supervisor.wait_started(5)

    run(main)


def test_closed_coroutine_is_no_failure() -> None:
    """A3: The GeneratorExit of a coroutine that is closed passes: nothing could be awaited then."""

    async def forever() -> None:
        await asyncio.Event().wait()

    async def main() -> asyncio.Task[None]:
        task = asyncio.create_task(running)
        await asyncio.sleep(0)
        return task

    running = Supervisor(forever, on_failure="restart").run()
    loop = asyncio.new_event_loop()
    try:
        task = loop.run_until_complete(main())
        running.close()  # a RuntimeError if it goes on
        task.cancel()
        with pytest.raises(RuntimeError, match="already awaited"):
            loop.run_until_complete(task)
    finally:
        loop.close()


def test_closed_coroutine_with_a_clean_up(caplog: pytest.LogCaptureFixture) -> None:
    """A3: Nor is it a failure that a coroutine which is closed awaits something in its clean-up."""

    async def untidy() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(1)

    async def main() -> None:
        task = asyncio.create_task(running)
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
            running.close()
        task.cancel()
        await asyncio.wait([task])
        task.exception()

    supervisor = Supervisor(untidy, on_failure="restart")
    running = supervisor.run()
    asyncio.run(main())
    assert supervisor.restarts == 0
    assert caplog.records == []


def test_ctrl_c_passes() -> None:
    """A3: A KeyboardInterrupt is none of the function's: it ends the event loop, as ever."""

    async def main() -> None:
        await Supervisor(Flaky((0, KeyboardInterrupt())), on_failure="restart").run()

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
