"""What runs as long as the app does."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

import example_app.pumps
import example_app.store
from example_app.board import Board, Update
from example_app.probe import Result, new_client
from example_app.pumps import (
    PROBES_AT_ONCE,
    broadcaster,
    lock_of,
    messenger,
    prober,
    recorder,
    tidier,
)
from example_app.settings import Settings
from example_app.state import State
from example_app.store import Store, open_store
from example_app.targets import Target
from quattro_web import FileLock, OnceLock, TaskGroup
from quattro_web.postgres import PostgresLock
from quattro_web.redis import RedisLock
from tests.example_app.support import PATIENCE, answer, result

pytestmark = pytest.mark.anyio


class Disk(Store):
    """A store that says when a batch has come, and is as slow or broken as a test wants it."""

    def __init__(self) -> None:
        self.batches: list[list[Result]] = []
        self.called = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()
        self.error: Exception | None = None

    async def save(self, results: Sequence[Result]) -> None:
        batch = list(results)
        self.called.set()
        await self.open.wait()
        if self.error:
            raise self.error
        self.batches.append(batch)


class Silent(httpx.AsyncBaseTransport):
    """A web that answers when it is let, and counts who waits."""

    def __init__(self) -> None:
        self.waiting = 0
        self.open = asyncio.Event()
        self.changed = asyncio.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.waiting += 1
        self.changed.set()
        try:
            await self.open.wait()
        finally:
            self.waiting -= 1
        return httpx.Response(200, stream=httpx.ByteStream(b""))


def new_state(*names: str, disk: Store | None = None, web: Silent | None = None) -> State:
    return State(
        settings=Settings(interval=0.001),
        client=new_client(web),
        store=disk or Disk(),
        board=Board(Target(name=name, url=f"http://{name}.test/") for name in names),
        to_record=asyncio.Queue(),
        to_show=asyncio.Queue(),
        showing=asyncio.Lock(),
        places={},
    )


@asynccontextmanager
async def pumping(pump: Callable[[State], Awaitable[None]], state: State) -> AsyncIterator[None]:
    """Run a pump as the app does: as a background task, cancelled once at the end."""

    async def run() -> None:
        await pump(state)

    async with asyncio.timeout(PATIENCE), TaskGroup() as tg:
        tg.create_background_task(run())
        yield


async def settled(*, turns: int = 20) -> None:
    """Let everything happen that can happen without time or input."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def test_the_recorder_writes_in_batches() -> None:
    """What comes in while a batch is being written is written at once, in order."""
    disk = Disk()
    state = new_state(disk=disk)
    first, *others = [result() for _ in range(5)]
    async with pumping(recorder, state):
        disk.open.clear()
        state["to_record"].put_nowait(first)
        await disk.called.wait()
        for other in others:
            state["to_record"].put_nowait(other)
        disk.open.set()
        await settled()
        assert disk.batches == [[first], others]


async def test_the_recorder_drains_its_queue_at_shutdown() -> None:
    """What is in the queue when the app ends is in the database afterwards."""
    disk = Disk()
    state = new_state(disk=disk)
    results = [result() for _ in range(5)]
    async with pumping(recorder, state):
        await settled()
        for each in results:
            state["to_record"].put_nowait(each)
    assert [each for batch in disk.batches for each in batch] == results


async def test_a_batch_that_is_interrupted_is_not_lost() -> None:
    """The batch that was being written when the app ended is written after all."""
    disk = Disk()
    state = new_state(disk=disk)
    first, second, third = (result() for _ in range(3))
    async with pumping(recorder, state):
        disk.open.clear()
        state["to_record"].put_nowait(first)
        await disk.called.wait()
        state["to_record"].put_nowait(second)
        asyncio.get_running_loop().call_later(0.01, disk.open.set)
        asyncio.get_running_loop().call_later(0.005, state["to_record"].put_nowait, third)
    assert [each for batch in disk.batches for each in batch] == [first, second, third]


async def test_a_broken_disk_is_not_ignored() -> None:
    """When results can't be written the recorder fails, and so ends the app."""
    disk = Disk()
    disk.error = OSError("disk full")
    state = new_state(disk=disk)
    state["to_record"].put_nowait(result())
    with pytest.raises(ExceptionGroup) as caught:
        async with pumping(recorder, state):
            await asyncio.Event().wait()
    assert caught.value.exceptions == (disk.error,)


