"""Remote children: what a group sees of a function that runs on a worker, on each engine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest

pytest.importorskip("docket", reason="pydocket is missing: pip install 'quattro-web[docket]'")

from redis.asyncio import Redis
from starlette.exceptions import HTTPException

from quattro_core import TaskGroup
from quattro_web._jobs.docket_engine import _DocketConnection
from quattro_web._jobs.engine import News
from quattro_web._jobs.wire import frame, load_error, unframe
from quattro_web.jobs import (
    JobsNotRunningError,
    JobsUnavailableError,
    JobTimeoutError,
    RemoteError,
    UnknownJobError,
    WorkerLostError,
)
from tests.jobs.functions import Book, Coded, Functions, Page, log, until
from tests.jobs.services import DurableRedis

R = TypeVar("R")


@asynccontextmanager
async def running(functions: Functions, *, worker: bool = True) -> AsyncIterator[None]:
    """Run the jobs, with a worker in this process."""
    async with functions.jobs.open():
        if not worker:
            yield
            return
        async with working(functions):
            yield


@asynccontextmanager
async def working(functions: Functions, grace: float = 0.01) -> AsyncIterator[asyncio.Task[None]]:
    ready = asyncio.Event()
    task = asyncio.create_task(functions.jobs.run_worker(grace=grace, ready=ready.set))
    await ready.wait()
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


Scene = Callable[[Functions], Coroutine[Any, Any, None]]


@pytest.fixture
def play(url: str, name: str) -> Callable[[Scene], None]:
    """Play a scene with jobs that run."""

    def play(scene: Scene, *, worker: bool = True, **options: Any) -> None:
        async def main() -> None:
            functions = Functions(url, name, **options)
            async with running(functions, worker=worker):
                await scene(functions)

        asyncio.run(main())

    return play


Play = Callable[..., None]


def test_result_keeps_its_type(play: Play) -> None:
    """D1: Arguments and results keep their types, and a default is the worker's."""

    async def scene(f: Functions) -> None:
        page = Page(number=1, text="x")
        assert await f.bind.remote("a", page, page, copies=2) == Book("aa", [page, page])
        assert await f.bind.remote("a") == Book("a", [])
        assert await f.echo.remote(b"\xff\x00") == b"\xff\x00"

    play(scene)


def test_group_runs_many(play: Play) -> None:
    """D1: gather and map of a group take remote children, in order and by hundreds."""

    async def scene(f: Functions) -> None:
        async with TaskGroup() as tg:
            assert await tg.gather(*map(f.double.remote, range(300))) == tuple(range(0, 600, 2))
            found = [each async for each in tg.map(f.double.remote, range(50), limit=7)]
        assert sorted(found) == [*range(0, 100, 2)]

    play(scene)


