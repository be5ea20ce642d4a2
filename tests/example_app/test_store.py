"""What the board remembers."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from example_app.store import BoardFullError, TargetExistsError, open_store
from example_app.targets import MAX_TARGETS, Target
from tests.example_app.support import result

pytestmark = pytest.mark.anyio


async def test_the_newest_results_come_first(tmp_path: Path) -> None:
    """The history of a target is its own, the newest first, and no longer than was asked for."""
    now = time.time()
    old, new, newest = (result(at=now + n) for n in range(3))
    async with open_store(tmp_path / "x.db", 1) as store:
        await store.save([new, newest, old, result("b", at=now)])
        assert await store.history("a", limit=2) == [newest, new]


async def test_results_outlive_the_board(tmp_path: Path) -> None:
    """A result that was saved is there when the database is opened again."""
    kept = result(at=time.time(), state="down", status=None, error="refused")
    async with open_store(tmp_path / "x.db", 1) as store:
        await store.save([kept])
    async with open_store(tmp_path / "x.db", 1) as store:
        assert await store.history("a", limit=9) == [kept]


async def test_saving_twice_is_saving_once(tmp_path: Path) -> None:
    """A result is recorded once, however often it is saved."""
    once = result(at=time.time())
    async with open_store(tmp_path / "x.db", 1) as store:
        await store.save([once])
        await store.save([once, once])
        await store.save([])
        assert await store.history("a", limit=9) == [once]


async def test_old_results_are_deleted(tmp_path: Path) -> None:
    """The database does not grow for ever: results older than `keep_days` are deleted."""
    now = time.time()
    fresh = result(at=now - 80_000)
    async with open_store(tmp_path / "x.db", keep_days=1) as store:
        await store.save([fresh, result(at=now - 90_000)])
        assert await store.history("a", limit=9) == [fresh]


async def test_targets_are_kept_in_order(tmp_path: Path) -> None:
    """Targets that were added are there when the database is opened again, as they were."""
    targets = [Target(name=name, url="http://a.test/", timeout=3) for name in "zab"]
    async with open_store(tmp_path / "x.db", 1) as store:
        for target in targets:
            await store.add_target(target)
    async with open_store(tmp_path / "x.db", 1) as store:
        assert await store.targets() == targets


async def test_a_name_is_taken_once(tmp_path: Path) -> None:
    """A second target of the same name is refused, and the first one stays as it is."""
    first = Target(name="a", url="http://a.test/")
    async with open_store(tmp_path / "x.db", 1) as store:
        await store.add_target(first)
        with pytest.raises(TargetExistsError):
            await store.add_target(Target(name="a", url="http://b.test/"))
        assert await store.targets() == [first]


async def test_a_board_is_full_for_all_processes(tmp_path: Path) -> None:
    """Targets that another process has added count, and those that are nowhere stored."""
    path, listed = tmp_path / "x.db", {f"listed {n}" for n in range(MAX_TARGETS - 1)}
    async with open_store(path, 1) as store, open_store(path, 1) as other:
        await store.add_target(Target(name="a", url="http://a.test/"), listed)
        with pytest.raises(BoardFullError):
            await other.add_target(Target(name="b", url="http://b.test/"), listed)
        with pytest.raises(TargetExistsError):
            await other.add_target(Target(name="listed 1", url="http://b.test/"), listed)
        assert [target.name for target in await other.targets()] == ["a"]


async def test_other_processes_go_on(tmp_path: Path) -> None:
    """A name that two processes add at once leaves no transaction open: both can write after it."""
    target, kept = Target(name="a", url="http://a.test/"), result(at=time.time())
    path = tmp_path / "x.db"
    async with open_store(path, 1) as store, open_store(path, 1) as other:
        await store.add_target(target)
        with pytest.raises(TargetExistsError):
            await other.add_target(target)
        async with asyncio.timeout(5):
            await store.save([kept])
        assert await other.history("a", limit=9) == [kept]


async def test_cancellation_leaves_no_transaction(tmp_path: Path) -> None:
    """Whoever is cancelled while it writes keeps nobody from writing."""
    path = tmp_path / "x.db"
    async with open_store(path, 1) as store, open_store(path, 1) as other:
        for steps in range(6):
            task = asyncio.create_task(store.save([result(at=time.time())]))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait((task,))
            async with asyncio.timeout(5):
                await other.save([result(at=time.time())])


async def test_tasks_do_not_share_a_transaction(tmp_path: Path) -> None:
    """A name that is taken takes nothing with it that another task of the process has written."""
    target, kept = Target(name="a", url="http://a.test/"), result(at=time.time())
    async with open_store(tmp_path / "x.db", 1) as store:
        await store.add_target(target)
        saving = asyncio.create_task(store.save([kept]))
        with pytest.raises(TargetExistsError):
            await store.add_target(target)
        await saving
        assert await store.history("a", limit=9) == [kept]