async def test_the_prober_is_bounded() -> None:
    """Of many targets only a few are probed at once, and in the end all of them."""
    web = Silent()
    state = new_state(*(f"t{n}" for n in range(25)), web=web)
    most = 0
    async with pumping(prober, state):
        await web.changed.wait()
        await settled()
        most = web.waiting
        web.open.set()
        seen = {(await state["to_record"].get()).target for _ in range(25)}
    assert most == PROBES_AT_ONCE
    assert seen == set(state["board"].targets)


async def test_the_prober_goes_round() -> None:
    """A target is probed again and again; every result is both recorded and shown."""
    web = Silent()
    web.open.set()
    state = new_state("a", web=web)
    async with pumping(prober, state):
        for _ in range(3):
            assert await state["to_record"].get() == await state["to_show"].get()


async def test_the_prober_rests_when_the_board_is_closed() -> None:
    """A server that is going down does not find itself down."""
    web = Silent()
    state = new_state("a", web=web)
    state["board"].close()
    async with pumping(prober, state):
        await asyncio.sleep(0.01)  # several rounds: there is no event for what must not happen
    assert not web.changed.is_set()


async def test_no_probe_survives_the_prober() -> None:
    """When the app ends, probes that wait for an answer are cancelled, and report nothing."""
    web = Silent()
    state = new_state("a", "b", web=web)
    async with pumping(prober, state):
        await web.changed.wait()
        await settled()
        assert web.waiting == 2
    assert web.waiting == 0
    assert state["to_record"].empty()


async def test_the_broadcaster_shows_every_result() -> None:
    """What comes in reaches the subscribers, in order."""
    state = new_state("a")
    results = [result() for _ in range(3)]
    with state["board"].subscribe() as subscription:
        async with pumping(broadcaster, state):
            for each in results:
                state["to_show"].put_nowait(each)
            await subscription.next()
            updates = [await subscription.next() for _ in results]
    assert [each.result for each in updates if isinstance(each, Update)] == results


async def test_the_messenger_sends_until_it_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change that is refused is sent again, as the same one, and after it was taken never."""
    clock = itertools.count(1000)
    monkeypatch.setattr(example_app.store, "time", SimpleNamespace(time=lambda: next(clock)))
    monkeypatch.setattr(example_app.pumps, "time", SimpleNamespace(time=lambda: 1000.0))
    monkeypatch.setattr(example_app.pumps, "SEND_EVERY", 0)
    answers, sent = [503, 500, 204], []
    taken = asyncio.Event()

    def handle(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers["Webhook-Id"])
        if len(sent) == len(answers):
            taken.set()
        return answer(answers[len(sent) - 1])

    target = Target(name="a", url="http://a.test/", failures=1)
    async with open_store(tmp_path / "x.db", 1, [target], announce=True) as store:
        state = new_state(disk=store)
        state["client"] = new_client(httpx.MockTransport(handle))
        state["settings"] = Settings(webhook="http://hook.test/")
        await store.save([result(state="down")])
        [change] = await store.due_changes()
        async with pumping(messenger, state):
            await taken.wait()
            while await store.due_changes():  # it is forgotten a moment after it was taken
                await asyncio.sleep(0)
        assert sent == [change.id] * 3
        next_year = itertools.count(10**9)
        monkeypatch.setattr(
            example_app.store, "time", SimpleNamespace(time=lambda: next(next_year))
        )
        assert await store.due_changes() == []


async def test_the_tidier_deletes_what_is_too_old(tmp_path: Path) -> None:
    """One turn of it leaves what is to be kept."""
    kept = result(at=time.time())
    async with open_store(tmp_path / "x.db", keep_days=1) as store:
        await store.save([result(at=1.0), kept])
        await tidier(new_state(disk=store))
        assert await store.history("a", 9) == [kept]


@pytest.mark.parametrize(
    ("address", "kind"),
    [("", FileLock), ("postgresql://base/board", PostgresLock), ("redis://cache", RedisLock)],
)
def test_where_the_lock_is(address: str, kind: type[OnceLock]) -> None:
    """A7: The address decides where the lock of the process that probes is."""
    assert isinstance(lock_of(Settings(lock=address), "prober"), kind)


def test_an_address_that_is_none() -> None:
    """An address of a lock that can't be meant is an error at once."""
    with pytest.raises(ValueError, match="not a Redis URL"):
        lock_of(Settings(lock="elsewhere://cache"), "prober")
