"""A lock for the processes of several hosts, in PostgreSQL."""

from __future__ import annotations

import hashlib
from typing import Literal

from quattro_web._locks.base import Lease, LockClaim, LockLostError, OnceLock, this_process
from quattro_web._locks.postgres_session import PostgresSession, session_class
from quattro_web._util.arguments import checked_text, required_seconds

__all__ = ["PostgresLock"]

Driver = Literal["asyncpg", "psycopg"]


class PostgresLock(OnceLock):
    """A lock for the processes of several hosts: a session-level advisory lock in PostgreSQL.

    ::

        Pump(clean_up, once=PostgresLock("postgresql://app@db/app"))

    The session has its own connection, and PostgreSQL releases the lock when the connection ends.
    If the holder dies, another process takes over within ``poll + settle + 2 * timeout`` seconds;
    if the holder's host vanishes, PostgreSQL needs 10 more seconds to notice. The fencing token is
    a transaction id.

    For ``catch_up``, the time of the pump's last run is kept in the table ``quattro_web_pumps``,
    which is created if it is missing. Without ``catch_up`` there is no table.

    A pump's lock is identified by *app* and the pump's name, in the whole database: apps that share
    a database, and have pumps of the same name, must use a different *app* each.

    Don't connect through a pooler that switches connections between transactions (as PgBouncer
    may): it can't keep such a lock. Connect to PostgreSQL directly.

    Args:
        dsn: The URL of the database. The driver takes whatever is missing from its environment
            variables, such as ``PGHOST``; an empty URL takes everything from there.
        app: A name that distinguishes this app from others that use the database.
        driver: ``"asyncpg"`` or ``"psycopg"`` (version 3). None means whichever is installed.
        poll: How many seconds waiting processes sleep between attempts.
        heartbeat: Seconds between two proofs that the lock is held.
        timeout: Seconds that PostgreSQL may take to answer.
        allowance: Seconds that the pump's clean-up may take.

    Raises:
        ModuleNotFoundError: If neither driver is installed.
        TypeError: If *dsn* or *app* is not a string, or a duration is not a number.
        ValueError: If *dsn* is invalid, if the driver is unknown, or if a duration is not positive
            and finite.

    .. versionadded:: 0.1
    """

    remembers: bool = True

    def __init__(
        self,
        dsn: str,
        *,
        app: str = "",
        driver: Driver | None = None,
        poll: float = 1.0,
        heartbeat: float = 1.0,
        timeout: float = 1.0,
        allowance: float = 1.0,
    ) -> None:
        self._session = session_class(driver)
        self._session.check(dsn)
        self._dsn = dsn
        self.app: str = checked_text("app", app)
        self.poll: float = required_seconds("poll", poll)
        self.heartbeat: float = required_seconds("heartbeat", heartbeat)
        self.timeout: float = required_seconds("timeout", timeout)
        self.allowance: float = required_seconds("allowance", allowance)
        # A connection is lost with the first proof that fails: nothing is asked twice.
        self.valid_for: float = self.heartbeat + self.timeout
        self.settle: float = self.valid_for + self.allowance

    def claim(self, name: str) -> LockClaim:
        return _PostgresClaim(self._session(self._dsn), self.app, name)

    def __repr__(self) -> str:  # without the DSN, which has a password
        return f"<PostgresLock with {self._session.driver}>"


class _PostgresClaim(LockClaim):
    def __init__(self, session: PostgresSession, app: str, name: str) -> None:
        self._session = session
        self._app = app
        self._name = name
        digest = hashlib.sha256(f"quattro_web {app}\0{name}".encode()).digest()
        self._key = int.from_bytes(digest[:8], signed=True)

    async def acquire(self) -> Lease | None:
        session = self._session
        if not session.is_open:
            await session.open(_session_name())
        if not await session.value("SELECT pg_try_advisory_lock($1)", self._key):
            return None
        # Of two transactions, the one that comes later has the greater id, also after a restart.
        token = await session.value("SELECT txid_current()")
        return Lease(token=int(token), holder=this_process())

    async def prove(self) -> None:
        try:
            found = await self._session.value(_HELD, *_halves(self._key))
        except Exception as exc:
            # Whatever it was: with the connection, the server has freed the lock.
            msg = f"its connection does not answer ({type(exc).__name__}: {exc})"
            raise LockLostError(msg) from exc
        if not found:
            msg = "PostgreSQL says that another session holds it, or none"
            raise LockLostError(msg)

    async def release(self) -> None:
        await self._session.close()  # which frees it, in any state

    async def holder(self) -> str | None:
        name = await self._session.value(_HOLDER, *_halves(self._key))
        return str(name).removeprefix("quattro-web ") if name else None

    async def recall(self) -> str | None:
        # Who may not make tables may use one that is there.
        if not await self._session.value(_IS_THERE):
            await self._session.value(_MAKE)
        text = await self._session.value(_RECALL, self._app, self._name)
        return None if text is None else str(text)

    async def remember(self, text: str) -> None:
        # While its session lives, the lock is held: no later holder can have written before.
        await self._session.value(_REMEMBER, self._app, self._name, text)


def _session_name() -> str:
    """Return a name of as many characters as one has: of a longer host, its number is kept."""
    host, _, pid = this_process().rpartition(":")
    name, most = "quattro-web ", 63
    return f"{name}{host[: most - len(name) - len(pid) - 1]}:{pid}"


def _halves(key: int) -> tuple[int, int]:
    """Return the key as ``pg_locks`` shows it: two unsigned numbers of 32 bits."""
    return (key >> 32) & 0xFFFFFFFF, key & 0xFFFFFFFF


_LOCKS = """FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND objsubid = 1
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND classid::bigint = $1 AND objid::bigint = $2"""

_HELD = f"SELECT count(*) {_LOCKS} AND pid = pg_backend_pid()"

_HOLDER = f"""SELECT coalesce(nullif(application_name, ''), 'backend ' || pid) FROM pg_stat_activity
    WHERE pid = (SELECT pid {_LOCKS} LIMIT 1)"""  # noqa: S608  # of constants

_IS_THERE = "SELECT to_regclass('quattro_web_pumps') IS NOT NULL"

# One at a time: two that make a table at once are an error for one of them, IF NOT EXISTS or not.
_MAKE = """DO $$ BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('quattro_web_pumps'));
    CREATE TABLE IF NOT EXISTS quattro_web_pumps
        (app text, pump text, done text NOT NULL, PRIMARY KEY (app, pump));
END $$"""

_RECALL = "SELECT done FROM quattro_web_pumps WHERE app = $1 AND pump = $2"

_REMEMBER = """INSERT INTO quattro_web_pumps (app, pump, done) VALUES ($1, $2, $3)
    ON CONFLICT (app, pump) DO UPDATE SET done = excluded.done"""
