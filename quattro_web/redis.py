"""A lock for the processes of several hosts, in Redis."""

from __future__ import annotations

import uuid
from typing import Any
from urllib.parse import quote

from quattro_web._locks.address import Address, cleaned, is_secret
from quattro_web._locks.base import Lease, LockClaim, LockLostError, OnceLock, this_process
from quattro_web._util.arguments import (
    checked_seconds,
    checked_text,
    required_seconds,
    without_value,
)

try:
    from redis.asyncio import ConnectionPool, Redis
    from redis.asyncio.lock import Lock
    from redis.exceptions import LockError
except ModuleNotFoundError as _exc:
    msg = "quattro_web.redis needs redis-py: pip install 'quattro-web[redis]'"
    raise ModuleNotFoundError(msg, name=_exc.name) from _exc

__all__ = ["RedisLock"]


class RedisLock(OnceLock):
    """A lock for the processes of several hosts: a Redis key that expires.

    ::

        Pump(clean_up, once=RedisLock("redis://cache"))

    The holder renews the key. If the holder dies, the key expires after *ttl* seconds by Redis's
    clock, and another process takes over within ``ttl + poll + settle + 2 * timeout`` seconds. A
    holder that can't renew the key cancels the pump early enough for its clean-up. The fencing
    token follows Redis's clock, so it grows even if Redis loses its data; a new holder then waits
    until a former one has noticed the loss.

    For ``catch_up``, the time of the pump's last run is kept in a second key, which does not
    expire. A Redis without persistence forgets it on a restart.

    A pump's lock is identified by *app* and the pump's name, in the whole database: apps that share
    a database, and have pumps of the same name, must use a different *app* each.

    Args:
        redis: The URL of Redis, or your own ``redis.asyncio.Redis``, which stays open. A blocking
            client, or one of a cluster (``RedisCluster``), is refused.
        app: A name that distinguishes this app from others that use the database.
        ttl: Seconds until the key expires unless renewed.
        poll: How many seconds waiting processes sleep between attempts.
        heartbeat: Seconds between two renewals. None means a fifth of *ttl*.
        timeout: Seconds that Redis may take to answer.
        allowance: Seconds that the pump's clean-up may take.

    Raises:
        TypeError: If *redis* is neither, *app* is not a string, or a duration is not a number.
        ValueError: If *redis* is not a Redis URL, if a duration is not positive and finite, or if
            *ttl* is too short for the other durations.

    .. versionadded:: 0.1
    """

    remembers: bool = True

    def __init__(
        self,
        redis: str | Redis,
        *,
        app: str = "",
        ttl: float = 10.0,
        poll: float = 1.0,
        heartbeat: float | None = None,
        timeout: float = 1.0,
        allowance: float = 1.0,
    ) -> None:
        self._redis = _checked(redis)
        self.app: str = checked_text("app", app)
        self.ttl: float = required_seconds("ttl", ttl)
        self.poll: float = required_seconds("poll", poll)
        self.heartbeat: float = checked_seconds("heartbeat", heartbeat) or self.ttl / 5
        self.timeout: float = required_seconds("timeout", timeout)
        self.allowance: float = required_seconds("allowance", allowance)
        self.valid_for: float = self.ttl - self.allowance
        self.settle: float = self.heartbeat + self.timeout + self.allowance
        if self.valid_for < self.heartbeat + self.timeout:
            msg = (
                f"ttl must be at least heartbeat + timeout + allowance = {self.settle:g} seconds, "
                f"so that it can be renewed in time, got {ttl!r}"
            )
            raise ValueError(msg)

    def claim(self, name: str) -> LockClaim:
        # Behind the proxy of a cluster, all keys that begin with the same {...} are on one node.
        return _RedisClaim(
            self._redis, f"quattro_web:pump:{{{quote(self.app, safe='')}:{name}}}", self.ttl
        )

    def __repr__(self) -> str:  # without the URL, which has a password
        return f"<RedisLock of {self.ttl:g} s>"


class _RedisClaim(LockClaim):
    def __init__(self, redis: str | Redis, key: str, ttl: float) -> None:
        self._given = redis
        self.address = Address(redis) if isinstance(redis, str) else Address("", _secrets_of(redis))
        self._key = key
        self._ttl = ttl
        self._client: Any = None
        self._lock: Any = None

    @cleaned
    async def acquire(self) -> Lease | None:
        client = self._connect()
        lock = Lock(client, self._key, timeout=self._ttl, blocking=False, thread_local=False)
        if not await lock.acquire(token=f"{this_process()} {uuid.uuid4().hex}"):
            return None
        self._lock = lock
        token = await client.eval(_COUNT_UP, 1, f"{self._key}:token")
        # If it were lost before the token was made, the next holder's might be the smaller one.
        await self.prove()
        return Lease(token=int(token), holder=this_process())

    @cleaned
    async def prove(self) -> None:
        if self._lock is None:
            msg = "it was released"
            raise LockLostError(msg)
        try:
            await self._lock.reacquire()
        except LockError as exc:
            msg = f"Redis says that another process holds it, or none ({exc})"
            raise LockLostError(msg) from exc

    @cleaned
    async def release(self) -> None:
        lock, self._lock = self._lock, None
        client, self._client = self._client, None
        try:
            if lock is not None:
                await lock.release()
        except LockError:
            pass  # it was lost
        finally:
            if client is not None and client is not self._given:
                await client.aclose()

    @cleaned
    async def holder(self) -> str | None:
        value = await self._connect().get(self._key)
        text = value.decode(errors="backslashreplace") if isinstance(value, bytes) else value
        return text.partition(" ")[0] if text else None

    @cleaned
    async def recall(self) -> str | None:
        value = await self._connect().get(f"{self._key}:done")
        return value.decode() if isinstance(value, bytes) else value

    @cleaned
    async def remember(self, text: str) -> None:
        token = None if self._lock is None else self._lock.local.token
        keys = (self._key, f"{self._key}:done")
        if token is None or not await self._connect().eval(_REMEMBER, 2, *keys, token, text):
            msg = "Redis says that another process holds it, or none"
            raise LockLostError(msg)

    def _connect(self) -> Any:
        if self._client is None:
            given = self._given
            self._client = Redis.from_url(given) if isinstance(given, str) else given
        return self._client


def _checked(redis: str | Redis) -> str | Redis:
    if not isinstance(redis, str | Redis):
        msg = (
            f"redis must be a URL or a redis.asyncio.Redis, got {without_value(redis)}: "
            'give it the URL of one server, such as "redis://host:6379/0"'
        )
        raise TypeError(msg)
    if isinstance(redis, str) and not _is_url(redis):
        msg = (  # it is not shown, since it may have a password
            "redis is not a Redis URL: it must be like redis://user:password@host:6379/0, with "
            "special characters in the password percent-encoded"
        )
        raise ValueError(msg)
    return redis


def _secrets_of(redis: Redis) -> list[str]:
    settings = redis.connection_pool.connection_kwargs
    return [str(value) for key, value in settings.items() if value and is_secret(key)]


def _is_url(url: str) -> bool:
    try:
        ConnectionPool.from_url(url)  # it does not connect
    except ValueError:
        return False
    return True


# The time of Redis in microseconds, or one more than the last token: greater than all before, also
# when the last one is forgotten.
_COUNT_UP = """
local time = redis.call('TIME')
local token = time[1] * 1000000 + time[2]
local last = tonumber(redis.call('GET', KEYS[1]) or '0')
if token <= last then token = last + 1 end
redis.call('SET', KEYS[1], string.format('%.0f', token))
return string.format('%.0f', token)
"""

_REMEMBER = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[2])
return 1
"""
