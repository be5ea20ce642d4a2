"""What a lock is made of, and what it is not."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from quattro_web import FileLock, OnceLock
from quattro_web.postgres import PostgresLock
from quattro_web.redis import RedisLock

LOCKS: dict[str, Callable[..., OnceLock]] = {
    "file": FileLock,
    "postgres": partial(PostgresLock, "postgresql://shop@db/shop"),
    "redis": partial(RedisLock, "redis://cache"),
}
TIMES = [
    *[("file", name) for name in ("poll", "allowance")],
    *[("postgres", name) for name in ("poll", "heartbeat", "timeout", "allowance")],
    *[("redis", name) for name in ("poll", "ttl", "timeout", "allowance")],
]


@pytest.mark.parametrize(("lock", "name"), TIMES)
@pytest.mark.parametrize("value", [None, "1", True])
def test_time_that_is_no_number(lock: str, name: str, value: Any) -> None:
    """A7: A lock that would be asked for without a pause, or never, is an error by name."""
    message = f"{name} must be a number of seconds, got {value!r}"
    with pytest.raises(TypeError, match=re.escape(message)):
        LOCKS[lock](**{name: value})


@pytest.mark.parametrize(("lock", "name"), TIMES)
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_time_that_is_none(lock: str, name: str, value: float) -> None:
    """A7: A time that is not positive is an error by name, and None is not offered."""
    message = f"{name} must be a positive number of seconds, got {value!r}"
    with pytest.raises(ValueError, match=re.escape(message)):
        LOCKS[lock](**{name: value})


def test_heartbeat_of_redis_is_optional() -> None:
    """A7: A lock in Redis is renewed five times before it ends, or as often as is said."""
    assert [RedisLock("redis://cache", heartbeat=value).heartbeat for value in (None, 1)] == [2, 1]
    with pytest.raises(TypeError, match="heartbeat must be a number of seconds or None, got '1'"):
        RedisLock("redis://cache", heartbeat="1")  # type: ignore[arg-type]


@pytest.mark.parametrize("lock", LOCKS)
def test_app_that_is_no_string(lock: str) -> None:
    """A7: Apps that had all forgotten their name would share their locks: None is no name."""
    with pytest.raises(TypeError, match="app must be a str, got None"):
        LOCKS[lock](app=None)
