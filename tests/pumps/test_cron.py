"""Pumps that are called at the times of a cron expression: `Pump(function, cron="0 3 * * *")`."""

import asyncio
import functools
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, cast
from zoneinfo import ZoneInfo

import pytest
from starlette.applications import Starlette

from quattro_web import Pump, RestartPolicy, install
from tests.locks.fakes import Service
from tests.support.asgi import run
from tests.support.clock import VirtualClockLoop
from tests.support.lifespan import Life

BERLIN = ZoneInfo("Europe/Berlin")


def clock() -> VirtualClockLoop:
    return cast("VirtualClockLoop", asyncio.get_running_loop())


def times_of(
    cron: str,
    begin: datetime,
    *,
    hours: float,
    during: Callable[[int], Any] = lambda _: None,
    set_clock: dict[float, float] | None = None,
    **options: Any,
) -> list[str]:
    """The times, in their zone, at which a pump is called.

    Args:
        cron: Its expression.
        begin: When its app starts.
        hours: How long its app lives.
        during: Called with the number of each call; it may return what is awaited in it.
        set_clock: After how many hours the clock is set, and by how many seconds.
        options: Further ones of the pump.
    """
    times: list[str] = []

    async def work() -> None:
        now = datetime.fromtimestamp(clock().wall_time(), begin.tzinfo)
        times.append(now.isoformat(timespec="minutes"))
        if (waits := during(len(times))) is not None:
            await waits

    async def main() -> None:
        clock().wall = begin.timestamp() - clock().now
        app = Starlette()
        install(app, pumps=[Pump(work, cron=cron, timezone=begin.tzinfo, **options)])
        async with Life(app):
            passed = 0.0
            for at, seconds in (set_clock or {}).items():
                await asyncio.sleep((at - passed) * 3600)
                clock().wall += seconds
                passed = at
            await asyncio.sleep((hours - passed) * 3600)

    run(main())
    return times


def test_each_night() -> None:
    """A2: A pump with a cron expression is called at its times, in its time zone, and not at the
    start of the app."""
    begin = datetime(2026, 1, 30, 12, tzinfo=BERLIN)
    assert times_of("0 3 * * *", begin, hours=48) == [
        "2026-01-31T03:00+01:00",
        "2026-02-01T03:00+01:00",
    ]


@pytest.mark.parametrize(
    ("nickname", "expected"),
    [
        ("@hourly", "2026-01-30T13:00"),
        ("@daily", "2026-01-31T00:00"),
        ("@midnight", "2026-01-31T00:00"),
        ("@weekly", "2026-02-01T00:00"),
        ("@monthly", "2026-02-01T00:00"),
        ("@yearly", "2027-01-01T00:00"),
        ("@annually", "2027-01-01T00:00"),
    ],
)
def test_nicknames(nickname: str, expected: str) -> None:
    """A2: The nicknames of crontab stand for the start of an hour, a day, a week, which begins on
    Sunday, a month or a year."""

    async def work() -> None: ...

    times = Pump(work, cron=nickname, timezone="Europe/Berlin")._times
    assert times is not None
    moment = datetime(2026, 1, 30, 12, tzinfo=BERLIN)  # a Friday
    assert times.text(times.after(moment.timestamp())) == f"{expected}:00+01:00"


@pytest.mark.parametrize(
    "zone", ["Asia/Tokyo", ZoneInfo("Asia/Tokyo"), timezone(timedelta(0, 32400))]
)
def test_time_zone(zone: Any) -> None:
    """A2: The time zone may be one, or the name of one; without one it is UTC."""

    async def work() -> None: ...

    moment = datetime(2026, 6, 1, tzinfo=UTC).timestamp()
    there, here = Pump(work, cron="0 3 * * *", timezone=zone), Pump(work, cron="0 3 * * *")
    assert there._times is not None
    assert here._times is not None
    assert there._times.after(moment) == moment + 18 * 3600
    assert here._times.after(moment) == moment + 3 * 3600


