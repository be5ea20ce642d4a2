"""Pumps whose last run is remembered where their lock lives: `Pump(..., catch_up=3600)`."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from starlette.applications import Starlette

from quattro_web import FileLock, LockClaim, OnceLock, Pump, RestartPolicy, install
from tests.locks.fakes import Service
from tests.support.asgi import run
from tests.support.clock import VirtualClockLoop
from tests.support.lifespan import Life

MIDNIGHT = datetime(2026, 6, 1, tzinfo=UTC)
# Days pass in these tests, and each proof of a lock takes real time.
SLOW = {"poll": 60.0, "heartbeat": 600.0, "valid_for": 1800.0}


class Processes:
    """Processes that have the same pump: `log` tells when they call it, in hours.

    Args:
        service: Where their lock lives.
        options: Those of the pump.
    """

    def __init__(self, service: Service, **options: Any) -> None:
        self.service = service
        self.options = {"cron": "0 3 * * *", "catch_up": 3600, **options}
        self.log: list[str] = []
        self.work: Callable[[], Awaitable[Any]] = self.done

    async def done(self) -> None:
        """Work that is done at once."""

    def start(self, name: str) -> Life:
        async def work() -> None:
            hours = (clock().wall_time() - MIDNIGHT.timestamp()) / 3600
            self.log.append(f"{name} at {hours:.2f}")
            await self.work()
            self.log.append(f"{name} is done")

        app = Starlette()
        install(app, pumps=[Pump(work, once=self.service.lock(name, **SLOW), **self.options)])
        return Life(app)


def clock() -> VirtualClockLoop:
    return cast("VirtualClockLoop", asyncio.get_running_loop())


async def until(hours: float) -> None:
    await asyncio.sleep(MIDNIGHT.timestamp() + hours * 3600 - clock().wall_time())


def play(scene: Callable[[Processes], Awaitable[None]], **options: Any) -> list[str]:
    """Play a scene that begins at midnight, and return the log."""
    service = Service()
    service.text = datetime.fromtimestamp(MIDNIGHT.timestamp() - 21 * 3600, UTC).isoformat()
    processes = Processes(service, **options)

    async def main() -> None:
        clock().wall = MIDNIGHT.timestamp() - clock().now
        await scene(processes)

    run(main())
    return processes.log


async def cut_short(processes: Processes) -> None:
    """The first process ends in the middle of its call; the second is there already."""
    processes.work = lambda: asyncio.sleep(1800)
    one, two = processes.start("one"), processes.start("two")
    await one.start()
    await asyncio.sleep(3)
    async with two:
        await until(3.25)
        await one.stop()
        await until(28)


def test_call_that_was_cut_short() -> None:
    """A8: A call whose process ends in the middle is done by the one that takes over."""
    assert play(cut_short) == [
        "one at 3.00",
        "two at 3.25",
        "two is done",
        "two at 27.00",
        "two is done",
    ]


@pytest.mark.parametrize("catch_up", [None, 0, 600])
def test_call_that_is_too_late(catch_up: float | None) -> None:
    """A8: It is not done if that would be later than `catch_up` allows, or if nothing is to be
    made up for."""
    assert play(cut_short, catch_up=catch_up) == ["one at 3.00", "two at 27.00", "two is done"]


@pytest.mark.parametrize("schedule", [{}, {"cron": None, "every": 86400, "wait_first": 10800}])
def test_first_call_that_is_cut_short(schedule: dict[str, Any]) -> None:
    """A8: So is the very first one, of which nothing was remembered before."""

    async def scene(processes: Processes) -> None:
        processes.service.text = None
        await cut_short(processes)

    assert play(scene, **schedule)[:2] == ["one at 3.00", "two at 3.25"]


def test_lock_that_is_lost_in_the_middle() -> None:
    """A8: A process whose lock is lost in the middle of a call, and is here again, begins anew."""

    async def scene(processes: Processes) -> None:
        async def lose() -> None:
            processes.work = processes.done
            processes.service.take_away()
            await asyncio.Event().wait()

        processes.work = lose
        async with processes.start("one"):
            await until(3.9)

    log = play(scene)
    assert log[0] == "one at 3.00"
    assert log[1].startswith("one at 3.")
    assert log[2:] == ["one is done"]
    assert play(scene, catch_up=0) == ["one at 3.00"]


def test_call_that_is_done() -> None:
    """A8: A call that has returned is not done again by the process that takes over."""

    async def scene(processes: Processes) -> None:
        async with processes.start("one"):
            await until(3.25)
        async with processes.start("two"):
            await until(3.5)
        assert processes.service.text == "2026-06-01T03:00:00+00:00"

    assert play(scene) == ["one at 3.00", "one is done"]


def test_app_that_was_down() -> None:
    """A8: What has come due while no process ran is made up for once, however many times passed;
    what has come due before `catch_up` allows is not."""

    async def scene(processes: Processes) -> None:
        await until(3.75)
        async with processes.start("one"):
            await until(4.25)

    assert play(scene) == ["one at 3.75", "one is done"]
    for schedule in ({"cron": "*/10 * * * *"}, {"cron": None, "every": 600}):
        log = play(scene, **schedule)
        assert log[::2] == ["one at 3.75", "one at 3.83", "one at 4.00", "one at 4.17"]


def test_long_sleep() -> None:
    """A8: A machine that has slept makes up for what `catch_up` allows, also after more than three
    hours."""

    async def scene(processes: Processes) -> None:
        async with processes.start("one"):
            await until(2.99)
            clock().wall += 6 * 3600
            await asyncio.sleep(120)

    assert play(scene, catch_up=8 * 3600) == ["one at 9.00", "one is done"]
    assert play(scene) == []


def test_call_that_takes_longer() -> None:
    """A8: A time that a call has missed is made up for as well, as it ends."""

    async def scene(processes: Processes) -> None:
        processes.work = lambda: asyncio.sleep(4200)
        async with processes.start("one"):
            await until(3.5)

    assert play(scene, cron="0 1-2 * * *") == [
        "one at 1.00",
        "one is done",
        "one at 2.17",
        "one is done",
    ]


def test_fixed_rate() -> None:
    """A8: A process that takes over keeps the times of `every`."""

    async def scene(processes: Processes) -> None:
        processes.service.text = None
        async with processes.start("one"):
            await until(2.5)
        async with processes.start("two"):
            await until(4.5)
        await until(6.5)
        async with processes.start("three"):
            await until(7.5)

    log = play(scene, cron=None, every=3600, catch_up=0)
    assert log[::2] == [
        "one at 0.00",
        "one at 1.00",
        "one at 2.00",
        "two at 3.00",
        "two at 4.00",
        "three at 7.00",
    ]
    log = play(scene, cron=None, every=3600, catch_up=3600)
    assert log[::2][-2:] == ["three at 6.50", "three at 7.00"]


def test_failed_call() -> None:
    """A8: A call that has failed under `"restart"` is tried again, with the lock or by another
    process, and one under `"ignore"` is done."""

    async def scene(processes: Processes) -> None:
        async def fail() -> None:
            processes.work = processes.done
            raise ZeroDivisionError

        processes.work = fail
        async with processes.start("one"):
            await until(3.25)
        async with processes.start("two"):
            await until(3.5)

    again = ["one at 3.00", "one at 3.00", "one is done"]
    policy = RestartPolicy(base=0.001)
    for catch_up in (0, 3600):
        assert play(scene, on_failure="restart", restart=policy, catch_up=catch_up) == again
    assert play(scene, on_failure="ignore") == ["one at 3.00"]


def test_clock_of_another_host() -> None:
    """A8: What is remembered of a time to come, by a clock that was wrong, does not keep a pump
    from its times; a clock that is a little ahead has them done once."""

    async def scene(processes: Processes) -> None:
        async with processes.start("one"):
            await until(3.5)

    for wrong, log in (("2036-01-01", ["one at 3.00", "one is done"]), ("2026-06-01T03:00", [])):

        async def ahead(processes: Processes, wrong: str = wrong) -> None:
            processes.service.text = datetime.fromisoformat(wrong).replace(tzinfo=UTC).isoformat()
            await until(2.75)
            await scene(processes)

        assert play(ahead) == log


def test_nothing_to_remember_with(caplog: pytest.LogCaptureFixture) -> None:
    """A8: Where the last run can't be read or written, that is an error log, and the pump is
    called at its times."""

    async def scene(processes: Processes) -> None:
        async def answer(what: str) -> None:
            if what in ("recall", "remember"):
                raise ConnectionRefusedError(f"no {what}\nhere")

        processes.service.answers = answer
        async with processes.start("one"):
            await until(27.5)

    with caplog.at_level(logging.ERROR, "quattro_web"):
        log = play(scene)
    assert log == ["one at 3.00", "one is done", "one at 27.00", "one is done"]
    read, *written = [record.getMessage().partition("work ")[2] for record in caplog.records]
    assert read == "last ran: ConnectionRefusedError: no recall\\nhere"
    assert written == 2 * [
        "could not be recorded, and may be repeated: ConnectionRefusedError: no remember\\nhere"
    ]


class Forgetful(OnceLock):
    """A lock of a user's own, which remembers nothing."""

    claim = None  # type: ignore[assignment]  # it is not asked for


async def work() -> None: ...


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"once": Forgetful()}, TypeError, r"Forgetful must set remembers = True, and its claims"),
        ({}, ValueError, r"catch_up=60 needs every=\.\.\. or cron=\.\.\., and once=\.\.\., where"),
        ({"once": FileLock(), "cron": None}, ValueError, "catch_up=60 needs every="),
        ({"once": FileLock(), "catch_up": -1}, ValueError, "catch_up must be a positive number of"),
        ({"once": FileLock(), "catch_up": "1"}, TypeError, "catch_up must be a number of seconds"),
    ],
)
def test_arguments(options: Any, error: type[Exception], text: str) -> None:
    """A8: What can't be made up for is an error at once, which says what is missing."""
    with pytest.raises(error, match=text):
        Pump(work, **{"cron": "0 3 * * *", "catch_up": 60, **options})


def test_lock_that_says_it_remembers() -> None:
    """A8: A lock that says so has to have the two methods."""

    class Claim(LockClaim):
        acquire = prove = release = None  # type: ignore[assignment]

    async def main() -> None:
        with pytest.raises(NotImplementedError):
            await Claim().recall()
        with pytest.raises(NotImplementedError):
            await Claim().remember("")

    run(main())
