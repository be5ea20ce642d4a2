"""How a once-pump gets its lock, keeps it and loses it, on a virtual clock."""

import asyncio
import logging

import pytest

from quattro_web import LockLostError
from quattro_web._locks.holder import OnceState
from tests.locks.fakes import Service
from tests.locks.process import Process, play


def test_one_runs_and_the_other_waits() -> None:
    """A7: Of two processes one runs the pump; when it ends the other takes over at its next try."""

    async def scene(service: Service, log: list[str]) -> None:
        one, two = Process(service, "one", log), Process(service, "two", log)
        await asyncio.sleep(10.5)
        assert two.states == [OnceState(is_standby=True, holder="one")]
        assert one.states == [OnceState(is_held=True, holder="one", token=1)]
        await one.stop()
        await asyncio.sleep(10)
        await two.stop()

    assert play(scene) == [
        "0 one begins with 1", "10.5 one ends", "11 two begins with 2", "20.5 two ends"
    ]  # fmt: skip


def test_new_holder_lets_the_lock_settle() -> None:
    """A7: Where a lock can be freed while its holder lives, a new holder waits for that one's end
    before it starts the pump."""

    async def scene(service: Service, log: list[str]) -> None:
        one = Process(service, "one", log, settle=4)
        two = Process(service, "two", log, settle=4)
        await asyncio.sleep(5)
        service.take_away()
        await asyncio.sleep(20)
        await one.stop()
        await two.stop()

    log = play(scene)
    assert log[:3] == ["4 one begins with 1", "6 one ends", "9 two begins with 2"]


def test_lock_that_is_lost_while_it_settles() -> None:
    """A7: A lock that is lost before the pump has begun is tried for again."""

    async def scene(service: Service, log: list[str]) -> None:
        one = Process(service, "one", log, settle=4)
        await asyncio.sleep(1)
        service.take_away()
        await asyncio.sleep(10)
        await one.stop()

    assert play(scene) == ["6 one begins with 2", "11 one ends"]


def test_lost_lock_cancels_the_pump() -> None:
    """A7: When a proof says that the lock is lost the pump is cancelled, and its clean-up awaited,
    before the lock is tried for again: that is no failure."""

    async def scene(service: Service, log: list[str]) -> None:
        one = Process(service, "one", log)
        one.clean_up = 0.5
        await asyncio.sleep(1)
        service.take_away()
        await asyncio.sleep(4)
        assert [type(state.error).__name__ for state in one.states[1:2]] == ["LockLostError"]
        assert one.states[-1] == OnceState(is_held=True, holder="one", token=2)
        await one.stop()

    assert play(scene)[:3] == ["0 one begins with 1", "2.5 one ends", "2.5 one begins with 2"]


def test_loss_that_is_told_in_several_lines(caplog: pytest.LogCaptureFixture) -> None:
    """O3: What the service says of a lost lock is on the line of the log entry."""

    async def lose(what: str) -> None:
        raise LockLostError("the server says:\n\tall is lost\x1b[2J")

    async def scene(service: Service, log: list[str]) -> None:
        one = Process(service, "one", log)
        await asyncio.sleep(1)
        service.answers = lose
        await asyncio.sleep(2)
        service.answers = None
        await one.stop()

    play(scene)
    messages = [record.getMessage() for record in caplog.records]
    assert r"pump pump has lost its lock: the server says:\n\tall is lost\x1b[2J" in messages


def test_last_try_without_time(caplog: pytest.LogCaptureFixture) -> None:
    """A7: Why a lock could not be proven is told by a try that had its time, and not by one that
    came when the last proof was about to be too old."""

    async def scene(service: Service, log: list[str]) -> None:
        one = Process(service, "one", log, valid_for=6.5)
        await asyncio.sleep(3)  # proven at 2, and good until 8.5; tries at 4, 7 and 8.5
        service.answers = service.hang
        await asyncio.sleep(6)
        service.answers = None
        await one.stop()

    play(scene)
    why = "there was no proof for 6.5 s (TimeoutError: there was no answer within 1 s)"
    assert f"pump pump has lost its lock: {why}" in caplog.messages


