"""Which locks are the same, and which addresses of a service are none."""

import asyncio
import functools
import re
import uuid
from typing import Any

import pytest
import redis
import redis.asyncio

from quattro_web import FileLock, OnceLock, Pump, Pumps
from quattro_web.postgres import PostgresLock
from quattro_web.redis import RedisLock

pump = functools.partial(asyncio.sleep, 3600)


def locks_in(kind: str, url: str, app: str) -> OnceLock:
    if kind == "redis":
        return RedisLock(url, app=app)
    return PostgresLock(url, app=app, driver=kind)  # type: ignore[arg-type]


@pytest.fixture(params=["asyncpg", "psycopg", "redis"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize(
    ("apps", "names", "are_free"),
    [
        (("", ""), ("a", "a"), [True, False]),
        (("", ""), ("a", "b"), [True, True]),
        (("one", "two"), ("a", "a"), [True, True]),
        (("one:a", "one"), ("b", "a:b"), [True, True]),
        (("one", "one"), ("a", "a"), [True, False]),
    ],
)
def test_apps_that_share_a_database(
    request: pytest.FixtureRequest,
    kind: str,
    apps: tuple[str, str],
    names: tuple[str, str],
    are_free: list[bool],
) -> None:
    """A7: Locks in one database are the same if the pump's name and `app` are."""
    url = request.getfixturevalue("redis" if kind == "redis" else "postgres")
    test = uuid.uuid4().hex

    async def main() -> None:
        claims = [
            locks_in(kind, url, app and f"{test}{app}").claim(f"{name}" if app else name + test)
            for app, name in zip(apps, names, strict=True)
        ]
        try:
            leases = [await claim.acquire() for claim in claims]
            assert [lease is not None for lease in leases] == are_free
        finally:
            for claim in claims:
                await claim.release()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("driver", "dsn"),
    [
        ("asyncpg", "nonsense"),
        ("asyncpg", "postgresql+asyncpg://me:secret@host/db"),
        ("asyncpg", "host=secret"),
        ("asyncpg", "postgresql://me:my/secret@host/db"),
        ("asyncpg", "postgresql://me:my#secret@host/db"),
        ("asyncpg", "postgresql://me:secret"),
        ("psycopg", "postgresql://me:my/secret@host/db"),
        ("psycopg", "postgresql://me:secret"),
        ("psycopg", "nonsense"),
        ("psycopg", "postgresql+psycopg://me:secret@host/db"),
        ("psycopg", "postgresql://me:my secret@host/db"),
        ("psycopg", "postgresql://host/db?secret=1"),
    ],
)
def test_dsn_that_is_none(driver: Any, dsn: str) -> None:
    """A7: What can't be a DSN is an error where the lock is made, which shows no password."""
    with pytest.raises(ValueError, match=f"dsn is not a URL that {driver} understands") as caught:
        PostgresLock(dsn, driver=driver)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("driver", "dsn"),
    [
        ("asyncpg", "postgres://me@one:1,two:2/db?target_session_attrs=primary"),
        ("psycopg", "postgresql://me@one:1,two:2/db"),
        ("psycopg", "host=here dbname=db"),
        ("asyncpg", ""),
        ("psycopg", ""),
    ],
)
def test_dsn_that_is_one(driver: Any, dsn: str) -> None:
    """A7: Whatever the driver takes is a DSN; the empty one goes by the environment."""
    assert driver in repr(PostgresLock(dsn, driver=driver))


@pytest.mark.parametrize("url", ["nonsense", "http://host", "redis://:my/secret@host", ""])
def test_url_that_is_none(url: str) -> None:
    """A7: What can't be a URL of Redis is an error where the lock is made."""
    with pytest.raises(ValueError, match="redis is not a Redis URL") as caught:
        RedisLock(url)
    assert "secret" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "client",
    [redis.Redis(host="cache"), redis.asyncio.RedisCluster(host="cache"), b"redis://cache"],
)
def test_client_that_holds_no_lock(client: Any) -> None:
    """A7: A client that blocks, or is one of a cluster, is an error that says what is taken."""
    kind = type(client).__name__
    message = f"redis must be a URL or a redis.asyncio.Redis, got a value of type {kind}: give it"
    with pytest.raises(TypeError, match=re.escape(message)):
        RedisLock(client)
    assert RedisLock(redis.asyncio.Redis(host="cache")).app == ""


@pytest.mark.parametrize("lock", [PostgresLock, RedisLock])
def test_address_that_was_not_configured(lock: Any) -> None:
    """A7: None, as a variable of the environment that is not set gives it, is an error as well."""
    with pytest.raises(TypeError, match=r"must be .* got None"):
        lock(None)


@pytest.mark.parametrize("lock", [PostgresLock, RedisLock])
def test_address_of_another_type(lock: Any) -> None:
    """O3: What is no string may be an address all the same, and is not shown."""
    with pytest.raises(TypeError, match="got a value of type bytes") as caught:
        lock(b"redis://:secret@host")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("second", ["the.lock", "./x/../the.lock"])
def test_two_pumps_with_one_file(tmp_path: Any, monkeypatch: Any, second: str) -> None:
    """A7: Two pumps of an app that have one file are an error, as one of them would never run."""
    monkeypatch.chdir(tmp_path)
    pumps = Pumps([Pump(pump, name="one", once=FileLock(tmp_path / "the.lock"))])
    pumps.add(Pump(pump, name="another", once=FileLock("another.lock")))
    pumps.add(Pump(pump, name="a third", once=FileLock()))
    with pytest.raises(ValueError, match=r"'one' and 'two' have one lock, <FileLock .*the\.lock>"):
        pumps.add(Pump(pump, name="two", once=FileLock(second)))
