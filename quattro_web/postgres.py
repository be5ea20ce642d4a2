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
    """A lock for the processes of several hosts: an advisory lock of a session of PostgreSQL.

    ::

        Pump(clean_up, once=PostgresLock("postgresql://app@db/app"))

    The session has a connection that nothing else uses, and no tables. The server
    frees the lock when the connection ends. If its holder dies, another takes over within
    ``poll + settle + 2 * timeout`` seconds; if the holder's host vanishes, when the server has
    missed it for 10 more seconds. The fencing token is the id of a transaction.

    The lock of a pump is known by *app* and the name of the pump, in the whole database: apps that
    share one, and have pumps of one name, must tell each other apart by *app*.

    A pooler that changes connections between transactions (PgBouncer, by default) can't keep such a
    lock: connect to the server itself.

    Args:
        dsn: Where the database is, as a URL. What it leaves out the driver takes from its
            environment, ``PGHOST`` and the like; of an empty one, that is all.
        app: A name, to tell this app from others that use the database.
        driver: ``"asyncpg"`` or ``"psycopg"`` (3). None means the one that is installed.
        poll: After how many seconds those that wait try again.
        heartbeat: Seconds between two proofs that the lock is held.
        timeout: Seconds that the server may take for an answer.
        allowance: Seconds that the clean-up of the pump may take.

    Raises:
        ModuleNotFoundError: If neither of the drivers is installed.
        TypeError: If *dsn* or *app* is no string, or one of the times no number.
        ValueError: If *dsn* is nothing that the driver can connect to, if the driver has another
            name, or if one of the times is not positive and finite.

    .. versionadded:: 0.1
    """

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
        digest = hashlib.sha256(f"quattro_web {app}\0{name}".encode()).digest()
        self._key = int.from_bytes(digest[:8], signed=True)

    async def acquire(self) -> Lease | None:
        session = self._session
        if not session.is_open:
            await session.open(f"quattro-web {this_process()}")
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
            msg = "the server says that another session holds it, or none"
            raise LockLostError(msg)

    async def release(self) -> None:
        await self._session.close()  # which frees it, in any state

    async def holder(self) -> str | None:
        name = await self._session.value(_HOLDER, *_halves(self._key))
        return str(name).removeprefix("quattro-web ") if name else None


def _halves(key: int) -> tuple[int, int]:
    """Return the key as ``pg_locks`` shows it: two unsigned numbers of 32 bits."""
    return (key >> 32) & 0xFFFFFFFF, key & 0xFFFFFFFF


_LOCKS = """FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND objsubid = 1
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND classid::bigint = $1 AND objid::bigint = $2"""

_HELD = f"SELECT count(*) {_LOCKS} AND pid = pg_backend_pid()"

_HOLDER = f"""SELECT application_name FROM pg_stat_activity
    WHERE pid = (SELECT pid {_LOCKS} LIMIT 1)"""  # noqa: S608  # of constants
