"""What the board remembers."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from example_app.availability import Checks
from example_app.store import (
    BoardFullError,
    TargetExistsError,
    UnknownTargetError,
    open_store,
)
from example_app.targets import MAX_TARGETS, Target
from tests.example_app.support import PATIENCE, result

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
        await store.save([result(at=now - 90_000), fresh])
        await store.tidy()
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
    """Targets that another process has added count, and those that the file lists."""
    path = tmp_path / "x.db"
    listed = [Target(name=f"listed {n}", url="http://b.test/") for n in range(MAX_TARGETS - 1)]
    async with open_store(path, 1, listed) as store, open_store(path, 1, listed) as other:
        await store.add_target(Target(name="a", url="http://a.test/"))
        with pytest.raises(BoardFullError):
            await other.add_target(Target(name="b", url="http://b.test/"))
        with pytest.raises(TargetExistsError):
            await other.add_target(Target(name="listed 1", url="http://b.test/"))
        assert await other.targets() == [*listed, Target(name="a", url="http://a.test/")]


async def test_other_processes_go_on(tmp_path: Path) -> None:
    """A name that two processes add at once leaves no transaction open: both can write after it."""
    target, kept = Target(name="a", url="http://a.test/"), result(at=time.time())
    path = tmp_path / "x.db"
    async with open_store(path, 1) as store, open_store(path, 1) as other:
        await store.add_target(target)
        with pytest.raises(TargetExistsError):
            await other.add_target(target)
        async with asyncio.timeout(PATIENCE):
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
            async with asyncio.timeout(PATIENCE):
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


A = Target(name="a", url="http://a.test/")
B = Target(name="b", url="http://b.test/")


async def test_a_change_outlives_the_board(tmp_path: Path) -> None:
    """What was changed is so when the database is opened again, whether the file lists it or not,
    and in its place."""
    changed = [Target(name=name, url="http://new.test/", paused=True) for name in "ab"]
    async with open_store(tmp_path / "x.db", 1, [A]) as store:
        await store.add_target(B)
        for target in reversed(changed):
            await store.change_target(target)
        with pytest.raises(UnknownTargetError):
            await store.change_target(Target(name="c", url="http://c.test/"))
    async with open_store(tmp_path / "x.db", 1, [A]) as store:
        assert await store.targets() == changed


async def test_what_is_deleted_stays_away(tmp_path: Path) -> None:
    """A target that the file lists does not come back by itself, but may be added again."""
    async with open_store(tmp_path / "x.db", 1, [A]) as store:
        await store.add_target(B)
        now = time.time()
        await store.save([result("a", at=now), result("b", at=now), result("c", at=now)])
        for name in "ab":
            await store.delete_target(name)
            assert await store.history(name, 9) == []
        with pytest.raises(UnknownTargetError):
            await store.delete_target("a")
    async with open_store(tmp_path / "x.db", 1, [A]) as store:
        assert await store.targets() == []
        await store.add_target(A)
        assert await store.targets() == [A]


async def test_no_number_comes_again(tmp_path: Path) -> None:
    """Processes miss no result when a target is deleted whose results were the last ones."""
    kept = result("b", at=time.time())
    async with open_store(tmp_path / "x.db", 1, [A, B]) as store:
        await store.save([result("a", at=time.time()) for _ in range(3)])
        seen = await store.last_number()
        await store.delete_target("a")
        await store.save([kept])
        assert await store.since(seen) == (seen + 1, [kept])


async def test_an_older_database_is_opened(tmp_path: Path) -> None:
    """The targets and results of a board that knew less are there, and can be changed."""
    kept = result(at=time.time())
    with closing(sqlite3.connect(tmp_path / "x.db")) as old, old:
        old.execute("CREATE TABLE target (name TEXT PRIMARY KEY, json TEXT NOT NULL)")
        old.execute(
            "CREATE TABLE result (id TEXT PRIMARY KEY, target TEXT NOT NULL, at REAL NOT NULL,"
            " state TEXT NOT NULL, seconds REAL NOT NULL, status INTEGER, error TEXT NOT NULL)"
        )
        json = '{"name":"a","url":"http://a.test/","timeout":5.0,"slow_after":1.0}'
        old.execute("INSERT INTO target VALUES ('a', ?)", (json,))
        old.execute(
            "INSERT INTO result VALUES (:id, :target, :at, :state, :seconds, :status, :error)",
            kept.model_dump(),
        )
    for _ in range(2):
        async with open_store(tmp_path / "x.db", 1) as store:
            assert await store.targets() == [A]
            assert await store.history("a", 9) == [kept]
            assert await store.hours("a") == {int(kept.at // 3600): Checks(checks=1, good=1)}
    async with open_store(tmp_path / "x.db", 1) as store:
        await store.delete_target("a")
        assert await store.targets() == []


async def test_no_number_comes_again_after_tidying(tmp_path: Path) -> None:
    """Nor do processes miss one when all that they have seen was too old."""
    kept = result(at=time.time())
    async with open_store(tmp_path / "x.db", 1) as store:
        await store.save([result(at=1.0) for _ in range(3)])
        seen = await store.last_number()
        await store.tidy()
        assert len(await store.history("a", 9)) == 1
        await store.save([kept])
        assert await store.since(seen) == (seen + 1, [kept])
        assert await store.since(seen + 1) == (seen + 1, [])
