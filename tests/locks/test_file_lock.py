"""The lock on a file: what becomes of it when its file, or what is noted beside it, is lost."""

import asyncio
import errno
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from quattro_web import FileLock, Lease, LockClaim, LockLostError
from tests.locks.fakes import Service
from tests.locks.process import Process, play


def take(lock: FileLock) -> int:
    """Take a lock, give it back, and return its token."""

    async def main() -> int:
        claim = lock.claim("pump")
        lease = await claim.acquire()
        await claim.release()
        assert lease is not None
        assert lease.token is not None
        return lease.token

    return asyncio.run(main())


def held(lock: FileLock, then: Callable[[LockClaim, Lease], Coroutine[Any, Any, None]]) -> None:
    """Do something with a lock that is held."""

    async def main() -> None:
        claim = lock.claim("pump")
        lease = await claim.acquire()
        assert lease is not None
        try:
            await then(claim, lease)
        finally:
            await claim.release()

    asyncio.run(main())


def notes_of(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.with_name(f"{path.name}.json").read_text()))


def spoil(path: Path) -> None:
    path.with_name(f"{path.name}.json").write_text("spoilt")


def spoil_token(path: Path) -> None:
    path.with_name(f"{path.name}.json").write_text('{"token": "x", "holder": 3}')


def empty(path: Path) -> None:
    shutil.rmtree(path.parent)


@pytest.mark.parametrize("harm", [spoil, spoil_token, empty], ids=lambda harm: harm.__name__)
def test_token_grows_whatever_is_lost(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    """A7: The fencing token grows, also when the directory was emptied, as at a boot, or when what
    was noted there can't be read."""
    path = tmp_path / "locks" / "the.lock"
    lock = FileLock(path)
    tokens = [take(lock) for _ in range(3)]
    harm(path)
    tokens.append(take(lock))
    assert tokens == sorted(set(tokens))


def test_token_grows_when_the_clock_goes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A7: A clock that is set back does not set the fencing token back."""
    lock = FileLock(tmp_path / "the.lock")
    first = take(lock)
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000)
    assert take(lock) == first + 1


def test_notes_that_are_lost_are_written_again(tmp_path: Path) -> None:
    """A7: If only the notes beside the file are removed, the lock is held as before, and they are
    there again with the next proof."""
    path = tmp_path / "the.lock"

    async def then(claim: LockClaim, lease: Lease) -> None:
        path.with_name("the.lock.json").unlink()
        await claim.prove()
        assert notes_of(path)["token"] == lease.token
        assert await FileLock(path).claim("pump").holder() == lease.holder

    held(FileLock(path), then)


def test_notes_that_cannot_be_written_are_no_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A7: That the file is the one that is locked is proof enough, on a full disk too."""
    path = tmp_path / "the.lock"

    async def then(claim: LockClaim, lease: Lease) -> None:
        notes = path.with_name("the.lock.json")
        notes.unlink()
        monkeypatch.setattr(os, "fsync", full)
        await claim.prove()
        claim.settled()
        assert [each.name for each in tmp_path.iterdir()] == ["the.lock"]

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    held(FileLock(path), then)


def test_file_that_is_removed_is_a_loss(tmp_path: Path) -> None:
    """A7: A lock whose file was removed is lost."""
    path = tmp_path / "the.lock"

    async def then(claim: LockClaim, lease: Lease) -> None:
        await claim.prove()
        path.unlink()
        with pytest.raises(LockLostError, match="was removed or replaced"):
            await claim.prove()

    held(FileLock(path), then)


def lock_at(path: Path) -> FileLock:
    return FileLock(path, poll=0.5, allowance=1)  # a file that was made anew settles for 2 s


def test_first_start_settles_and_the_others_do_not(tmp_path: Path) -> None:
    """A7: Whoever has made the file waits for the end of a pump whose holder's file may have been
    removed; from then on, a free lock is taken at once."""

    async def scene(service: Service, log: list[str]) -> None:
        for name in ("one", "two"):
            process = Process(lock_at(tmp_path / "the.lock"), name, log)
            await asyncio.sleep(3)
            await process.stop()

    starts = [line.split(" with ")[0] for line in play(scene)]
    assert starts == ["2 one begins", "3 one ends", "3 two begins", "6 two ends"]


@pytest.mark.parametrize("harm", [Path.unlink, empty], ids=["file", "directory"])
def test_no_two_at_once_when_the_file_is_removed(
    tmp_path: Path, harm: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    """A7: When the file is removed under a living holder, that one ends its pump within half a
    second and its clean-up, and another begins it after that."""
    path = tmp_path / "locks" / "the.lock"

    async def scene(service: Service, log: list[str]) -> None:
        one = Process(lock_at(path), "one", log)
        one.clean_up = 0.9
        await asyncio.sleep(1.1)
        two = Process(lock_at(path), "two", log)
        await asyncio.sleep(2)
        harm(path)
        await asyncio.sleep(10)
        assert (two.states[-1].is_held, one.states[-1].is_standby) == (True, True)
        await one.stop()
        await two.stop()

    with caplog.at_level(logging.INFO):
        log = [line.split(" with ")[0] for line in play(scene)]
    assert log == ["2 one begins", "4.4 one ends", "5.1 two begins", "13.1 two ends"]
    assert "was removed or replaced" in caplog.text


def test_no_two_at_once_when_the_one_that_made_the_file_dies(tmp_path: Path) -> None:
    """A7: If the process that has made the file anew goes before it has waited, the next one waits:
    it finds the file there, but not that anybody has waited for a former holder of it."""
    path = tmp_path / "the.lock"

    async def scene(service: Service, log: list[str]) -> None:
        one = Process(lock_at(path), "one", log)
        await asyncio.sleep(3.1)
        path.unlink()
        two = Process(lock_at(path), "two", log)
        await asyncio.sleep(0.1)
        assert two.states[-1].is_settling
        await two.stop()
        three = Process(lock_at(path), "three", log)
        await asyncio.sleep(10)
        await one.stop()
        await three.stop()

    starts = [line.split(" with ")[0] for line in play(scene)]
    assert starts[:3] == ["2 one begins", "3.5 one ends", "5.2 three begins"]


def test_times_are_positive() -> None:
    """A7: A time that is none is an error where the lock is made."""
    with pytest.raises(ValueError, match="poll"):
        FileLock(poll=0)
    with pytest.raises(ValueError, match="allowance"):
        FileLock(allowance=-1)
