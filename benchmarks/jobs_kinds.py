"""Jobs that do nothing, and one that waits, in each of the libraries: a caller, and a worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

CONCURRENCY = 100
CHECK = timedelta(milliseconds=25)  # what ours has docket's worker wait when it is full
AT_ONCE = 100  # of those that take a connection each
WAIT = 60.0


@dataclass
class Caller:
    """What a library can be asked for.

    Attributes:
        call: Have so many jobs run, all at once, and return their results.
        cancel: Begin a job, and return a function that cancels it, and returns when it has ended;
            None if the library can't.
    """

    call: Callable[[int], Awaitable[list[int]]]
    cancel: Callable[[], Awaitable[Callable[[], Awaitable[None]]]] | None = None


async def echo(number: int) -> int:
    return number


async def wait() -> None:
    await asyncio.sleep(WAIT)


def _at_most(limit: int, function: Callable[[int], Awaitable[int]], count: int) -> Any:
    places = asyncio.Semaphore(limit)

    async def one(number: int) -> int:
        async with places:
            return await function(number)

    return asyncio.gather(*map(one, range(count)))


class Ours:
    """quattro_web.jobs."""

    def __init__(self, url: str, name: str) -> None:
        from quattro_web.jobs import Jobs

        self.jobs = Jobs(url, name=name, concurrency=CONCURRENCY, lease=30.0, timeout=20.0)
        self.echo = self.jobs.job(name="echo")(echo)
        self.wait = self.jobs.job(name="wait")(wait)

    async def work(self) -> None:
        async with self.jobs.open():
            await self.jobs.run_worker()

    @asynccontextmanager
    async def calling(self) -> AsyncIterator[Caller]:
        from quattro_core import TaskGroup

        async def call(count: int) -> list[int]:
            async with TaskGroup() as tg:
                found = await tg.gather(*map(self.echo.remote, range(count)))
            return [*found]

        async def cancel() -> Callable[[], Awaitable[None]]:
            task = asyncio.create_task(self.wait.remote())
            calls = self.jobs.client("wait")._calls
            while not any(each.worker for each in calls.values()):
                await asyncio.sleep(0.002)

            async def end() -> None:
                task.cancel()
                await asyncio.wait((task,))

            return end

        async with self.jobs.open():
            yield Caller(call, cancel)


class Docket:
    """docket by hand: add, await, and cancel."""

    def __init__(self, url: str, name: str) -> None:
        from docket import Docket as Engine

        self.docket = Engine(name, f"{url}?max_connections=10000")

    async def work(self) -> None:
        from docket import Worker

        async with self.docket as docket:
            docket.register(echo)
            docket.register(wait)
            options: Any = {"concurrency": CONCURRENCY, "minimum_check_interval": CHECK}
            async with Worker(docket, **options) as worker:
                await worker.run_forever()

    @asynccontextmanager
    async def calling(self) -> AsyncIterator[Caller]:
        from docket.execution import ExecutionState

        async def one(number: int) -> int:
            execution = await self.docket.add(echo)(number)
            result: int = await execution.get_result()
            return result

        async def call(count: int) -> list[int]:
            found: list[int] = await _at_most(AT_ONCE, one, count)
            return found

        async def cancel() -> Callable[[], Awaitable[None]]:
            execution = await self.docket.add(wait)()
            while execution.state is not ExecutionState.RUNNING:
                await asyncio.sleep(0.002)
                await execution.sync()
            waiter = asyncio.create_task(execution.get_result())
            await asyncio.sleep(0.05)  # it listens by then

            async def end() -> None:
                await self.docket.cancel(execution.key)
                await asyncio.wait((waiter,))

            return end

        async with self.docket:
            yield Caller(call, cancel)


class Taskiq:
    """taskiq, with taskiq-redis."""

    def __init__(self, url: str, name: str) -> None:
        from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

        backend: Any = RedisAsyncResultBackend(url, result_ex_time=60, prefix_str=name)
        # Without its timeout, since redis-py ends a worker that waits for 5 seconds.
        broker = ListQueueBroker(url, queue_name=name, socket_timeout=None)
        self.broker: Any = broker.with_result_backend(backend)

        async def run(number: int) -> int:  # taskiq gives the function that it gets another name
            return number

        self.echo = self.broker.register_task(run, task_name="echo")

    async def work(self) -> None:
        from taskiq.api import run_receiver_task

        self.broker.is_worker_process = True
        await run_receiver_task(self.broker, max_async_tasks=CONCURRENCY, run_startup=True)

    @asynccontextmanager
    async def calling(self) -> AsyncIterator[Caller]:
        async def call(count: int) -> list[int]:
            async def one(number: int) -> int:
                task = await self.echo.kiq(number)
                result = await task.wait_result(check_interval=_poll(count))
                value: int = result.return_value
                return value

            found: list[int] = await _at_most(AT_ONCE, one, count)
            return found

        await self.broker.startup()
        try:
            yield Caller(call)
        finally:
            await self.broker.shutdown()


class Streaq:
    """streaq."""

    def __init__(self, url: str, name: str) -> None:
        from streaq import Worker

        self.worker: Any = Worker(redis_url=url, queue_name=name, concurrency=CONCURRENCY)
        self.echo = self.worker.task(name="echo")(echo)
        self.wait = self.worker.task(name="wait")(wait)

    async def work(self) -> None:
        await self.worker.run_async()

    @asynccontextmanager
    async def calling(self) -> AsyncIterator[Caller]:
        async def one(number: int) -> int:
            task = await self.echo.enqueue(number)
            while True:
                try:
                    result = await task.result(5)
                except TimeoutError:  # the news may have come before it listened
                    continue
                value: int = result.result
                return value

        async def call(count: int) -> list[int]:
            found: list[int] = await _at_most(AT_ONCE, one, count)
            return found

        async with self.worker:
            yield Caller(call)


class Arq:
    """arq."""

    def __init__(self, url: str, name: str) -> None:
        self._url, self._name = url, name

    async def work(self) -> None:
        from arq.connections import RedisSettings
        from arq.worker import Worker, func

        async def run(_: Any, number: int) -> int:
            return number

        settings = RedisSettings.from_dsn(self._url)
        worker = Worker(
            [func(run, name="echo")],  # type: ignore[arg-type,unused-ignore]  # it takes such
            queue_name=self._name,
            redis_settings=settings,
            max_jobs=CONCURRENCY,
            poll_delay=0.025,
            handle_signals=False,
        )
        await worker.async_run()

    @asynccontextmanager
    async def calling(self) -> AsyncIterator[Caller]:
        from arq import create_pool
        from arq.connections import RedisSettings
        from arq.jobs import ResultNotFound

        pool = await create_pool(RedisSettings.from_dsn(self._url), default_queue_name=self._name)

        async def call(count: int) -> list[int]:
            async def one(number: int) -> int:
                job = await pool.enqueue_job("echo", number)
                assert job is not None
                while True:
                    try:
                        result: int = await job.result(poll_delay=_poll(count))
                    except ResultNotFound:  # it has ended between two of its questions
                        continue
                    return result

            found: list[int] = await _at_most(AT_ONCE, one, count)
            return found

        try:
            yield Caller(call)
        finally:
            await pool.aclose()


def _poll(count: int) -> float:
    """Return how often a result is asked for that nobody tells of."""
    return 0.002 if count <= 10 else 0.02


KINDS: dict[str, Callable[[str, str], Any]] = {
    "quattro_web": Ours,
    "docket, by hand": Docket,
    "taskiq": Taskiq,
    "streaq": Streaq,
    "arq": Arq,
}


def work(kind: str, url: str, name: str) -> None:
    """Be a worker, in a process of its own."""
    with suppress(KeyboardInterrupt):
        asyncio.run(KINDS[kind](url, name).work())
