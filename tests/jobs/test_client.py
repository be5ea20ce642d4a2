"""The calls of a process, on an engine that answers as a test wants."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
from contextlib import asynccontextmanager
from itertools import chain
from typing import Any

from quattro_web._jobs.client import ANY_WORKER, JobsClient
from quattro_web._jobs.engine import CallState, News, Renewal, Submission
from tests.jobs.functions import until


class ScriptedEngine:
    """An engine without a worker, which fails where it is told to, and notes what it is asked."""

    is_local = False

    def __init__(self) -> None:
        self.submitted: list[list[str]] = []
        self.cancels: list[list[str]] = []
        self.failures = 0
        self.news: asyncio.Queue[News] = asyncio.Queue()
        self.cancelled_keys: set[str] = set()

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Any]:
        yield self

    @asynccontextmanager
    async def watch(self, _: str) -> AsyncIterator[Any]:
        yield self

    async def follow(self, keys: Sequence[str]) -> None: ...

    async def next(self) -> Sequence[News]:
        return [await self.news.get()]

    async def renew(
        self,
        names: Collection[str],
        seconds: float,
        others: Collection[str],
        *,
        since: float | None = None,
        within: float = math.inf,
    ) -> Renewal:
        return Renewal(frozenset({ANY_WORKER, *others}), asyncio.get_running_loop().time())

    async def submit(self, calls: Sequence[Submission]) -> Sequence[Exception | None]:
        self.submitted.append([call.key for call in calls])
        return [None] * len(calls)

    async def look(self, keys: Sequence[str]) -> Sequence[News]:
        return [News(key, CallState.RUNNING) for key in keys]

    async def cancelled(self, keys: Sequence[str]) -> Sequence[bool]:
        return [key in self.cancelled_keys for key in keys]

    async def cancel(self, keys: Sequence[str]) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionError
        self.cancels.append([*keys])

    def tell(self, key: str, state: CallState, outcome: bytes | None = None) -> None:
        self.news.put_nowait(News(key, state, "a worker", outcome))


Scene = Callable[[JobsClient, ScriptedEngine], Coroutine[Any, Any, None]]


def play(scene: Scene) -> None:
    """Play a scene with a client whose lease is renewed once."""

    async def main() -> None:
        engine = ScriptedEngine()
        client = JobsClient(engine, lease=3000.0, clean_up=30.0, timeout=10.0)
        async with client.open():
            assert await client.wait_up(60.0)
            await scene(client, engine)

    asyncio.run(main())


def call(client: JobsClient, size: int = 2) -> asyncio.Task[bytes]:
    coro = client.call("a job", bytes(size), is_idempotent=True, time_left=None)
    return asyncio.create_task(coro)


async def begun(client: JobsClient, engine: ScriptedEngine) -> tuple[asyncio.Task[bytes], str]:
    """Begin a call; return its task, and its key."""
    task = call(client)
    await until(lambda: bool(engine.submitted))
    ((key,),) = engine.submitted
    return task, key


def test_cancellation_that_was_not_sent_is_sent_later() -> None:
    """D2: A cancellation that the engine did not take is tried again as long as the lease is held,
    also when nobody knows any more whether it is."""

    async def scene(client: JobsClient, engine: ScriptedEngine) -> None:
        client._timeout = 0.1  # of which a fifth is waited for
        task, key = await begun(client, engine)
        engine.failures = 2
        client._proved_until = 0.0
        task.cancel()
        await until(lambda: engine.cancels == [[key]])
        engine.tell(key, CallState.ENDED)
        await asyncio.wait((task,))
        assert task.cancelled()

    play(scene)


def test_call_that_is_handed_back_is_cancelled_again() -> None:
    """D1: A cancelled call that its worker hands back at that moment is cancelled once more, unless
    it is cancelled already."""

    async def scene(client: JobsClient, engine: ScriptedEngine) -> None:
        task, key = await begun(client, engine)
        engine.tell(key, CallState.RUNNING)
        task.cancel()
        await until(lambda: engine.cancels == [[key]])
        engine.tell(key, CallState.WAITING)
        await until(lambda: engine.cancels == [[key]] * 2)
        engine.cancelled_keys.add(key)
        engine.tell(key, CallState.WAITING)
        await until(lambda: not client._unsure)
        engine.tell(key, CallState.ENDED)
        await asyncio.wait((task,))
        assert engine.cancels == [[key]] * 2

    play(scene)


def test_large_calls_go_one_after_the_other() -> None:
    """D3: Large arguments go in submissions of their own: each has the time of one."""

    async def scene(client: JobsClient, engine: ScriptedEngine) -> None:
        tasks = [call(client, size) for size in (3_000_000, 3_000_000, 5_000_000, 2, 2)]
        await until(lambda: sum(map(len, engine.submitted)) == len(tasks))
        assert [*map(len, engine.submitted)] == [2, 1, 2]
        for task in tasks:
            task.cancel()
        for key in chain.from_iterable(engine.submitted):
            engine.tell(key, CallState.ENDED)
        await asyncio.wait(tasks)

    play(scene)
