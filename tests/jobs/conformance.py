"""What every engine of jobs has to do, as tests: each sentence of ``quattro_web/_jobs/engine.py``.

Run an adapter of yours through it with pytest, in a module of its own::

    from tests.jobs.conformance import JobEngineConformance

    class TestMyEngine(JobEngineConformance):
        def make_engine(self, name: str) -> JobEngine:
            return MyEngine("my-queue://localhost", name=name, redelivery=self.redelivery)

It starts processes that it kills, where the engine is not local. `tests/jobs/test_engines.py` has
the engines that there are, and adapters that break one sentence each.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest

from quattro_web._jobs.engine import (
    CallState,
    Delivery,
    EngineConnection,
    EngineWorker,
    HandedBackError,
    JobEngine,
    News,
    RunCall,
    Submission,
    Watch,
)


class Runner:
    """What calls are run by: it notes what comes, and lets it end when the test says so."""

    def __init__(self, *, waits: bool = True) -> None:
        self.begun: list[Delivery] = []
        self.cancelled: list[str] = []
        self.most = 0
        self._running = 0
        self.may_end = asyncio.Event()
        self.may_clean_up = asyncio.Event()
        self.may_clean_up.set()
        if not waits:
            self.may_end.set()

    @property
    def keys(self) -> list[str]:
        return [delivery.key for delivery in self.begun]

    async def __call__(self, delivery: Delivery) -> bytes:
        self.begun.append(delivery)
        self._running += 1
        self.most = max(self.most, self._running)
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.cancelled.append(delivery.key)
            await self.may_clean_up.wait()
            raise
        finally:
            self._running -= 1
        return b"outcome of " + delivery.payload


class Place:
    """An engine with a name of its own, and a connection to it."""

    def __init__(self, suite: JobEngineConformance, name: str, patience: float) -> None:
        self.name = name
        self.engine = suite.make_engine(name)
        self.patience = patience
        self.connection: EngineConnection
        self._runners: list[Runner] = []

    def runner(self, *, waits: bool = True) -> Runner:
        self._runners.append(Runner(waits=waits))
        return self._runners[-1]

    def release(self) -> None:
        for runner in self._runners:
            runner.may_end.set()
            runner.may_clean_up.set()

    @asynccontextmanager
    async def working(
        self, run: RunCall, *, name: str = "worker", jobs: Iterable[str] = ("job",), slots: int = 10
    ) -> AsyncIterator[EngineWorker]:
        """Have calls run, until the end of the block."""
        async with self.connection.worker(name, jobs, run) as worker:
            worker.set_slots(slots)
            task = asyncio.create_task(worker.run())
            try:
                yield worker
                assert not task.done(), "run() takes calls until it is cancelled"
            finally:
                self.release()
                task.cancel()
                await asyncio.wait((task,), timeout=self.patience)

    async def submit(self, *keys: str, delay: float = 0.0, job: str = "job") -> None:
        calls = [Submission(key, job, key.encode(), delay) for key in keys]
        assert [*await self.connection.submit(calls)] == [None] * len(calls)

    async def until(self, condition: Callable[[], bool | Awaitable[bool]]) -> None:
        async with asyncio.timeout(self.patience):
            while True:
                found = condition()
                if found if isinstance(found, bool) else await found:
                    return
                await asyncio.sleep(0.005)

    async def look(self, key: str) -> News:
        (news,) = await self.connection.look([key])
        return news

    async def until_state(self, key: str, state: CallState) -> News:
        async def is_there() -> bool:
            return (await self.look(key)).state is state

        await self.until(is_there)
        return await self.look(key)

    async def ends(self, watch: Watch, *keys: str) -> dict[str, bytes | None]:
        """Return the outcomes of calls, when news of the end of all have come."""
        found: dict[str, bytes | None] = {}
        async with asyncio.timeout(self.patience):
            while not found.keys() >= {*keys}:
                found |= {
                    news.key: news.outcome
                    for news in await watch.next()
                    if news.state is CallState.ENDED
                }
        return found

    async def passes(self, runner: Runner) -> None:
        """Have one more call run to its end: whatever was due before it has been taken as well."""
        key = f"passing:{uuid.uuid4().hex}"
        await self.submit(key)
        await self.until(lambda: key in runner.keys)


Scene = Callable[[Any, Place], Coroutine[Any, Any, None]]


def plays(scene: Scene) -> Callable[[Any], None]:
    """Make a test of an async function."""

    def test(self: JobEngineConformance) -> None:
        async def main() -> None:
            place = Place(self, f"conformance-{uuid.uuid4().hex[:12]}", self.patience)
            async with place.engine.connect() as place.connection:
                try:
                    await scene(self, place)
                finally:
                    place.release()

        asyncio.run(main())

    test.__name__, test.__doc__ = scene.__name__, scene.__doc__
    return test


class JobEngineConformance:
    """Tests for an engine: make a subclass, with `make_engine`.

    Attributes:
        redelivery: After how many seconds the engines of `make_engine` give the call of a silent
            worker to another one.
        patience: After how many seconds a test gives up.
    """

    redelivery = 1.0
    patience = 60.0

    def make_engine(self, name: str) -> JobEngine:
        """Make an engine whose calls are those of all engines of this name, and of no others."""
        raise NotImplementedError

    def outage(self) -> AbstractContextManager[None]:
        """Put the engine out of reach for the block; without it, its tests are skipped."""
        pytest.skip("this engine can't be put out of reach")

    # Submission and Delivery

    @plays
    async def test_call_arrives(self, place: Place) -> None:
        """A worker gets the key, the job and the payload of a submission, for the first time."""
        payloads = [b"", b"\0\xff\r\n", os.urandom(1_000_000)]
        runner = place.runner(waits=False)
        await place.connection.submit(
            [Submission(f"a:{n}", "job", payload) for n, payload in enumerate(payloads)]
        )
        async with place.working(runner):
            await place.until(lambda: len(runner.begun) == 3)
        found = {each.key: (each.job, each.payload, each.deliveries) for each in runner.begun}
        assert found == {f"a:{n}": ("job", payload, 1) for n, payload in enumerate(payloads)}

    @plays
    async def test_call_that_is_delayed(self, place: Place) -> None:
        """A call does not begin before its delay is over, and those after it do not wait."""
        runner = place.runner(waits=False)
        async with place.working(runner):
            for delay in (0.5, 5.0):
                key, began = f"a:{delay}", time.monotonic()
                await place.submit(key, delay=delay)
                await place.passes(runner)
                await place.until(lambda: key in runner.keys)  # noqa: B023
                assert time.monotonic() - began >= delay - 0.1  # by another clock
                if runner.keys[-1] == key:
                    break  # else the machine was so busy that the one after it took as long
            else:
                pytest.fail("what was submitted later has waited")

    @plays
    async def test_known_key_is_submitted_once(self, place: Place) -> None:
        """A key that is known already is submitted once: in one go, while it waits or runs."""
        runner = place.runner()
        await place.submit("a:1", "a:1")
        await place.submit("a:1")
        async with place.working(runner):
            await place.until(lambda: bool(runner.begun))
            await place.submit("a:1")
            await place.passes(runner)
            assert runner.keys.count("a:1") == 1

    @plays
    async def test_many_are_submitted(self, place: Place) -> None:
        """Many calls are submitted, and each is run once, whoever takes it; the watcher hears the
        end of all of them, each with its outcome."""
        runner = place.runner(waits=False)
        keys = [f"a:{number}" for number in range(100)]
        async with AsyncExitStack() as stack:
            for number in range(2):
                await stack.enter_async_context(place.working(runner, name=f"worker-{number}"))
            watch = await stack.enter_async_context(place.connection.watch("a"))
            await watch.follow(keys)
            await place.submit(*keys)
            ends = await place.ends(watch, *keys)
        assert sorted(runner.keys) == sorted(keys)
        assert ends == {key: b"outcome of " + key.encode() for key in keys}

    # Cancelling

    @plays
    async def test_cancelled_while_it_waits(self, place: Place) -> None:
        """A waiting call that is cancelled never runs, and its watcher learns of its end."""
        runner = place.runner(waits=False)
        async with place.connection.watch("a") as watch:
            await watch.follow(["a:1", "a:2", "a:3"])
            await place.submit("a:1", "a:2")
            await place.submit("a:3", delay=0.2)
            await place.connection.cancel(["a:1", "a:3"])
            assert await place.ends(watch, "a:1", "a:3") == {"a:1": None, "a:3": None}
            async with place.working(runner):
                await place.ends(watch, "a:2")
                await asyncio.sleep(0.3)
                await place.passes(runner)
        assert "a:1" not in runner.keys
        assert "a:3" not in runner.keys

    @plays
    async def test_cancelled_while_it_runs(self, place: Place) -> None:
        """A running call that is cancelled is cancelled where it runs, and once; its watcher learns
        of its end when `run` has ended, not before, and it has no outcome; others go on."""
        runner = place.runner()
        runner.may_clean_up.clear()
        async with place.connection.watch("a") as watch, place.working(runner):
            await watch.follow(["a:1", "a:2"])
            await place.submit("a:1", "a:2")
            await place.until(lambda: len(runner.begun) == 2)
            await place.connection.cancel(["a:1", "a:unknown"])
            await place.until(lambda: bool(runner.cancelled))
            ends = asyncio.create_task(place.ends(watch, "a:1"))
            await asyncio.wait((ends,), timeout=0.6)
            assert not ends.done()
            assert (await place.look("a:1")).state is CallState.RUNNING
            runner.may_clean_up.set()
            assert (await ends)["a:1"] is None
            assert (await place.until_state("a:1", CallState.ENDED)).outcome is None
            assert runner.cancelled == ["a:1"]
            runner.may_end.set()
            assert (await place.ends(watch, "a:2"))["a:2"] == b"outcome of a:2"

    @plays
    async def test_cancelled_when_it_has_ended(self, place: Place) -> None:
        """The cancellation of a call that has ended changes nothing of it."""
        async with place.working(place.runner(waits=False)):
            await place.submit("a:1")
            await place.until_state("a:1", CallState.ENDED)
            await place.connection.cancel(["a:1"])
            assert (await place.look("a:1")).outcome == b"outcome of a:1"

    @plays
    async def test_cancellation_that_was_not_told(self, place: Place) -> None:
        """A worker can ask which calls were cancelled: those that were, and those that have ended,
        not those that wait, or run."""
        runner = place.runner()
        runner.may_clean_up.clear()
        async with place.working(runner, slots=3):
            await place.submit("a:cancelled", "a:runs", "a:ends")
            await place.until(lambda: len(runner.begun) == 3)
            await place.submit("a:waits")
            keys = ["a:cancelled", "a:runs", "a:waits"]
            assert [*await place.connection.cancelled(keys)] == [False] * 3
            await place.connection.cancel(["a:cancelled"])
            assert [*await place.connection.cancelled(keys)] == [True, False, False]
            runner.may_end.set()
            await place.until_state("a:ends", CallState.ENDED)
            assert [*await place.connection.cancelled(["a:ends"])] == [True]
            assert [*await place.connection.cancelled([])] == []

    # Watching, and looking

    @plays
    async def test_news(self, place: Place) -> None:
        """A watcher hears which worker runs a call, and of its end, with its outcome."""
        runner = place.runner()
        async with place.connection.watch("a") as watch, place.working(runner, name="somebody"):
            await watch.follow(["a:1"])
            await place.submit("a:1")
            worker = ""
            async with asyncio.timeout(place.patience):
                while not worker:
                    for news in await watch.next():
                        assert news.key == "a:1"
                        if news.state is CallState.RUNNING:
                            worker = news.worker
            assert worker == "somebody"
            runner.may_end.set()
            assert await place.ends(watch, "a:1") == {"a:1": b"outcome of a:1"}

    @plays
    async def test_news_of_others(self, place: Place) -> None:
        """A watcher hears of the calls whose keys begin with its name and a colon, and of no
        others; each of two watchers hears its own."""
        async with (
            place.connection.watch("a") as one,
            place.connection.watch("ab") as other,
            place.working(place.runner(waits=False)),
        ):
            await one.follow(["a:1"])
            await other.follow(["ab:1"])
            await place.submit("ab:1", "b:a:1", "a:1")
            assert (await place.ends(one, "a:1")).keys() == {"a:1"}
            assert (await place.ends(other, "ab:1")).keys() == {"ab:1"}

    @plays
    async def test_no_news(self, place: Place) -> None:
        """Without news, a watcher has none after a second or so."""
        async with place.connection.watch("a") as watch, asyncio.timeout(place.patience / 2):
            assert [*await watch.next()] == []

    @plays
    async def test_looking(self, place: Place) -> None:
        """Looking tells how far a call has come: waiting, running and where, ended with what, or
        unknown; all the same when nobody has watched it."""
        runner = place.runner()
        await place.submit("a:1")
        assert (await place.look("a:1")).state is CallState.WAITING
        async with place.working(runner, name="somebody"):
            running = await place.until_state("a:1", CallState.RUNNING)
            assert (running.worker, running.outcome) == ("somebody", None)
            runner.may_end.set()
            await place.until_state("a:1", CallState.ENDED)
            assert (await place.look("a:1")).outcome == b"outcome of a:1"
        assert (await place.look("a:unknown")).state is CallState.LOST
        found = await place.connection.look(["a:1", "a:unknown"])
        assert {news.key for news in found} <= {"a:1", "a:unknown"}
        assert found

    @plays
    async def test_outcome_is_kept(self, place: Place) -> None:
        """An outcome is kept until it was seen, although its watcher was away, and its worker is
        gone."""
        async with place.working(place.runner(waits=False)):
            await place.submit("a:1")
            await place.until_state("a:1", CallState.ENDED)
        async with place.engine.connect() as connection, connection.watch("a"):
            (news,) = await connection.look(["a:1"])
        assert (news.state, news.outcome) == (CallState.ENDED, b"outcome of a:1")

    # What was handed over

    @plays
    async def test_settled(self, place: Place) -> None:
        """A call that was noted as over is so until that is forgotten."""
        connection = place.connection
        assert not await connection.is_settled("kept:1")
        await connection.settle("kept:1", None)
        assert await connection.is_settled("kept:1")
        assert not await connection.is_settled("kept:2")
        await connection.unsettle("kept:1")
        assert not await connection.is_settled("kept:1")

    @plays
    async def test_kept(self, place: Place) -> None:
        """What was kept of calls is there, by their keys, until they are done, or it is forgotten;
        to submit one once more does not forget it."""
        connection = place.connection
        assert dict(await connection.kept()) == {}
        for number in range(3):
            await connection.settle(f"kept:{number}", b"\xff%d" % number)
        await connection.settle("kept:0", None)
        await connection.forget("kept:1")
        assert await connection.is_settled("kept:1")
        await connection.unsettle("kept:2")
        assert dict(await connection.kept()) == {"kept:2": b"\xff2"}

    @plays
    async def test_submitted_once_more(self, place: Place) -> None:
        """A call that is over can be submitted once more, when that was forgotten."""
        runner = place.runner(waits=False)
        async with place.working(runner):
            await place.submit("kept:1")
            await place.until_state("kept:1", CallState.ENDED)
            await place.connection.settle("kept:1", b"failed")
            await place.connection.unsettle("kept:1")
            await place.submit("kept:1")
            await place.until(lambda: runner.keys == ["kept:1"] * 2)

    # Leases

    @plays
    async def test_leases(self, place: Place) -> None:
        """A lease that was renewed is alive, for whoever looks; others are not. The clock is the
        same for everybody, and runs."""
        first = await place.connection.renew(("a", "b"), 60.0, ())
        assert first.alive == frozenset()
        async with place.engine.connect() as connection:
            second = await connection.renew((), 60.0, ("a", "b", "c"))
            third = await place.connection.renew((), 60.0, ["a"], since=second.now)
        assert second.alive == {"a", "b"}
        assert third.alive == {"a"}
        assert first.now <= second.now <= third.now < first.now + place.patience

    @plays
    async def test_lease_runs_out(self, place: Place) -> None:
        """A lease runs out when its seconds are over, if it was not renewed."""
        self._needs_processes(place)
        for seconds in (0.3, 60.0):
            await place.connection.renew(("a",), seconds, ())
        await place.connection.renew(("b",), 0.3, ())

        async def has_run_out() -> bool:
            return "b" not in (await place.connection.renew((), 1.0, ("b",))).alive

        await place.until(has_run_out)
        assert (await place.connection.renew((), 1.0, ("a",))).alive == {"a"}

    @plays
    async def test_late_renewal(self, place: Place) -> None:
        """A renewal that arrives when its seconds are over, or when whoever has sent it waits no
        longer, renews nothing; one in time does."""
        self._needs_processes(place)
        now = (await place.connection.renew((), 1.0, ())).now
        await place.connection.renew(("late",), 2.0, (), since=now - 3.0)
        await place.connection.renew(("not waited for",), 60.0, (), since=now - 3.0, within=1.0)
        await place.connection.renew(("in time",), 60.0, (), since=now - 3.0, within=30.0)
        found = await place.connection.renew((), 1.0, ("late", "not waited for", "in time"))
        assert found.alive == {"in time"}

    # Workers

    @plays
    async def test_unknown_job(self, place: Place) -> None:
        """A worker has calls run of jobs that it does not know, too."""
        runner = place.runner(waits=False)
        async with place.working(runner, jobs=()):
            await place.submit("a:1", job="of another release")
            await place.until(lambda: [each.job for each in runner.begun] == ["of another release"])

    @plays
    async def test_slots(self, place: Place) -> None:
        """A worker runs as many calls at once as it has slots, and as many as it is given later."""
        runner = place.runner()
        async with place.working(runner, slots=2) as worker:
            await place.submit(*(f"a:{number}" for number in range(6)))
            await place.until(lambda: len(runner.begun) == 2)
            await asyncio.sleep(0.2)
            assert runner.most == 2
            worker.set_slots(4)
            await place.until(lambda: len(runner.begun) == 4)
            runner.may_end.set()
            await place.until(lambda: len(runner.begun) == 6)
        assert runner.most == 4

    @plays
    async def test_takes_no_more(self, place: Place) -> None:
        """A worker that takes no more has none on its way, and what it runs goes on to its end."""
        runner = place.runner()
        async with place.working(runner) as worker:
            await place.submit("a:1")
            await place.until(lambda: bool(runner.begun))
            await place.submit(*(f"a:{number}" for number in range(2, 6)))
            await worker.take_no_more()
            taken = len(runner.begun)
            await place.submit("a:6")
            await asyncio.sleep(0.2)
            assert len(runner.begun) == taken
            runner.may_end.set()
            await place.until_state("a:1", CallState.ENDED)
            assert (await place.look("a:6")).state is CallState.WAITING
        others = place.runner(waits=False)
        async with place.working(others, name="another"):
            await place.until(lambda: "a:6" in others.keys)

    @plays
    async def test_handed_back(self, place: Place) -> None:
        """A call that is handed back runs again, after its delay. It counts as a delivery if that
        is said."""
        deliveries: list[int] = []
        errors = [HandedBackError(), HandedBackError(counts=True), HandedBackError(0.3)]
        at: list[float] = []

        async def run(delivery: Delivery) -> bytes:
            deliveries.append(delivery.deliveries)
            at.append(time.monotonic())
            if errors:
                raise errors.pop(0)
            return b"done"

        async with place.connection.watch("a") as watch, place.working(run):
            await watch.follow(["a:1"])
            await place.submit("a:1")
            assert await place.ends(watch, "a:1") == {"a:1": b"done"}
        assert deliveries == [1, 1, 2, 2]
        assert at[3] - at[2] >= 0.25

    @plays
    async def test_handed_back_when_it_was_cancelled(self, place: Place) -> None:
        """A call that was cancelled, and is handed back all the same, does not run again."""
        runner = place.runner()
        may_begin = asyncio.Event()

        async def run(delivery: Delivery) -> bytes:
            if delivery.key != "a:1":
                return await runner(delivery)
            may_begin.set()
            try:
                await runner.may_end.wait()
            except asyncio.CancelledError:
                raise HandedBackError from None
            return b""

        async with place.connection.watch("a") as watch, place.working(run):
            await watch.follow(["a:1"])
            await place.submit("a:1")
            await may_begin.wait()
            may_begin.clear()
            await place.connection.cancel(["a:1"])
            await place.ends(watch, "a:1")
            await place.passes(runner)
            assert not may_begin.is_set()

    @plays
    async def test_worker_dies(self, place: Place) -> None:
        """The call of a worker that dies is given to another one, as one more delivery."""
        self._needs_processes(place)
        await place.submit("a:1")
        with self._elsewhere(place) as pid:
            os.kill(pid, signal.SIGKILL)
        runner = place.runner(waits=False)
        async with place.connection.watch("a") as watch, place.working(runner, name="another"):
            await place.until(lambda: bool(runner.begun))
            assert runner.begun[0].deliveries == 2
            await place.until_state("a:1", CallState.ENDED)
            assert watch is not None

    @plays
    async def test_worker_stands_still(self, place: Place) -> None:
        """What a worker hands back that was silent for so long that another one has been given it
        does not run a third time, and has the outcome of the other one."""
        self._needs_processes(place)
        await place.submit("a:1")
        with self._elsewhere(place) as pid:
            os.kill(pid, signal.SIGSTOP)
            runner = place.runner()
            async with place.working(runner, name="another"):
                await place.until(lambda: runner.keys == ["a:1"])
                os.kill(pid, signal.SIGCONT)  # its clock has stood still as well
                await asyncio.sleep(1.0)
                await place.passes(runner)
                assert runner.keys.count("a:1") == 1
                runner.may_end.set()
                outcome = (await place.until_state("a:1", CallState.ENDED)).outcome
                assert outcome == b"outcome of a:1"

    # An engine out of reach

    @plays
    async def test_out_of_reach(self, place: Place) -> None:
        """An engine that is unreachable is found out by what is called, not by connecting; its
        workers go on when it is back, with what they run and with more, and so does what is called,
        however much was called at once before."""
        runner = place.runner()
        async with place.working(runner):
            await place.submit("a:1")
            await place.until(lambda: bool(runner.begun))
            await asyncio.gather(*(place.look("a:1") for _ in range(5)))
            with self.outage():
                async with asyncio.timeout(place.patience), place.engine.connect() as connection:
                    with pytest.raises((Exception, TimeoutError)):
                        async with asyncio.timeout(1.0):
                            await connection.submit([Submission("a:2", "job", b"")])

            async def takes_calls() -> bool:
                with suppress(Exception):
                    async with asyncio.timeout(1.0):
                        await place.submit("a:3")
                        return True
                return False

            await place.until(takes_calls)
            await asyncio.gather(*(place.look("a:1") for _ in range(5)))
            await place.until(lambda: "a:3" in runner.keys)
            assert runner.cancelled == []
            runner.may_end.set()
            assert (await place.until_state("a:1", CallState.ENDED)).outcome == b"outcome of a:1"

    # Other processes

    def _needs_processes(self, place: Place) -> None:
        if place.engine.is_local:
            pytest.skip("it lives and dies with its process")

    def _elsewhere(self, place: Place) -> _Elsewhere:
        return _Elsewhere(self, place)


class _Elsewhere:
    """A process with a worker that has taken a call, and hands it back when it has stood still."""

    def __init__(self, suite: JobEngineConformance, place: Place) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._has_begun = self._context.Event()
        self._process = self._context.Process(
            target=_work_elsewhere, args=(suite, place.name, self._has_begun), daemon=True
        )
        self._patience = place.patience

    def __enter__(self) -> int:
        self._process.start()
        assert self._has_begun.wait(self._patience), "the worker has taken nothing"
        assert self._process.pid is not None
        return self._process.pid

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join(self._patience)


def _work_elsewhere(suite: JobEngineConformance, name: str, has_begun: Any) -> None:
    slots: Callable[[int], None]

    async def run(_: Delivery) -> bytes:
        slots(0)  # it takes nothing else
        has_begun.set()
        while True:
            now = time.monotonic()
            await asyncio.sleep(0.05)
            if time.monotonic() - now > suite.redelivery / 2:
                raise HandedBackError

    async def main() -> None:
        nonlocal slots
        engine = suite.make_engine(name)
        async with engine.connect() as connection:
            async with connection.worker("elsewhere", ("job",), run) as worker:
                slots = worker.set_slots
                slots(1)
                await worker.run()

    asyncio.run(main())