def test_time_that_does_not_exist() -> None:
    """A2: A time that the begin of daylight saving leaves out comes as that begins; one that comes
    each hour, or each minute, is left out with it."""
    begin = datetime(2026, 3, 29, 0, 30, tzinfo=BERLIN)
    assert times_of("30 2 * * *", begin, hours=30) == [
        "2026-03-29T03:00+02:00",
        "2026-03-30T02:30+02:00",
    ]
    assert times_of("0 * * * *", begin, hours=3) == [
        "2026-03-29T01:00+01:00",
        "2026-03-29T03:00+02:00",
        "2026-03-29T04:00+02:00",
    ]


def test_time_that_exists_twice() -> None:
    """A2: A time that the end of daylight saving has twice comes once, the first time, also if the
    app starts between the two; one that comes each hour comes in both."""
    begin = datetime(2026, 10, 25, 1, 30, tzinfo=BERLIN)
    assert times_of("30 2 * * *", begin, hours=26) == [
        "2026-10-25T02:30+02:00",
        "2026-10-26T02:30+01:00",
    ]
    assert times_of("0 * * * *", begin, hours=2.5) == [
        "2026-10-25T02:00+02:00",
        "2026-10-25T02:00+01:00",
        "2026-10-25T03:00+01:00",
    ]
    second = datetime(2026, 10, 25, 2, 15, tzinfo=BERLIN, fold=1)
    assert times_of("30 2 * * *", second, hours=25) == ["2026-10-26T02:30+01:00"]


NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


def test_calls_never_overlap() -> None:
    """A2: The times that a call has missed are left out."""
    calls = times_of("0 * * * *", NOON, hours=5, during=lambda _: asyncio.sleep(5400))
    assert calls == ["2026-06-01T13:00+00:00", "2026-06-01T15:00+00:00", "2026-06-01T17:00+00:00"]