def test_cancelled_child_has_cleaned_up(play: Play) -> None:
    """D1: The cancellation of a remote child cancels it there, and awaits its clean-up."""

    async def scene(f: Functions) -> None:
        task = asyncio.create_task(f.sleep.remote(60, 0.1))
        await until(lambda: len(log) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert log[1:] == ["cancelled", "cleaned up"]

    play(scene)


def test_clean_up_is_not_cut(url: str, name: str) -> None:
    """D1: A second cancellation, of the engine or of a worker that shuts down, cuts no clean-up."""

    async def scene() -> None:
        f = Functions(url, name)
        async with f.jobs.open(), working(f, grace=0.01) as worker:
            task = asyncio.create_task(f.sleep.remote(60, 0.5))
            await until(lambda: len(log) == 1)
            (key,) = f.jobs.client("sleep")._calls
            task.cancel()
            await until(lambda: log[1:] == ["cancelled"])
            async with f.jobs._engine.connect() as connection:
                await connection.cancel([key])
            worker.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert log[1:] == ["cancelled", "cleaned up"]

    asyncio.run(scene())


def test_failure_cancels_the_siblings(play: Play) -> None:
    """D1: When one fails, a group cancels its remote children, and ends after their clean-up."""

    async def scene(f: Functions) -> None:
        with pytest.raises(ExceptionGroup) as caught:
            async with TaskGroup() as tg:
                tg.create_task(f.sleep.remote(60, 0.1))
                await until(lambda: len(log) == 1)
                tg.create_task(f.fail.remote("coded"))
        assert log[1:] == ["cancelled", "cleaned up"]
        assert isinstance(caught.value.exceptions[0], Coded)

    play(scene)


@pytest.mark.parametrize("milliseconds", [None, 0, 1, 2, 5, 10])
def test_cancelled_early(play: Play, milliseconds: int | None) -> None:
    """D1: A child that is cancelled at once, or soon after its start, ends and runs no more."""

    async def scene(f: Functions) -> None:
        tasks = [asyncio.create_task(f.sleep.remote(60)) for _ in range(40)]
        if milliseconds is not None:
            await asyncio.sleep(milliseconds / 1000)
        for task in tasks:
            task.cancel()
        async with asyncio.timeout(60):  # less than the bound of a clean-up
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(end) for end in ends] == [asyncio.CancelledError] * 40
        assert await f.double.remote(4) == 8
        begun = sum(line.startswith("begins") for line in log)
        assert log.count("cleaned up") == begun

    play(scene, clean_up=120.0)


def test_cancelled_in_the_queue(play: Play) -> None:
    """D1: A child that is cancelled while it waits for a worker never starts."""

    async def scene(f: Functions) -> None:
        async with TaskGroup() as tg:
            running = tg.create_task(f.sleep.remote(60))
            await until(lambda: len(log) == 1)
            waiting = tg.create_task(f.sleep.remote(60))
            await asyncio.sleep(0.1)
            waiting.cancel()
            await asyncio.wait((waiting,))
            running.cancel()
        assert log[1:] == ["cancelled", "cleaned up"]
        assert await f.double.remote(1) == 2
        assert len(log) == 3

    play(scene, concurrency=1)


def test_swallowed_cancellation_stands(play: Play) -> None:
    """D1: The result of a function that swallows its cancellation is dropped."""

    async def scene(f: Functions) -> None:
        task = asyncio.create_task(f.swallow.remote())
        await until(lambda: log == ["begins"])
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert log == ["begins", "swallowed"]

    play(scene)


def test_failing_clean_up_is_an_error(play: Play) -> None:
    """D3: An error in the clean-up of a cancelled child comes out, as that of a local one does."""

    async def scene(f: Functions) -> None:
        task = asyncio.create_task(f.fail_at_the_end.remote())
        await until(lambda: log == ["begins"])
        task.cancel()
        with pytest.raises(ValueError, match="the clean-up"):
            await task

    play(scene)