@pytest.mark.parametrize("answer", ["fail", "hang"])
def test_lock_that_cannot_be_proven(answer: str, caplog: pytest.LogCaptureFixture) -> None:
    """A7: When the service does not answer the pump goes on as long as its last proof is good, and
    is cancelled then: counted from when that proof was asked for."""

    async def scene(service: Service, log: list[str]) -> None:
        one = Process(service, "one", log)
        await asyncio.sleep(3)  # proven at 2
        service.answers = getattr(service, answer)
        await asyncio.sleep(20)
        service.answers = None
        service.take_away()
        await asyncio.sleep(5)
        await one.stop()

    with caplog.at_level(logging.INFO):
        log = play(scene)
    assert log[:2] == ["0 one begins with 1", "8 one ends"]
    assert log[2].endswith("one begins with 2")
    messages = [record.getMessage() for record in caplog.records]
    assert sum("has lost its lock" in message for message in messages) == 1
    assert sum("is unreachable: " in message for message in messages) == 1
    assert sum("is reachable again" in message for message in messages) == 1


def test_short_outage_is_bridged() -> None:
    """A7: A service that answers again in time does not stop the pump."""

    async def scene(service: Service, log: list[str]) -> None:
        one = Process(service, "one", log)
        await asyncio.sleep(3)
        service.answers = service.fail
        await asyncio.sleep(4)
        service.answers = None
        await asyncio.sleep(10)
        await one.stop()

    assert play(scene) == ["0 one begins with 1", "17 one ends"]


def test_service_that_is_down_at_first() -> None:
    """A7: A process that can't reach the service tries for ever, and says so in its state."""

    async def scene(service: Service, log: list[str]) -> None:
        service.answers = service.fail
        one = Process(service, "one", log)
        await asyncio.sleep(3.5)
        assert all(isinstance(state.error, ConnectionRefusedError) for state in one.states)
        assert not one.states[-1].is_standby
        service.answers = None
        await asyncio.sleep(1)
        await one.stop()

    assert play(scene) == ["4 one begins with 1", "4.5 one ends"]


def test_clean_up_that_takes_too_long(caplog: pytest.LogCaptureFixture) -> None:
    """A7: A pump whose clean-up outlasts what the lock allows for is a critical line in the log:
    its token protects what it writes to."""

    async def scene(service: Service, log: list[str]) -> None:
        one = Process(service, "one", log)
        one.clean_up = 3
        await asyncio.sleep(1)
        service.take_away()
        await asyncio.sleep(9)
        await one.stop()

    assert play(scene)[1] == "5 one ends"
    [record] = [each for each in caplog.records if each.levelname == "CRITICAL"]
    assert record.getMessage() == (
        "pump pump is still running 1 s after it lost its lock: another process may be running "
        "it too"
    )


def test_failure_is_the_pumps_own() -> None:
    """A7: An error of the pump comes out as it is, and the lock is given back."""

    async def scene(service: Service, log: list[str]) -> None:
        one = Process(service, "one", log)

        async def work() -> None:
            raise ZeroDivisionError

        one.work = work
        with pytest.raises(ZeroDivisionError):
            await one.task
        assert service.owner is None

    play(scene)


def test_return_ends_it() -> None:
    """A7: A pump that returns gives the lock back, and is not run again."""

    async def scene(service: Service, log: list[str]) -> None:
        one = Process(service, "one", log)
        one.work = lambda: asyncio.sleep(3)
        await one.task
        assert service.owner is None

    assert play(scene) == ["0 one begins with 1", "3 one ends"]


@pytest.mark.parametrize("at", [0.0, 0.5, 2.0, 4.0, 5.0, 6.0])
def test_cancellation_gives_the_lock_back(at: float) -> None:
    """A7: Whenever it is cancelled, it ends, and the lock is free."""

    async def scene(service: Service, log: list[str]) -> None:
        one = Process(service, "one", log, settle=4)
        await asyncio.sleep(at)
        await one.stop()
        assert one.task.cancelled()
        assert service.owner is None

    log = play(scene)
    assert len(log) in (0, 2)


def test_release_that_hangs(caplog: pytest.LogCaptureFixture) -> None:
    """A7: A service that does not answer at the end holds nothing up beyond its time-out."""

    async def scene(service: Service, log: list[str]) -> None:
        one = Process(service, "one", log)
        await asyncio.sleep(1)
        service.answers = service.hang
        await one.stop()
        one.note("has ended")

    assert play(scene)[-1] == "2 one has ended"
    assert "was not released" in caplog.text


def test_error_while_the_lock_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    """A7: A pump that fails while it is cancelled for its lost lock has failed: both are told."""

    async def scene(service: Service, log: list[str]) -> None:
        one = Process(service, "one", log)

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                raise ZeroDivisionError

        one.work = work
        await asyncio.sleep(1)
        service.take_away()
        with pytest.raises(ZeroDivisionError):
            await one.task

    play(scene)
    assert "has lost its lock, and failed" in caplog.text
