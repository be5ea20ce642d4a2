"""The virtual clock of the testing kit."""

import asyncio
import threading
import time
from datetime import UTC, datetime

import pytest
from fastapi import FastAPI

from quattro_web.testing import AppClient, DeadlockError, VirtualClockLoop, advance
from quattro_web.testing import _clock as clock
from tests.kit.running import run, visit


def test_advance() -> None:
    """Time passes by as much as is asked for, and all that is due by then has happened."""
    log: list[int] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for second in (1, 2, 3):
            loop.call_later(second, log.append, second)
        await advance(2)
        assert log == [1, 2]
        with pytest.raises(
            ValueError, match="seconds must be a number of seconds that is not negative, got -1"
        ):
            await advance(-1)
        await advance(1)
        assert log == [1, 2, 3]

    run(main)


def test_date() -> None:
    """The clock begins at the date that is given, or at one that is always the same, and goes on as
    the time of the loop does."""
    for begin, shown in ((None, "2000-01-01"), (datetime(2026, 6, 1, tzinfo=UTC), "2026-06-01")):
        loop = VirtualClockLoop(begin=begin)
        loop.run_until_complete(asyncio.sleep(3600))
        now = datetime.fromtimestamp(loop.wall_time(), UTC)
        assert now.isoformat(timespec="seconds") == f"{shown}T01:00:00+00:00"
        loop.close()
    with pytest.raises(ValueError, match=r"begin must have a time zone, .*, got datetime\."):
        VirtualClockLoop(begin=datetime(2026, 6, 1))  # noqa: DTZ001


def test_advance_by_nothing() -> None:
    """Without seconds, everything runs that can run now, and nothing that is due later."""
    log: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, loop.call_soon, log.append, "now")
        loop.call_later(0.001, log.append, "later")
        await advance(0)
        assert log == ["now"]

    run(main)


def test_advance_needs_the_virtual_clock() -> None:
    """On a real event loop, it is an error that says which loop it needs."""
    with pytest.raises(RuntimeError, match=r"loop_factory=quattro_web\.testing\.VirtualClockLoop"):
        asyncio.run(advance(1))


def test_deadlock_names_who_waits() -> None:
    """Where nothing can run any more, it is an error that names the tasks and where they wait."""

    async def waits() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(waits(), name="the one that waits")

    with pytest.raises(DeadlockError, match=r"the one that waits \(\S+\.waits, .+test_clock"):
        run(main)


def test_time_stands_still_for_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs in a thread has its time, whatever the timers say: a ``def`` endpoint as well."""
    monkeypatch.setattr(clock, "THREAD_WAIT", 20.0)  # a busy machine takes its own
    app = FastAPI()
    gone = threading.Event()

    @app.get("/")
    def endpoint() -> bool:
        return gone.wait(0.1)

    async def test(client: AppClient) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(1):
            assert await asyncio.to_thread(gone.wait, 0.1) is False
            assert (await client.get("/")).json() is False
        assert loop.time() < 0.5

    visit(app, test)


def test_nothing_waits_for_threads_but_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a thread works, what is ready runs at once; when it has reported back, time goes on."""
    monkeypatch.setattr(clock, "THREAD_WAIT", 3600.0)
    may_end = threading.Event()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        call = loop.run_in_executor(None, may_end.wait, 10)
        loop.call_later(5, lambda: None)
        for _ in range(3):
            await asyncio.sleep(0)
        may_end.set()
        assert await call, "the loop has waited for the thread"
        assert loop.time() == 0
        await asyncio.sleep(60)
        assert loop.time() == 60

    run(main)


def test_thread_that_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread has but so much patience where a timer is set, and more where none is: that is no
    deadlock. The end of the loop waits for it as well."""
    monkeypatch.setattr(clock, "THREAD_WAIT", 0.02)
    monkeypatch.setattr(clock, "WAKE_UP_WAIT", 0.02)
    release = threading.Event()

    async def main() -> None:
        await asyncio.to_thread(time.sleep, 0.1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await asyncio.to_thread(release.wait)
        threading.Timer(0.1, release.set).start()

    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        runner.run(main())
    assert release.is_set()


def test_thread_that_never_reports_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a long time a thread that nothing can go on without is a deadlock."""
    monkeypatch.setattr(clock, "LONG_THREAD_WAIT", 0.02)
    release = threading.Event()

    async def main() -> None:
        await asyncio.to_thread(release.wait)

    runner = asyncio.Runner(loop_factory=VirtualClockLoop)
    try:
        with pytest.raises(DeadlockError, match=r"test_clock"):
            runner.run(main())
    finally:
        monkeypatch.undo()
        release.set()
        runner.close()