def test_long_clean_up_is_given_up(play: Play, errors: list[logging.LogRecord]) -> None:
    """D1: A clean-up that takes longer than its bound is given up, and named in the log."""

    async def scene(f: Functions) -> None:
        may_end = asyncio.Event()

        @f.jobs.job(name="clean")
        async def clean() -> None:
            log.append("begins")
            try:
                await asyncio.sleep(600)
            finally:
                await may_end.wait()
                log.append("cleaned up")

        task = asyncio.create_task(clean.remote())
        await until(lambda: len(log) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert log == ["begins"]
        assert "clean, cancelled on worker" in errors[-1].getMessage()
        may_end.set()
        await until(lambda: log[-1] == "cleaned up")

    play(scene, clean_up=0.2)


def test_http_error_comes_back(play: Play) -> None:
    """D3: An HTTPException comes back with status, detail and headers, and says where it was."""

    async def scene(f: Functions) -> None:
        with pytest.raises(HTTPException) as caught:
            await f.fail.remote("http")
        exc = caught.value
        assert (exc.status_code, exc.detail, exc.headers) == (404, "no such page", {"x-page": "7"})
        assert "functions.py" in str(exc.__cause__)
        assert str(exc.__cause__).startswith("on worker ")

    play(scene)


def test_errors_come_back_as_themselves(play: Play) -> None:
    """D3: An error comes back with its class, arguments, attributes and notes, in groups too."""

    async def scene(f: Functions) -> None:
        with pytest.raises(Coded, match="code 7") as coded:
            await f.fail.remote("coded")
        assert coded.value.code == 7
        with pytest.raises(KeyError) as noted:
            await f.fail.remote("noted")
        assert noted.value.args == ("page",)
        assert noted.value.__notes__ == ["it was torn out"]
        with pytest.raises(ExceptionGroup, match="two") as group:
            await f.fail.remote("both")
        assert [repr(each) for each in group.value.exceptions] == [
            "ValueError('one')",
            "Coded('code 2')",
        ]

    play(scene)


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("unknown", "tests.jobs.functions.LocalError: nobody knows it"),
        ("exit", "SystemExit: 3"),
        ("cancelled", "asyncio.exceptions.CancelledError: "),
    ],
)
def test_other_errors_are_told(play: Play, what: str, text: str) -> None:
    """D3: What can't be the same error here is a RemoteError with its class and text: of a class
    that is unknown, or one that would end this process or look like a cancellation of its own."""

    async def scene(f: Functions) -> None:
        with pytest.raises(RemoteError) as caught:
            await f.fail.remote(what)
        assert str(caught.value) == text
        assert await f.double.remote(1) == 2

    play(scene)


def test_function_has_a_group(play: Play) -> None:
    """D2: What a function starts in its group ends with it, and its failure arrives unwrapped."""

    async def scene(f: Functions) -> None:
        with pytest.raises(HTTPException, match="409: a child"):
            await f.fan_out.remote()
        assert log == ["child 0 ended", "child 1 ended"]

    play(scene)


def test_cancellation_goes_down_the_tree(play: Play) -> None:
    """D2: A job may call another one, which is cancelled with it, and needs no place of its own."""

    async def scene(f: Functions) -> None:
        assert await f.call.remote(0) == "done"
        log.clear()
        task = asyncio.create_task(f.call.remote(60))
        await until(lambda: len(log) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert log[1:] == ["cancelled", "cleaned up"]

    play(scene, concurrency=1)


def test_time_left_travels(play: Play) -> None:
    """D1: A job knows the time that it has left, which is not more than that of who calls it."""

    async def scene(f: Functions) -> None:
        alone, below = await f.left_seconds.remote(), await f.call_left.remote()
        assert alone is not None
        assert below is not None
        assert below < 15 < alone

    play(scene)


def test_timeout_ends_it(play: Play) -> None:
    """D1: A job that takes longer than its timeout is cancelled, and a JobTimeoutError."""

    async def scene(f: Functions) -> None:
        with pytest.raises(JobTimeoutError, match="sleep shortly"):
            await f.sleep_shortly.remote(60)
        assert log[1:] == ["cancelled", "cleaned up"]

    play(scene)


def test_deadline_of_a_caller_that_does_not_cancel(play: Play) -> None:
    """D1: A worker ends a job by itself when the deadline of its caller is over."""

    async def scene(f: Functions) -> None:
        arguments = f.sleep.types.dump_arguments((60,), {})
        client = f.jobs.client("sleep")
        outcome = await client.call("sleep", arguments, is_idempotent=False, time_left=0.05)
        assert isinstance(load_error(unframe(outcome)[1], ""), JobTimeoutError)
        assert log[1:] == ["cancelled", "cleaned up"]

    play(scene, timeout=2.0)


def test_unknown_job_is_an_error(url: str, name: str) -> None:
    """D3: A job that the worker does not know is an UnknownJobError, not a None."""

    async def scene() -> None:
        new, old = Functions(url, name), Functions(url, name)

        @new.jobs.job(name="new")
        async def of_this_release() -> None: ...

        async with new.jobs.open(), working(old):
            with pytest.raises(UnknownJobError, match="knows no job new"):
                await of_this_release.remote()

    asyncio.run(scene())


def test_arguments_that_do_not_fit_are_an_error(url: str, name: str) -> None:
    """D3: Arguments of another release are an error of the request, and the worker goes on."""

    async def scene() -> None:
        new, old = Functions(url, name), Functions(url, name)

        @new.jobs.job(name="changed")
        async def changed(number: str, more: int) -> None: ...

        @old.jobs.job(name="changed")
        async def as_it_was(number: int) -> None: ...

        async with new.jobs.open(), working(old):
            with pytest.raises(UnknownJobError, match="2 validation errors"):
                await changed.remote("no number", 1)
            assert await new.double.remote(1) == 2

    asyncio.run(scene())


def test_wrong_types_are_errors(play: Play) -> None:
    """D3: An argument or a result that is not what its annotation says is a ValueError."""

    async def scene(f: Functions) -> None:
        with pytest.raises(ValueError, match="Expected `int`"):
            await f.double.remote("x")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="number"):
            await f.double.remote()  # type: ignore[call-arg]
        with pytest.raises(ValueError, match="Expected `int`"):
            await f.answer_wrongly.remote()

    play(scene)