def test_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A2: Each call may be later by a random time."""
    monkeypatch.setattr("random.uniform", lambda least, most: most)
    calls = times_of("0 * * * *", NOON, hours=2.5, jitter=300)
    assert calls == ["2026-06-01T13:05+00:00", "2026-06-01T14:05+00:00"]
    calls = times_of("0 13 * * *", NOON, hours=6, jitter=4 * 3600)
    assert calls == ["2026-06-01T17:00+00:00"]


def test_clock_that_is_set_forward(caplog: pytest.LogCaptureFixture) -> None:
    """A2: When the clock goes past a time by less than three hours, or the machine has slept so
    long, the call comes within a minute; by more, it does not, which is a warning."""
    calls = times_of("0 13 * * *", NOON, hours=20, set_clock={0.51: 7200})
    assert calls == ["2026-06-01T14:31+00:00"]
    assert not caplog.records
    calls = times_of("0 13 * * *", NOON, hours=20.5, set_clock={0.51: 5 * 3600})
    assert calls == ["2026-06-02T13:00+00:00"]
    [record] = caplog.records
    assert record.getMessage().endswith(
        "work is not called for 2026-06-01T13:00:00+00:00, which is too long ago now: its next "
        "time is 2026-06-02T13:00:00+00:00"
    )
    assert record.levelno == logging.WARNING


def test_clock_that_is_set_back() -> None:
    """A2: When the clock is set back by less than three hours, no time comes again; by more, it was
    wrong before, and its times are those of the new one."""
    calls = times_of("0 * * * *", NOON, hours=4.5, set_clock={1.01: -3600})
    assert calls == ["2026-06-01T13:00+00:00", "2026-06-01T14:00+00:00", "2026-06-01T15:00+00:00"]
    calls = times_of("0 * * * *", NOON, hours=2.5, set_clock={1.01: -5 * 3600})
    assert calls == ["2026-06-01T13:00+00:00", "2026-06-01T09:00+00:00"]


def fail(number: int) -> None:
    if number == 1:
        raise ZeroDivisionError


def test_failures(caplog: pytest.LogCaptureFixture) -> None:
    """A3: A failure that is ignored is logged, and the next call comes at its time; one under
    `"restart"` is tried again after the backoff; by default the server must stop."""
    one, two = "2026-06-01T13:00+00:00", "2026-06-01T14:00+00:00"
    three = functools.partial(times_of, "0 * * * *", NOON, hours=2.5, during=fail)
    assert three(on_failure="ignore") == [one, two]
    assert "work failed, and is called again at its next time" in caplog.text
    assert three(on_failure="restart", restart=RestartPolicy(base=0.001)) == [one, one, two]
    assert three() == [one]
    assert "the server must stop" in caplog.text


def test_lock_that_comes_back() -> None:
    """A7: A pump whose lock was lost, and is here again after a time that another process has had,
    waits for the next one, also if an earlier call had to be tried again."""
    service = Service()

    async def lose() -> None:
        service.take_away()
        await asyncio.Event().wait()

    calls = times_of(
        "0 * * * *",
        NOON,
        hours=3.5,
        during=lambda number: lose() if number == 3 else fail(number),
        on_failure="restart",
        restart=RestartPolicy(base=0.001),
        once=service.lock("one", poll=60.0, heartbeat=5.0),
    )
    one, two, three = (f"2026-06-01T{hour}:00+00:00" for hour in (13, 14, 15))
    assert calls == [one, one, two, three]


def test_task_status() -> None:
    """A2: A function for which the start-up would wait until its first call is an error at once."""

    async def work(*, task_status: object) -> None: ...

    with pytest.raises(TypeError, match=r"takes task_status, .* but with cron='0 3 .*' its first"):
        Pump(work, cron="0 3 * * *")


def test_without_cronsim(monkeypatch: pytest.MonkeyPatch) -> None:
    """A2: Without the parser, the error says what to install."""
    monkeypatch.setitem(sys.modules, "cronsim", None)

    async def work() -> None: ...

    with pytest.raises(ModuleNotFoundError, match=r'pip install "quattro-web\[cron\]"'):
        Pump(work, cron="0 3 * * *")


NIGHT: dict[str, Any] = {"cron": "0 3 * * *"}


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"cron": 3}, TypeError, "cron must be a str, got 3"),
        ({"cron": "@reboot"}, ValueError, "five fields, .* or be one of @.*, got '@reboot': 1"),
        ({"cron": "0 0 3 * * *"}, ValueError, "cron must have five fields"),
        ({"cron": "0 25 * * *"}, ValueError, "cron must be a .*, got '0 25 .*': Bad hour"),
        ({"cron": "0 0 30 2 *"}, ValueError, "cron must be a .*: Bad day-of-month"),
        ({"cron": "0 0 */31 * MON#5"}, ValueError, "cron must be a .*: there is no such day"),
        ({**NIGHT, "timezone": "Europe/Bonn"}, ValueError, "timezone must be a time zone such as"),
        ({**NIGHT, "timezone": "../x"}, ValueError, "timezone must be a time zone such as"),
        ({**NIGHT, "timezone": 1}, TypeError, "timezone must be a zoneinfo.ZoneInfo, .*, got 1"),
        ({**NIGHT, "every": 60}, ValueError, "every=60 and cron='0 3 .*' are two schedules"),
        ({**NIGHT, "wait_first": 1}, ValueError, r"wait_first=1 needs every="),
        ({**NIGHT, "on_return": "ok"}, ValueError, "on_return='ok' is not for a pump with cron='0"),
        ({"every": 60, "timezone": "UTC"}, ValueError, "timezone='UTC' needs cron="),
    ],
)
def test_arguments(options: Any, error: type[Exception], text: str) -> None:
    """A2: What is no cron expression, or no time zone, is an error at once, which names the
    argument and its value."""

    async def work() -> None: ...

    with pytest.raises(error, match=text):
        Pump(work, **options)
