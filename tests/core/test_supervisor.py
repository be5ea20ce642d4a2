"""Supervision of what is to run for ever: policies, backoff, cancellation."""

from __future__ import annotations

import asyncio
import gc
import logging
import pickle
import random
import weakref
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from quattro_core import (
    RestartLimitError,
    RestartPolicy,
    Supervisor,
    SupervisorState,
    TaskGroup,
    TaskReturnedError,
    TaskStatus,
)
from tests.core.conftest import LOOPS, Run

FIXED = RestartPolicy(base=1, ceiling=8, reset_after=100, max_restarts=None)


@pytest.fixture(params=sorted(LOOPS.keys() - {"uvloop"}))
def run(request: pytest.FixtureRequest) -> Run:
    """A loop on a virtual clock: policies take minutes."""
    return Run(LOOPS[request.param])


@pytest.fixture(autouse=True)
def longest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every delay be the longest that its policy allows."""
    monkeypatch.setattr(RestartPolicy.delay, "__kwdefaults__", {"uniform": lambda _, high: high})


class Flaky:
    """A function that ends in different ways, one after the other: an error, or None to return.

    Args:
        ends: How it ends, each after how many seconds; then it runs for ever.
    """

    def __init__(self, *ends: tuple[float, BaseException | None]) -> None:
        self._ends = iter(ends)
        self.starts: list[float] = []

    async def __call__(self) -> None:
        self.starts.append(asyncio.get_running_loop().time())
        seconds, error = next(self._ends, (1e9, None))
        await asyncio.sleep(seconds)
        if error is not None:
            raise error


async def live(supervisor: Supervisor, seconds: float) -> None:
    """Run a supervisor for some seconds, then cancel it."""
    async with TaskGroup() as group:
        group.create_background_task(supervisor.run)
        await asyncio.sleep(seconds)


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
        with pytest.raises(TaskReturnedError, match="flaky has returned, but is to run for ever"):
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
    assert record.getMessage() == "flaky failed, and is let go"
    assert record.exc_info is not None


def test_restarts_back_off(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """A3: With on_failure="restart" the function is started again, after twice as long each time,
    up to the ceiling, and each restart is logged."""
    flaky = Flaky(*[(0, ZeroDivisionError()) for _ in range(6)])

    async def main() -> None:
        supervisor = Supervisor(flaky, name="flaky", on_failure="restart", restart=FIXED)
        await live(supervisor, 50)
        assert supervisor.restarts == 6
        assert supervisor.state is SupervisorState.CANCELLED

    run(main)
    assert flaky.starts == [0, 1, 3, 7, 15, 23, 31]
    assert caplog.records[1].getMessage() == (
        "flaky failed, and is started again in 2.00 s (restart 2)"
    )
    assert all(record.exc_info for record in caplog.records)


def test_backoff_is_reset(run: Run) -> None:
    """A3: A function that has run for long enough begins with the first delay again."""
    policy = RestartPolicy(base=1, ceiling=8, reset_after=10, max_restarts=None)
    error = ZeroDivisionError()
    flaky = Flaky((0, error), (0, error), (9.9, error), (10, error), (0, error))

    async def main() -> None:
        await live(Supervisor(flaky, on_failure="restart", restart=policy), 60)

    run(main)
    waits = [round(b - a, 1) for a, b in zip(flaky.starts, flaky.starts[1:], strict=False)]
    assert waits == [1, 2, 9.9 + 4, 10 + 1, 2]


def test_returns_are_restarted(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """A3: With on_return="restart" a function that returns is started again."""
    flaky = Flaky((1, None), (1, None))

    async def main() -> None:
        await live(Supervisor(flaky, name="flaky", on_return="restart", restart=FIXED), 50)

    run(main)
    assert flaky.starts == [0, 2, 5]
    assert caplog.records[0].getMessage() == (
        "flaky has returned, and is started again in 1.00 s (restart 1)"
    )


def test_too_many_restarts(run: Run) -> None:
    """A3: One restart more than the policy allows is an error that has all of them, in order."""
    errors = [ZeroDivisionError(number) for number in range(3)]
    flaky = Flaky(*[(0, error) for error in errors])
    policy = RestartPolicy(base=1, ceiling=1, max_restarts=2, within=60)

    async def main() -> None:
        supervisor = Supervisor(flaky, name="flaky", on_failure="restart", restart=policy)
        with pytest.raises(
            RestartLimitError, match="flaky has ended 3 times within 60 s"
        ) as caught:
            await supervisor.run()
        assert list(caught.value.errors) == errors

    run(main)


def test_limit_counts_a_window(run: Run) -> None:
    """A3: What is older than the window of the policy does not count."""
    flaky = Flaky(*[(20, ZeroDivisionError()) for _ in range(10)])
    policy = RestartPolicy(base=0, ceiling=0, max_restarts=2, within=50)

    async def main() -> None:
        supervisor = Supervisor(flaky, on_failure="restart", restart=policy)
        with pytest.raises(RestartLimitError):
            await supervisor.run()
        assert supervisor.restarts == 2

    run(main)
    slow = Flaky(*[(26, ZeroDivisionError()) for _ in range(10)])

    async def main_slow() -> None:
        supervisor = Supervisor(slow, on_failure="restart", restart=policy)
        await live(supervisor, 1000)
        assert supervisor.restarts == 10

    run(main_slow)


def test_no_restart_at_all(run: Run) -> None:
    """A3: A limit of 0 means that the first failure is the last."""
    policy = RestartPolicy(max_restarts=0)

    async def main() -> None:
        with pytest.raises(RestartLimitError):
            await Supervisor(Flaky((0, LookupError())), on_failure="restart", restart=policy).run()

    run(main)


def test_limit_error_can_be_caught() -> None:
    """A3: That error can be caught out of a task group, and shows every failure."""
    errors = [LookupError(), ValueError()]
    try:
        raise ExceptionGroup("of a task group", [RestartLimitError("too often", errors)])
    except* RestartLimitError as group:
        [caught] = group.exceptions
        assert isinstance(caught.__cause__, ExceptionGroup)
        assert list(caught.__cause__.exceptions) == errors
        assert str(caught) == "too often"
        assert str(pickle.loads(pickle.dumps(caught))) == "too often"


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


def test_ctrl_c_passes() -> None:
    """A3: A KeyboardInterrupt is none of the function's: it ends the event loop, as ever."""

    async def main() -> None:
        await Supervisor(Flaky((0, KeyboardInterrupt())), on_failure="restart").run()

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())


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
        states = []
        async with TaskGroup() as group:
            group.create_background_task(supervisor.run)
            for _ in range(4):
                await asyncio.sleep(0.9)
                states.append(supervisor.state)
        starting, running, backing_off = (
            SupervisorState.STARTING,
            SupervisorState.RUNNING,
            SupervisorState.BACKING_OFF,
        )
        assert states == [starting, running, backing_off, starting]

    run(main)