def test_large_results_come_one_after_the_other(redis: str, name: str) -> None:
    """D3: Large results are fetched as many at once as come within the time of one answer."""

    async def scene() -> None:
        f = Functions(redis, name)
        async with f.jobs._engine.connect() as connection:
            assert isinstance(connection, _DocketConnection)
            keys = [f"a:{n}" for n in range(4)]
            docket = connection._docket
            async with docket.redis() as client, connection.watch("a") as watch:
                for key, size in zip(keys, (3, 3, 6, 1), strict=True):
                    await connection._put_outcome(key, bytes(size << 20))
                    await client.hset(docket.runs_key(key), "state", "completed")
                first = await connection.look(keys)
                second = await connection.look(keys[2:])
                assert [[each.key for each in found] for found in (first, second)] == [
                    keys[:2],
                    keys[2:3],
                ]
                for key in keys:
                    state = '{"type": "state", "state": "completed"}'
                    await client.publish(docket.key(f"state:{key}"), state)
                heard: list[News] = []
                async with asyncio.timeout(60):
                    while len(heard) < 4:
                        found = await watch.next()
                        assert sum(len(each.outcome or b"") for each in found) < 10 << 20
                        heard += found
                assert sorted(each.key for each in heard) == keys
                assert sorted(len(each.outcome or b"") >> 20 for each in heard) == [1, 3, 3, 6]

    asyncio.run(scene())


def test_size_has_a_bound(play: Play) -> None:
    """D3: Arguments and results that are too large are a ValueError that says how large."""

    async def scene(f: Functions) -> None:
        assert len(await f.echo.remote(bytes(500))) == 500
        with pytest.raises(ValueError, match=r"the arguments of echo have \d+ bytes, of at most 1"):
            await f.echo.remote(bytes(1000))
        with pytest.raises(ValueError, match=r"the result of bind has \d+ bytes, of at most 1000"):
            await f.bind.remote("a", copies=1000)

    play(scene, max_size=1000)


def test_no_worker_is_an_error(play: Play) -> None:
    """D3: Without any worker, a call is a 503 within the lease, and does not run later."""

    async def scene(f: Functions) -> None:
        async with asyncio.timeout(60):
            with pytest.raises(JobsUnavailableError, match="no worker for double") as caught:
                await f.double.remote(1)
        assert caught.value.status_code == 503

    play(scene, worker=False, lease=2.0)


def test_worker_that_shuts_down_says_so(url: str, name: str) -> None:
    """D3: A worker that shuts down lets its jobs finish, then cancels them with an error."""

    async def scene() -> None:
        f = Functions(url, name)
        async with f.jobs.open():
            async with working(f, grace=5.0) as worker:
                task = asyncio.create_task(f.sleep.remote(0.3))
                await until(lambda: len(log) == 1)
                worker.cancel()
                assert await task == "done"
                await asyncio.wait((worker,))
            log.clear()
            async with working(f, grace=0.05) as worker:
                task = asyncio.create_task(f.sleep.remote(60))
                await until(lambda: len(log) == 1)
                worker.cancel()
                with pytest.raises(WorkerLostError, match="shuts down"):
                    await task
            assert log[1:] == ["cancelled", "cleaned up"]

    asyncio.run(scene())


