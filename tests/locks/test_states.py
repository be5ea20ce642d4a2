"""What is known of a lock at each moment, and what the log tells of it, on a virtual clock."""

import asyncio
import logging

import pytest

from quattro_web._locks.holder import OnceState
from tests.locks.fakes import Service
from tests.locks.process import Process, play


def test_nothing_is_known_before_the_first_answer() -> None:
    """A7: A process that was not answered yet does not say that another holds the lock."""

    async def scene(service: Service, log: list[str]) -> None:
        service.answers = service.hang
        one = Process(service, "one", log)
        await asyncio.sleep(0.5)
        assert one.states == []
        await asyncio.sleep(1)
        [state] = one.states
        assert isinstance(state.error, TimeoutError)
        assert not state.is_standby
        await one.stop()

    play(scene)


def test_new_holder_that_waits_says_so() -> None:
    """A7: A process that has the lock, and waits for a former holder's end, neither stands by nor
    runs the pump."""

    async def scene(service: Service, log: list[str]) -> None:
        one = Process(service, "one", log, settle=4)
        await asyncio.sleep(3)
        assert one.states == [OnceState(is_settling=True, holder="one", token=1)]
        await asyncio.sleep(2)
        assert one.states[1:] == [OnceState(is_held=True, holder="one", token=1)]
        await one.stop()

    play(scene)


def test_lock_that_was_given_back_is_not_held() -> None:
    """A7: When the pump has ended, by itself or not, the lock is not said to be held."""

    async def scene(service: Service, log: list[str]) -> None:
        one = Process(service, "one", log)
        one.work = lambda: asyncio.sleep(3)
        await one.task
        assert [state.is_held for state in one.states] == [True, False]
        two = Process(service, "two", log)
        await asyncio.sleep(1)
        await two.stop()
        assert two.states[-1] == OnceState()

    play(scene)


def test_outage_of_a_service_that_another_had_the_lock_of() -> None:
    """A7: A process that stands by does not say so any more when the service can't be reached."""

    async def scene(service: Service, log: list[str]) -> None:
        one, two = Process(service, "one", log), Process(service, "two", log)
        await asyncio.sleep(1.5)
        service.answers = service.fail
        await asyncio.sleep(1)
        assert not two.states[-1].is_standby
        assert isinstance(two.states[-1].error, ConnectionRefusedError)
        service.answers = None
        await asyncio.sleep(1)
        assert two.states[-1] == OnceState(is_standby=True, holder="one")
        await one.stop()
        await two.stop()

    play(scene)


def test_outage_is_told_again_and_again(caplog: pytest.LogCaptureFixture) -> None:
    """A7: A lock that stays out of reach is a warning after 1, 2, 4 and 8 minutes more, then each
    ten minutes; when it is back, and lost again, it begins anew."""
    told: list[tuple[int, str]] = []

    async def scene(service: Service, log: list[str]) -> None:
        loop = asyncio.get_running_loop()
        service.answers = service.fail

        def note(record: logging.LogRecord) -> bool:
            told.append((int(loop.time() / 60), record.getMessage()))
            return True

        caplog.handler.addFilter(note)
        one = Process(service, "one", log, poll=15)  # of an hour, each second takes long
        await asyncio.sleep(36 * 60)
        service.answers = None
        await asyncio.sleep(60)
        service.answers = service.fail
        await asyncio.sleep(90)
        service.answers = None
        await one.stop()

    play(scene)
    outages = [(at, text) for at, text in told if "unreachable" in text]
    assert [at for at, _ in outages] == [0, 1, 3, 7, 15, 25, 35, 37, 38]
    error = "ConnectionRefusedError: acquire"
    assert outages[0][1] == f"the lock of pump pump is unreachable: {error}"
    assert outages[2][1] == f"the lock of pump pump has been unreachable for 3 minutes: {error}"


def test_standby_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """A7: A process that stands by logs once who holds the lock, until it has held it itself."""

    async def scene(service: Service, log: list[str]) -> None:
        one, two = Process(service, "one", log), Process(service, "two", log)
        await asyncio.sleep(5.5)
        await one.stop()
        await asyncio.sleep(5)
        three = Process(service, "three", log)
        service.owner = None
        await asyncio.sleep(10)
        await two.stop()
        await three.stop()

    with caplog.at_level(logging.INFO):
        play(scene)
    told = [record.getMessage() for record in caplog.records if "stands by" in record.getMessage()]
    assert told == [
        "pump pump stands by: its lock is held by one",
        "pump pump stands by: its lock is held by three",
    ]


def test_name_of_a_holder_is_escaped(caplog: pytest.LogCaptureFixture) -> None:
    """O3: Who holds the lock is what others have written: it gets into the log, and into health,
    on one line."""

    async def scene(service: Service, log: list[str]) -> None:
        one = Process(service, "one\n2026-01-31 all is lost\x1b[2J", log)
        await asyncio.sleep(0.1)
        two = Process(service, "two", log)
        await asyncio.sleep(0.1)
        assert two.states[-1].holder == "one\\n2026-01-31 all is lost\\x1b[2J"
        await one.stop()
        await two.stop()

    with caplog.at_level(logging.INFO):
        play(scene)
    assert "its lock is held by one\\n2026-01-31 all is lost\\x1b[2J" in caplog.messages[-1]
    assert not [message for message in caplog.messages if "\n" in message]