# Readiness


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


def test_started_twice(run: Run) -> None:
    """A2: Saying it twice in one run of the function is an error."""

    async def twice(*, task_status: TaskStatus) -> None:
        task_status.started()
        task_status.started()

    async def main() -> None:
        with pytest.raises(RuntimeError, match="was called before: it is for once in each run"):
            await Supervisor(twice).run()

    run(main)


def test_started_in_a_thread(run: Run) -> None:
    """A2: Saying it in a thread is an error that tells what to call instead."""

    async def threaded(*, task_status: TaskStatus) -> None:
        await asyncio.to_thread(task_status.started)

    async def main() -> None:
        with pytest.raises(RuntimeError, match=r"loop\.call_soon_threadsafe"):
            await Supervisor(threaded).run()

    run(main)


# Arguments


@pytest.mark.parametrize("name", ["on_failure", "on_return"])
def test_unknown_policy(name: str) -> None:
    """A3: A policy that does not exist is an error that names those that do."""
    with pytest.raises(ValueError, match=f"{name} must be one of 'stop', 'restart', .*got 'never'"):
        Supervisor(Flaky(), **{name: "never"})  # type: ignore[arg-type]


async def needs(one: int, two: int) -> None: ...


async def by_position(task_status: TaskStatus, /) -> None: ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (5, "a Supervisor takes an async function, got 5"),
        (needs, "needs takes one, two: bind them with functools.partial"),
        (partial(needs, 1), "needs takes two: bind"),
        (by_position, "by_position takes task_status by position only"),
    ],
)
def test_what_is_no_function(function: Any, message: str) -> None:
    """A3: What can't be called is an error at once, that names it and the way out."""
    with pytest.raises(TypeError, match=message):
        Supervisor(function)