def test_worker_that_shuts_down_hands_back(url: str, name: str) -> None:
    """D3: An idempotent job that is not done when its worker shuts down runs on another one."""

    async def scene() -> None:
        f = Functions(url, name)

        @f.jobs.job(name="twice", idempotent=True)
        async def twice() -> int:
            log.append("begins")
            await asyncio.sleep(600 if len(log) == 1 else 0)
            return len(log)

        async with f.jobs.open(), working(f) as worker:
            task = asyncio.create_task(twice.remote())
            await until(lambda: len(log) == 1)
            async with working(f):
                worker.cancel()
                assert await task == 2

    asyncio.run(scene())


def test_what_is_handed_back_can_be_cancelled(url: str, name: str) -> None:
    """D1: A job that is cancelled while it cleans up for a shutdown of its worker runs no more."""

    async def scene() -> None:
        f, may_end = Functions(url, name, concurrency=1), asyncio.Event()

        @f.jobs.job(name="clean", idempotent=True)
        async def clean() -> None:
            log.append("begins")
            try:
                await asyncio.sleep(600 if len(log) == 1 else 0)
            except asyncio.CancelledError:
                log.append("cleans up")
                await may_end.wait()
                raise

        async with f.jobs.open(), f.jobs._engine.connect() as connection:
            async with working(f) as worker:
                task = asyncio.create_task(clean.remote())
                await until(lambda: len(log) == 1)
                (key,) = f.jobs.client("clean")._calls
                worker.cancel()
                await until(lambda: len(log) == 2)
                task.cancel()
                async with asyncio.timeout(60):
                    while not all(await connection.cancelled([key])):
                        await asyncio.sleep(0.005)
                may_end.set()
                await asyncio.wait((worker, task))
            assert task.cancelled()
            async with working(f):
                assert await f.double.remote(1) == 2  # after what was there before
        assert log == ["begins", "cleans up"]

    asyncio.run(scene())


def test_what_another_worker_has_is_not_handed_back(redis: str, name: str) -> None:
    """D3: A worker that was silent does not hand back what another one has been given since."""

    async def scene() -> None:
        f = Functions(redis, name)
        async with Redis.from_url(redis) as client, f.jobs.open():
            async with working(f):
                task = asyncio.create_task(f.sleep_again.remote(600))
                await until(lambda: len(log) == 1)
                (key,) = f.jobs.client("sleep again")._calls
                run = f"{name}:runs:{key}"
                await client.hset(run, "worker", "another")
            assert log[1:] == ["cancelled", "cleaned up"]
            assert await client.hmget(run, "state", "worker") == [b"running", b"another"]
            assert await client.xlen(f"{name}:stream") == 1
        with pytest.raises(JobsUnavailableError):
            await task

    asyncio.run(scene())


def test_what_another_worker_has_done_is_cancelled(redis: str, name: str) -> None:
    """D3: Of a job that runs twice, since a worker was silent, one ends when the other one has."""

    async def scene() -> None:
        f = Functions(redis, name, lease=1.0)
        async with Redis.from_url(redis) as client, f.jobs.open(), working(f):
            task = asyncio.create_task(f.sleep_again.remote(600))
            await until(lambda: len(log) == 1)
            (key,) = f.jobs.client("sleep again")._calls
            await client.hset(f"{name}:runs:{key}", "state", "completed")
            await until(lambda: log[1:] == ["cancelled", "cleaned up"])
        await asyncio.wait((task,))
        assert task.exception() is not None

    asyncio.run(scene())


