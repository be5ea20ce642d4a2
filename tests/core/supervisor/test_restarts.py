"""Restarts: after which time, how often, and what is kept of them."""

from __future__ import annotations

import gc
import logging
import pickle
import weakref

import pytest

from quattro_core import RestartLimitError, RestartPolicy, Supervisor, SupervisorState
from tests.core.conftest import Run
from tests.core.supervisor.flaky import FIXED, Flaky, live


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
    assert caplog.records[1].getMessage() == ("flaky failed, and restarts in 2.00 s (restart 2)")
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
        "flaky has returned, and restarts in 1.00 s (restart 1)"
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
    """A3: What is older than the window of the policy does not count; what is as old does."""
    flaky = Flaky(*[(20, ZeroDivisionError()) for _ in range(10)])
    policy = RestartPolicy(base=0, ceiling=0, max_restarts=2, within=40)

    async def main() -> None:
        supervisor = Supervisor(flaky, on_failure="restart", restart=policy)
        with pytest.raises(RestartLimitError):
            await supervisor.run()
        assert supervisor.restarts == 2

    run(main)
    slow = Flaky(*[(21, ZeroDivisionError()) for _ in range(10)])

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


class WeakError(Exception):
    """An error that can be referred to weakly, as built-in ones can't."""


def test_logger_of_ones_own(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """A3: Restarts are logged where it was said."""

    async def main() -> None:
        flaky, logger = Flaky((0, LookupError())), logging.getLogger("own")
        await live(Supervisor(flaky, on_failure="restart", restart=FIXED, logger=logger), 50)

    run(main)
    assert [record.name for record in caplog.records] == ["own"]


@pytest.mark.parametrize("limit", [None, 1000])
def test_errors_are_not_kept(run: Run, limit: int | None) -> None:
    """A3: Without a limit, and when the function has ended, nothing is kept of a failure but the
    last error; nor is the garbage collector needed for that."""
    seen: list[weakref.ref[BaseException]] = []

    def seen_error() -> WeakError:
        error = WeakError()
        seen.append(weakref.ref(error))
        return error

    async def fails() -> None:
        raise seen_error()  # its frame would keep it

    async def main() -> None:
        gc.disable()
        try:
            await live(supervisor, 100)
            assert len(seen) == 100
            assert len([ref for ref in seen if ref() is not None]) <= 1
        finally:
            gc.enable()

    policy = RestartPolicy(base=1, ceiling=1, max_restarts=limit)
    supervisor = Supervisor(fails, on_failure="restart", restart=policy)
    logging.disable(logging.CRITICAL)  # pytest keeps what is logged
    try:
        run(main)
    finally:
        logging.disable(logging.NOTSET)
