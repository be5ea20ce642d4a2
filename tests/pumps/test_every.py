"""Pumps that are called at a fixed rate: `Pump(function, every=60)`."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from starlette.applications import Starlette

from quattro_web import (
    FileLock,
    Pump,
    RestartPolicy,
    TaskStatus,
    app_health,
    health_routes,
    install,
)
from quattro_web.tasks import app_tasks
from tests.locks.fakes import Service
from tests.support.apps import lifespan_of
from tests.support.asgi import run
from tests.support.clock import VirtualClockLoop
from tests.support.lifespan import Life

Function = Callable[..., Awaitable[Any]]


def times_of(
    pump: Callable[[Callable[[], int]], Pump], seconds: float, app: Starlette | None = None
) -> list[int]:
    """The times, in whole seconds, at which a pump calls what it is made with."""
    times: list[int] = []
    app = app or Starlette(lifespan=lifespan_of([], colour="red"))

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def note() -> int:
            times.append(round(loop.time()))
            return len(times)

        install(app, pumps=[pump(note)])
        async with Life(app):
            await asyncio.sleep(seconds)

    run(main())
    return times


def test_fixed_rate() -> None:
    """A2: A function is called at the start, and then so many seconds after each begin, however
    long it takes; it may take the state, and say that it is ready each time."""

    def pump(note: Callable[[], int]) -> Pump:
        async def work(state: dict[str, str], *, task_status: TaskStatus) -> None:
            assert state["colour"] == "red"
            note()
            await asyncio.sleep(7)
            task_status.started()

        return Pump(work, every=60)

    # The app has started when the first call has said so.
    assert times_of(pump, 190) == [0, 60, 120, 180]


@pytest.mark.parametrize("options", [{"every": 60}, {"cron": "* * * * *"}])
def test_next_run(options: dict[str, Any]) -> None:
    """A3, O1: The health of a scheduled pump, its route and the task tree tell when it is called
    next; of one that is called just now, and of one without a schedule, nothing."""
    app = Starlette(routes=health_routes())

    async def work() -> None:
        await asyncio.sleep(7)

    async def forever() -> None:
        await asyncio.Event().wait()

    install(app, pumps=[Pump(work, name="work", **options), Pump(forever, name="other")])

    async def main() -> None:
        async with Life(app) as life:
            loop = cast("VirtualClockLoop", asyncio.get_running_loop())
            await asyncio.sleep(60.5 - loop.wall_time() % 60 if "cron" in options else 1)
            assert [pump.next_run for pump in app_health(app).pumps] == [None, None]
            began = loop.wall_time() // 1
            await asyncio.sleep(10)
            found, none = [pump.next_run for pump in app_health(app).pumps]
            assert found is not None
            assert none is None
            assert 40 < found.timestamp() - began < 61
            assert app_tasks(app).pumps[0].next_run == found
            told = json.loads((await life.get("/readyz")).body)["pumps"]
            assert told["work"]["next_run"] == found.isoformat()
            assert told["other"]["next_run"] is None

    run(main())


def test_a_rate_without_end() -> None:
    """A3: A pump whose next time is in no calendar is as healthy as others."""
    app = Starlette()
    install(app, pumps=[Pump(asyncio.Event().wait, every=1e15, wait_first=1e15)])

    async def main() -> None:
        async with Life(app):
            assert [pump.next_run for pump in app_health(app).pumps] == [None]

    run(main())


def test_calls_never_overlap() -> None:
    """A2: The times that a call has missed are left out; those that follow are what they were."""

    def pump(note: Callable[[], int]) -> Pump:
        async def work() -> None:
            await asyncio.sleep({1: 130, 2: 60}.get(note(), 0))

        return Pump(work, every=60)

    assert times_of(pump, 310) == [0, 180, 240, 300]


def test_wait_first_and_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A2: The first call may wait; each may be later by a random time, which does not add up."""
    monkeypatch.setattr("random.uniform", lambda least, most: most)

    def pump(note: Callable[[], int]) -> Pump:
        async def work() -> None:
            note()

        return Pump(work, every=60, wait_first=10, jitter=5)

    assert times_of(pump, 200) == [15, 75, 135, 195]


def test_ignored_failure(caplog: pytest.LogCaptureFixture) -> None:
    """A3: A failure that is to be ignored is logged, and the next call comes at its time."""

    def pump(note: Callable[[], int]) -> Pump:
        async def nightly() -> None:
            if note() == 1:
                raise ZeroDivisionError

        return Pump(nightly, every=60, on_failure="ignore")

    with caplog.at_level(logging.ERROR, "quattro_web"):
        assert times_of(pump, 130) == [0, 60, 120]
    [record] = caplog.records
    assert record.getMessage().endswith("nightly failed, and is called again at its next time")
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)
    assert vars(record)["quattro_pump"].endswith("nightly")


def test_restart_after_a_failure() -> None:
    """A3: A failure under `"restart"` is tried again after the backoff, and then it goes on at the
    times that it had."""

    def pump(note: Callable[[], int]) -> Pump:
        async def work() -> None:
            if note() == 2:
                raise ZeroDivisionError

        return Pump(work, every=60, on_failure="restart", restart=RestartPolicy(base=0.001))

    assert times_of(pump, 190) == [0, 60, 60, 120, 180]


def test_stop_at_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    """A3: By default a failure is that of a pump: it is called no more, and the server must
    stop."""

    def pump(note: Callable[[], int]) -> Pump:
        async def work() -> None:
            if note() == 2:
                raise ZeroDivisionError

        return Pump(work, every=60)

    with caplog.at_level(logging.CRITICAL, "quattro_web"):
        assert times_of(pump, 190) == [0, 60]
    assert "the server must stop" in caplog.text


def test_once(tmp_path: Any) -> None:
    """A7: A pump with a lock is called by its holder; its health says that it runs."""
    app = Starlette()
    states: list[str] = []

    def pump(note: Callable[[], int]) -> Pump:
        async def work() -> None:
            note()
            states.append(app_health(app).pumps[0].state)

        return Pump(work, every=60, once=FileLock(tmp_path / "lock"))

    assert len(times_of(pump, 130, app)) >= 2
    assert set(states) == {"running"}


def test_lock_that_comes_back() -> None:
    """A7: A pump whose lock was lost for a moment keeps the times that it had."""
    service = Service()

    def pump(note: Callable[[], int]) -> Pump:
        async def work() -> None:
            if note() == 1:
                asyncio.get_running_loop().call_later(1, service.take_away)

        return Pump(work, every=60, once=service.lock("one"))

    assert times_of(pump, 130) == [0, 60, 120]


async def work() -> None: ...


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"every": 0}, ValueError, "every must be a positive number of seconds or None, got 0"),
        ({"every": "60"}, TypeError, "every must be a number of seconds or None, got '60'"),
        ({"every": 1, "jitter": -1}, ValueError, "jitter must be a positive number of seconds"),
        ({"every": 1, "jitter": True}, TypeError, "jitter must be a number of seconds, got True"),
        ({"every": 1, "wait_first": None}, TypeError, "wait_first must be a number of seconds"),
        ({"jitter": 1}, ValueError, r"jitter=1 needs every=\.\.\., in seconds, or cron="),
        ({"wait_first": 1}, ValueError, r"wait_first=1 needs every=\.\.\., in seconds"),
        ({"every": 60, "on_return": "ok"}, ValueError, "on_return='ok' is not for a pump with ev"),
    ],
)
def test_arguments(options: Any, error: type[Exception], text: str) -> None:
    """A2: What is no time is an error at once, which names the argument and its value."""
    with pytest.raises(error, match=text):
        Pump(work, **options)
