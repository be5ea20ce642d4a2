"""The locks under test, by name, with short times."""

import os

from quattro_web import FileLock, OnceLock
from quattro_web.postgres import PostgresLock
from quattro_web.redis import RedisLock

POSTGRES = os.environ.get("QUATTRO_WEB_POSTGRES", "postgresql://postgres@127.0.0.1:5432/postgres")
REDIS = os.environ.get("QUATTRO_WEB_REDIS", "redis://127.0.0.1:6379")


def lasting(spec: str) -> OnceLock:
    """Return a lock that expires in no test, for one that holds it and does not renew it."""
    return make(spec, ttl=300)


def make(spec: str, *, ttl: float = 0.5) -> OnceLock:
    """Return a lock: ``file``, ``asyncpg``, ``psycopg`` or ``redis``, and ``=`` with its place."""
    kind, _, place = spec.partition("=")
    if kind == "file":
        return FileLock(place, poll=0.02, allowance=0.5)
    if kind == "redis":
        return RedisLock(
            place or REDIS, ttl=ttl, poll=0.02, heartbeat=0.1, timeout=0.2, allowance=0.1
        )
    return PostgresLock(
        place or POSTGRES,
        driver=kind,  # type: ignore[arg-type]
        poll=0.02,
        heartbeat=0.1,
        timeout=0.3,
        allowance=0.1,
    )