def test_coroutine_is_no_function() -> None:
    """A3: A coroutine instead of a function is an error; it is closed."""
    with pytest.raises(TypeError, match="leave out the call"):
        Supervisor(needs(1, 2))  # type: ignore[arg-type]


def test_function_that_is_not_async(run: Run) -> None:
    """A3: A function that returns nothing to be awaited has failed, with an error that says so."""

    async def main() -> None:
        with pytest.raises(TypeError, match="is not an async function: it returned None"):
            await Supervisor(lambda: None).run()  # type: ignore[arg-type, return-value]

    run(main)


@pytest.mark.parametrize("function", [partial(Flaky()), Flaky(), Flaky().__call__])
def test_any_callable(run: Run, function: Callable[[], Awaitable[None]]) -> None:
    """A3: Partial functions, objects and methods are functions, too."""

    async def main() -> None:
        supervisor = Supervisor(function)
        await live(supervisor, 1)
        assert supervisor.name

    run(main)


@pytest.mark.parametrize("name", ["base", "ceiling", "reset_after", "within"])
@pytest.mark.parametrize("value", [-1, float("inf"), float("nan")])
def test_bad_seconds(name: str, value: float) -> None:
    """A3: A time that is none is an error that names it."""
    with pytest.raises(ValueError, match=f"{name} must be a number of seconds .*got {value!r}"):
        RestartPolicy(**{name: value})  # type: ignore[arg-type]


def test_no_time_to_count_in() -> None:
    """A3: A window of no time would be no limit: it is an error that says how to have none."""
    with pytest.raises(ValueError, match=r"within must be more than 0.*max_restarts=None"):
        RestartPolicy(max_restarts=2, within=0)


def test_seconds_of_a_wrong_type() -> None:
    """A3: What is no number is an error that names it."""
    for value in (True, "1", None):
        with pytest.raises(TypeError, match="base must be a number of seconds, got"):
            RestartPolicy(base=value)  # type: ignore[arg-type]


def test_bad_limit() -> None:
    """A3: A limit that is none is an error that names it, and so is a base above the ceiling."""
    with pytest.raises(ValueError, match="max_restarts must not be negative, got -1"):
        RestartPolicy(max_restarts=-1)
    with pytest.raises(TypeError, match=r"max_restarts must be an int or None, got 1\.5"):
        RestartPolicy(max_restarts=1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"base must be at most the ceiling of 30\.0 .*got 31"):
        RestartPolicy(base=31)


def test_jitter_is_full() -> None:
    """A3: A delay is anything between nothing and its longest, and never more than the ceiling,
    however often it has failed."""
    policy = RestartPolicy(base=1, ceiling=8)
    uniform = random.Random(1).uniform
    delays = [policy.delay(2, uniform=uniform) for _ in range(1000)]
    assert min(delays) < 0.1
    assert 3.9 < max(delays) <= 4
    assert policy.delay(10**6, uniform=lambda _, high: high) == 8


# Memory


class WeakError(Exception):
    """An error that can be referred to weakly, as built-in ones can't."""


def test_errors_are_not_kept(run: Run) -> None:
    """A3: Without a limit nothing is kept of a failure but the last error."""
    seen: list[weakref.ref[BaseException]] = []

    async def fails() -> None:
        error = WeakError()
        seen.append(weakref.ref(error))
        raise error

    async def main() -> None:
        policy = RestartPolicy(base=1, ceiling=1, max_restarts=None)
        await live(Supervisor(fails, on_failure="restart", restart=policy), 100)

    logging.disable(logging.CRITICAL)  # pytest keeps what is logged
    try:
        run(main)
    finally:
        logging.disable(logging.NOTSET)
    gc.collect()
    assert len(seen) == 100
    assert not [ref for ref in seen if ref() is not None]
