"""Work that is handed over to the engine: done at least once, and told where it fails."""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import Any

import pytest

pytest.importorskip("docket", reason="pydocket is missing: pip install 'quattro-web[docket]'")

from redis.asyncio import Redis

from quattro_web._jobs.docket_engine import _DocketConnection
from quattro_web.jobs import JobsUnavailableError, current_job
from tests.jobs.functions import MAY_SUCCEED, Functions, log, note, until
from tests.jobs.test_children import Play, play, taken, working
from tests.jobs.test_processes import Herd, herd
from tests.locks.services import RedisService
from tests.support.server import Server, uvicorn

__all__ = ["herd", "play"]

REQUEST = {"type": "http", "method": "POST", "path": "/orders"}


def test_it_is_done(play: Play) -> None:
    """D4: What was handed over is done, after its delay."""

    async def scene(f: Functions) -> None:
        key = await f.jobs.hand_over(f.sleep.call(0.01), delay=1.0)
        assert key.startswith("kept:sleep:")
        assert log == []
        await until(lambda: log[1:] == ["done"])
        assert await f.jobs.failed() == []

    play(scene)


def test_same_key_is_once(play: Play) -> None:
    """D4: The same key twice is one: while it waits or runs, and when it is done."""

    async def scene(f: Functions) -> None:
        for _ in range(3):
            await f.jobs.hand_over(f.sleep.call(0.2), key="7")
        await until(lambda: log[1:] == ["done"])
        await f.jobs.hand_over(f.sleep.call(0.2), key="7")
        await f.jobs.hand_over(f.sleep_again.call(0.0), key="7")  # of another job
        await until(lambda: log[3:] == ["done"])
        await asyncio.sleep(0.1)
        assert len(log) == 4

    play(scene)


def test_key_belongs_to_its_job(play: Play) -> None:
    """D4: The same key of two jobs is two, also where a colon is in the name of one."""

    async def scene(f: Functions) -> None:
        one, other = (f.jobs.job(name=name)(f.do_once.function) for name in ("a", "a:b"))
        keys = {
            await f.jobs.hand_over(one.call("one"), key="b:c"),
            await f.jobs.hand_over(other.call("other"), key="c"),
        }
        assert len(keys) == 2

    play(scene)


def test_it_is_tried_again(play: Play, errors: list[logging.LogRecord]) -> None:
    """D4: What fails is tried again, which the log tells with the request that it came from."""

    async def scene(f: Functions) -> None:
        await f.jobs.hand_over(f.fail_twice.call("a"), conn=REQUEST)
        await until(lambda: log == [f"attempt {n} of a" for n in (1, 2, 3)])
        await asyncio.sleep(0.1)
        assert len(log) == 3
        assert await f.jobs.failed() == []
        assert len(errors) == 2
        assert "fail twice, handed over by POST /orders, has failed" in errors[0].getMessage()

    play(scene)


def test_it_fails_for_good(play: Play, errors: list[logging.LogRecord]) -> None:
    """D4: What fails for good is kept and told, and can be started again or forgotten."""

    async def scene(f: Functions) -> None:
        MAY_SUCCEED.clear()
        key = await f.jobs.hand_over(f.fail_as_told.call(), key="7", conn=REQUEST)
        while not (failed := await f.jobs.failed()):
            await asyncio.sleep(0.01)
        (one,) = failed
        assert (one.key, one.job, one.origin) == (key, "fail as told", "POST /orders")
        assert (one.error, one.attempts) == ("Coded: code 7", 2)
        assert "failed for good after 2 attempts" in errors[-1].getMessage()
        assert "functions.py" in errors[-1].getMessage()
        await f.jobs.hand_over(f.fail_as_told.call(), key="7")  # is the same, and has failed
        assert log == ["tried"] * 2
        MAY_SUCCEED.append(True)
        await f.jobs.start_again(key)
        while await f.jobs.failed():
            await asyncio.sleep(0.01)
        assert log == ["tried"] * 3
        MAY_SUCCEED.clear()
        key = await f.jobs.hand_over(f.fail_as_told.call())
        while not await f.jobs.failed():
            await asyncio.sleep(0.01)
        await f.jobs.forget(key)
        assert await f.jobs.failed() == []

    play(scene)