def test_worker_that_can_not_ask_begins_later(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """D3: A worker that can't learn whether a job is still wanted begins it when it can."""
    renew = _DocketConnection.renew
    failures = [ConnectionError("for a moment")]

    async def renew_later(self: Any, names: Any, *args: Any, **options: Any) -> Any:
        if failures and not names:
            raise failures.pop()
        return await renew(self, names, *args, **options)

    monkeypatch.setattr(_DocketConnection, "renew", renew_later)

    async def scene(f: Functions) -> None:
        assert await f.double.remote(1) == 2
        assert not failures

    play(scene)


def test_redis_restarts(durable_redis: DurableRedis, name: str) -> None:
    """D1, D3: When Redis restarts, its worker goes on with what it runs and takes other jobs; what
    has ended meanwhile has its result, and a cancellation arrives."""

    async def scene() -> None:
        f, may_end = Functions(durable_redis.url, name), asyncio.Event()

        @f.jobs.job(name="wait")
        async def wait(number: int) -> int:
            log.append("begins")
            try:
                await may_end.wait()
            except asyncio.CancelledError:
                log.append("cancelled")
                raise
            return number

        async with running(f):
            task, other = (
                asyncio.create_task(wait.remote(7)),
                asyncio.create_task(f.sleep.remote(60)),
            )
            await until(lambda: len(log) == 2)
            durable_redis.kill()
            await asyncio.sleep(0.5)
            durable_redis.start()
            assert await again(lambda: f.double.remote(1)) == 2
            other.cancel()
            await asyncio.wait((other,))
            assert log[2:] == ["cancelled", "cleaned up"]
            durable_redis.kill()
            may_end.set()
            await asyncio.sleep(0.5)
            durable_redis.start()
            assert await task == 7

    asyncio.run(scene())


async def again(ask: Callable[[], Coroutine[object, None, R]]) -> R:
    """Ask for something that needs the engine, until it is back."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await ask()
            except JobsUnavailableError:
                await asyncio.sleep(0.05)


def test_outcome_is_there_although_its_worker_could_not_say_so(redis: str, name: str) -> None:
    """D3: What is delivered once more, since its worker has kept the result and died, is done."""

    async def scene() -> None:
        f = Functions(redis, name, redelivery=0.4)
        async with Redis.from_url(redis) as client, running(f, worker=False):
            task = asyncio.create_task(f.sleep.remote(0))
            calls = f.jobs.client("sleep")._calls
            await until(lambda: any(call.is_submitted for call in calls.values()))
            (key,) = calls
            await taken(client, name)
            outcome = frame({"ok": True, "worker": "a dead one"}, b'["done before"]')
            await client.set(f"{name}:outcome:{key}", outcome)
            async with working(f):
                assert await task == "done before"
        assert log == []

    asyncio.run(scene())


async def taken(client: Any, name: str) -> None:
    """Take the only call there is, as a worker does that dies at once."""
    group, stream = "docket-workers", f"{name}:stream"
    await client.xgroup_create(stream, group, "0-0", mkstream=True)
    ((_, messages),) = await client.xreadgroup(group, "dead", {stream: ">"})
    assert len(messages) == 1


def test_jobs_that_do_not_run(url: str, name: str) -> None:
    """R12: A call where the jobs are not open is an error that names the missing call."""
    f = Functions(url, name)
    with pytest.raises(JobsNotRunningError, match=r"install\(app, jobs=jobs\)"):
        asyncio.run(f.double.remote(1))
    assert asyncio.run(f.double(4)) == 8


def test_end_of_the_jobs_ends_the_calls(url: str, name: str) -> None:
    """D3: A call that is open when the jobs are closed is an error."""

    async def scene() -> None:
        f = Functions(url, name)
        async with f.jobs.open():
            task = asyncio.create_task(f.sleep.remote(60))
            await until(lambda: bool(f.jobs.client("sleep")._calls))
        with pytest.raises(JobsUnavailableError, match="the app has shut down"):
            await task

    asyncio.run(scene())
