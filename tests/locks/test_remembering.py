"""What a lock remembers for its next holder, on the real services."""

import asyncio
import contextlib
import subprocess
import sys
import time
import uuid
from collections.abc import Coroutine, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from redis import Redis

from quattro_web import LockClaim, LockLostError
from quattro_web.postgres import _MAKE
from tests.locks.kinds import lasting
from tests.support.server import PATIENCE, ROOT


@contextlib.contextmanager
def wiped(lock: str, name: str) -> Iterator[None]:
    """Remove afterwards what the service remembers of a pump."""
    try:
        yield
    finally:
        kind, _, place = lock.partition("=")
        if kind == "redis":
            with Redis.from_url(place) as client:
                for key in client.scan_iter(f"*{name}*"):
                    client.delete(key)
        elif kind != "file":
            with psycopg.connect(place, autocommit=True) as connection:
                connection.execute("DELETE FROM quattro_web_pumps WHERE pump = %s", (name,))


@pytest.fixture
def name(lock: str) -> Iterator[str]:
    """A name that no other test's pump has."""
    name = f"nightly {uuid.uuid4().hex[:8]}"
    with wiped(lock, name):
        yield name


def held(*claims: LockClaim, main: Coroutine[Any, Any, None]) -> None:
    """Run a test, and give claims back."""

    async def scene() -> None:
        try:
            await main
        finally:
            for claim in claims:
                await claim.release()

    asyncio.run(scene())


def test_next_holder_is_told(lock: str, name: str) -> None:
    """A8: A lock hands the text of one holder on to the next, the latest one, and proves
    meanwhile that it is held."""
    one, two = lasting(lock).claim(name), lasting(lock).claim(name)

    async def main() -> None:
        assert await one.acquire() is not None
        assert await one.recall() is None
        await asyncio.gather(one.remember("first"), one.prove(), one.recall(), one.prove())
        await one.remember("second")
        assert await one.recall() == "second"
        await one.release()
        assert await two.acquire() is not None
        two.settled()
        await two.prove()
        assert await two.recall() == "second"

    held(one, two, main=main())


def test_former_holder_leaves_nothing(lock: str, name: str) -> None:
    """A8: A holder that has lost its lock can't undo what the next one leaves."""
    one, two = lasting(lock).claim(name), lasting(lock).claim(name)
    kind, _, place = lock.partition("=")

    async def lose(claim: Any) -> None:
        if kind == "file":
            Path(place).unlink()
        elif kind == "redis":
            await claim._connect().delete(claim._key)
        else:
            session = lasting(lock).claim(f"other {name}")
            assert await session.acquire() is not None
            pid = await claim._session.value("SELECT pg_backend_pid()")
            await session._session.value("SELECT pg_terminate_backend($1, 5000)", pid)  # type: ignore[attr-defined]
            await session.release()

    async def main() -> None:
        assert await one.acquire() is not None
        await one.recall()
        await one.remember("old")
        await lose(one)
        assert await two.acquire() is not None
        await two.recall()
        await two.remember("new")
        with pytest.raises(LockLostError if kind in ("file", "redis") else Exception):
            await one.remember("old again")
        assert await two.recall() == "new"
        await one.release()
        if kind == "redis":
            with pytest.raises(LockLostError):
                await one.remember("after the end")

    held(one, two, main=main())


def test_table_that_another_is_making(postgres: str) -> None:
    """A8: Two pumps that need the table in PostgreSQL at the same time, for the first time, get
    it."""
    schema = f"pumps_{uuid.uuid4().hex[:8]}"
    claim: Any = lasting(f"asyncpg={postgres}").claim(schema)

    async def main() -> None:
        other = await psycopg.AsyncConnection.connect(postgres, autocommit=True)
        await other.execute(f"CREATE SCHEMA {schema}")
        try:
            assert await claim.acquire() is not None
            await claim._session.value(f"SET search_path TO {schema}")
            pid = await claim._session.value("SELECT pg_backend_pid()")
            async with other.transaction():
                await other.execute(f"SET LOCAL search_path TO {schema}")
                await other.execute(_MAKE)
                recalled = asyncio.create_task(claim.recall())
                row: Any = (0,)
                while not row[0]:
                    waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = %s"
                    row = await (await other.execute(waits, (pid,))).fetchone()
            assert await recalled is None
            await claim.remember("text")
            assert await claim.recall() == "text"
        finally:
            await claim.release()
            await other.execute(f"DROP SCHEMA {schema} CASCADE")
            await other.close()

    asyncio.run(main())


def test_holder_that_is_killed_in_the_middle(lock: str, name: str, tmp_path: Path) -> None:
    """A8: A call whose process is killed in the middle is done by the process that takes over, and
    then it is remembered."""
    claim = lasting(lock).claim(name)

    async def last_year() -> None:
        assert await claim.acquire() is not None
        claim.settled()
        await claim.recall()
        await claim.remember("2020-01-01T00:00:00+00:00")

    held(claim, main=last_year())
    log = tmp_path / "log"
    log.touch()

    def start(how: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.locks.nightly", lock, str(log), name, how]
        with (tmp_path / "output").open("ab") as output:
            return subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=output, stderr=output
            )

    def wait_for(line: str) -> None:
        until = time.monotonic() + PATIENCE
        while line not in log.read_text().splitlines():
            assert time.monotonic() < until, (tmp_path / "output").read_text()[-8000:]
            time.sleep(0.01)

    with start("hangs") as first:
        wait_for(f"{first.pid} begin")
        with start("ends") as second:
            first.kill()
            wait_for(f"{second.pid} end")
            assert second.stdin is not None
            second.stdin.close()
            second.wait(PATIENCE)
    lines = [f"{first.pid} begin", f"{second.pid} begin", f"{second.pid} end"]
    assert log.read_text().splitlines() == lines

    async def this_year() -> None:
        assert await claim.acquire() is not None
        text = await claim.recall()
        assert text is not None
        assert (datetime.now(UTC) - datetime.fromisoformat(text)).days < 1

    held(claim, main=this_year())