def test_it_is_started_again_at_once(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """D4: What is started again at the moment when it has failed is begun, after its end."""
    put_outcome, may_end = _DocketConnection._put_outcome, asyncio.Event()

    async def put_later(self: Any, key: str, outcome: bytes) -> None:
        await may_end.wait()
        await put_outcome(self, key, outcome)

    monkeypatch.setattr(_DocketConnection, "_put_outcome", put_later)

    async def scene(f: Functions) -> None:
        @f.jobs.job(name="once", max_attempts=1)
        async def once() -> None:
            log.append("tried")
            if len(log) == 1:
                raise ValueError

        key = await f.jobs.hand_over(once.call())
        async with asyncio.timeout(60):
            while not await f.jobs.failed():
                await asyncio.sleep(0.005)
        again = asyncio.create_task(f.jobs.start_again(key))
        await asyncio.sleep(0.05)
        may_end.set()
        await again
        async with asyncio.timeout(60):
            while await f.jobs.failed():
                await asyncio.sleep(0.005)
        assert log == ["tried"] * 2

    play(scene, timeout=20.0)


def test_worker_that_shuts_down_hands_it_back(url: str, name: str) -> None:
    """D4: What is not done when its worker shuts down is done by another one."""

    async def scene() -> None:
        f = Functions(url, name)

        @f.jobs.job(name="twice")
        async def twice() -> None:
            note("begins")
            try:
                await asyncio.sleep(600 if len(log) == 1 else 0)
            except asyncio.CancelledError:
                note("cancelled")
                raise
            note("done")

        async with f.jobs.open():
            async with working(f, grace=0.05) as worker:
                await f.jobs.hand_over(twice.call())
                await until(lambda: len(log) == 1)
                worker.cancel()
                await asyncio.wait((worker,))
            assert log[1:] == ["cancelled"]
            async with working(f):
                await until(lambda: log[2:] == ["begins", "done"])

    asyncio.run(scene())


def test_shutdowns_are_no_failures(play: Play) -> None:
    """D4: A shutdown that cuts a job is none of its attempts, however many there are."""

    async def scene(f: Functions) -> None:
        @f.jobs.job(name="cut", max_attempts=1)
        async def cut() -> None:
            note(f"attempt {current_job().attempt}")
            if len(log) < 4:
                await asyncio.sleep(600)

        for number in range(1, 4):
            async with working(f):
                if number == 1:
                    await f.jobs.hand_over(cut.call(), key="7")
                await until(lambda: len(log) == number)  # noqa: B023
        async with working(f):
            await until(lambda: log == ["attempt 1"] * 4)
        assert await f.jobs.failed() == []

    play(scene, worker=False)


def test_job_that_is_unknown_yet_is_no_failure(
    url: str, name: str, errors: list[logging.LogRecord]
) -> None:
    """D4: Workers of an older release that do not know a job take none of its attempts."""

    async def scene() -> None:
        new, old = Functions(url, name), Functions(url, name)

        @new.jobs.job(name="new", max_attempts=1)
        async def of_this_release() -> None:
            note("done")

        async with new.jobs.open():
            async with working(old):
                await new.jobs.hand_over(of_this_release.call())
                await until(lambda: sum("knows no job" in e.getMessage() for e in errors) >= 2)
            async with working(new):
                await until(lambda: log == ["done"])
            assert await new.jobs.failed() == []

    asyncio.run(scene())


def test_redis_hangs(own_redis: RedisService, name: str) -> None:
    """D4: While Redis hangs, a hand-over says so within a bound; the same key later is once."""

    async def scene() -> None:
        f = Functions(own_redis.url, name, timeout=0.5, lease=2.0)
        async with f.jobs.open(), working(f):
            own_redis.signal(signal.SIGSTOP)
            async with asyncio.timeout(10):
                with pytest.raises(JobsUnavailableError, match="could not be handed over"):
                    await f.jobs.hand_over(f.sleep.call(0), key="7")
            own_redis.signal(signal.SIGCONT)
            while True:
                try:
                    await f.jobs.hand_over(f.sleep.call(0), key="7")
                    break
                except JobsUnavailableError:
                    await asyncio.sleep(0.1)
            await until(lambda: log[1:] == ["done"])
            await asyncio.sleep(0.3)
            assert len(log) == 2

    asyncio.run(scene())


def test_engine_is_away_when_it_is_delivered_again(
    redis: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D4: What another worker takes over is not lost where the engine is away at this moment."""
    deliveries, failures = _DocketConnection._deliveries, [ConnectionError("for a moment")]

    async def count_later(self: Any, execution: Any) -> int:
        if failures:
            raise failures.pop()
        return await deliveries(self, execution)

    monkeypatch.setattr(_DocketConnection, "_deliveries", count_later)

    async def scene() -> None:
        f = Functions(redis, name, redelivery=0.4)
        async with Redis.from_url(redis) as client, f.jobs.open():
            await f.jobs.hand_over(f.sleep.call(0))
            await taken(client, name)
            async with working(f):
                await until(lambda: log[1:] == ["done"])
        assert not failures

    asyncio.run(scene())


def test_processes_are_killed(herd: Herd) -> None:
    """D4: Work survives the end of the process that has handed it over, and of its worker."""
    assert herd.get("/hand-over/sleep").text == "kept:sleep:sleep"
    herd.web.stop(signal.SIGKILL)
    first = herd.worker()
    first.wait_for("begins")
    first.stop(signal.SIGKILL)
    herd.worker().wait_for("done")


def test_work_that_kills_its_workers(herd: Herd) -> None:
    """D4: Work that kills one worker after the other is set aside, and told."""
    workers = [herd.worker()]
    assert herd.get("/hand-over/kill").status == 200
    for _ in range(2):
        workers[-1].wait_for("kills")
        assert workers[-1].wait() == -signal.SIGKILL
        workers.append(herd.worker())
    workers[-1].wait_for("handed over by GET /hand-over/kill, has failed for good after 3 attempts")
    workers[-1].wait_for("lost its worker 2 times")
    with Server(uvicorn("tests.jobs.web:app"), env=herd._env) as web:
        herd.web = web
        assert herd.get("/double").text == "0 2 4 6 8"
    assert sum("kills" in each.log for each in workers) == 2
