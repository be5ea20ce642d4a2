"""A lock for the processes of several hosts, in PostgreSQL."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from importlib import import_module
from typing import Any, Literal

from quattro_web._interrupt import checked_seconds
from quattro_web._once import Lease, LockClaim, LockLostError, OnceLock, this_process

__all__ = ["PostgresLock"]

Driver = Literal["asyncpg", "psycopg"]


class PostgresLock(OnceLock):
    """A lock for the processes of several hosts: an advisory lock of a session of PostgreSQL.

    ::

        Pump(clean_up, once=PostgresLock("postgresql://app@db/app"))

    The session has a connection of its own, which nothing else uses, and no tables. The server
    frees the lock when the connection ends. If its holder dies, another takes over within
    ``poll + settle + 2 * timeout`` seconds; if the holder's host vanishes, when the server has
    missed it for 10 more seconds. The fencing token is the id of a transaction.

    A pooler that changes connections between transactions (PgBouncer, by default) can't keep such a
    lock: connect to the server itself.

    Args:
        dsn: Where the database is, as a URL.
        driver: ``"asyncpg"`` or ``"psycopg"`` (3). None means the one that is installed.
        poll: After how many seconds those that wait try again.
        heartbeat: Seconds between two proofs that the lock is held.
        timeout: Seconds that the server may take for an answer.
        allowance: Seconds that the clean-up of the pump may take.

    Raises:
        ModuleNotFoundError: If neither of the drivers is installed.
        ValueError: If the driver has another name, or if one of the times is not positive.

    .. versionadded:: 0.1
    """

    def __init__(
        self,
        dsn: str,
        *,
        driver: Driver | None = None,
        poll: float = 1.0,
        heartbeat: float = 1.0,
        timeout: float = 1.0,
        allowance: float = 1.0,
    ) -> None:
        self._dsn = dsn
        self._session = _session_class(driver)
        self.poll: float = checked_seconds("poll", poll) or 0
        self.heartbeat: float = checked_seconds("heartbeat", heartbeat) or 0
        self.timeout: float = checked_seconds("timeout", timeout) or 0
        self.allowance: float = checked_seconds("allowance", allowance) or 0
        # A lost connection is told by the first proof that fails: nothing is asked twice.
        self.valid_for: float = self.heartbeat + self.timeout
        self.settle: float = self.valid_for + self.allowance

    def claim(self, name: str) -> LockClaim:
        return _Claim(self._session(self._dsn), name)

    def __repr__(self) -> str:  # without the DSN, which has a password
        return f"<PostgresLock with {self._session.driver}>"


class _Claim(LockClaim):
    def __init__(self, session: _Session, name: str) -> None:
        self._session = session
        digest = hashlib.sha256(f"quattro_web pump {name}".encode()).digest()
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
    WHERE pid = (SELECT pid {_LOCKS} LIMIT 1)"""  # noqa: S608

# So that the server misses a client whose host has vanished, in seconds and milliseconds.
_KEEPALIVES = {
    "tcp_keepalives_idle": "4",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10000",
}


class _Session(ABC):
    """A connection of its own to a server."""

    driver: str

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: Any = None

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Whether there is a connection, as far as is known."""

    @abstractmethod
    async def open(self, name: str) -> None:
        """Connect, with a name that others see."""

    @abstractmethod
    async def value(self, query: str, *arguments: int) -> Any:
        """Return the first value that a query finds; None if it finds none."""

    @abstractmethod
    async def close(self) -> None:
        """End the connection, in whatever state it is."""


class _Asyncpg(_Session):
    driver = "asyncpg"

    @property
    def is_open(self) -> bool:
        return self._connection is not None and not self._connection.is_closed()

    async def open(self, name: str) -> None:
        asyncpg = import_module("asyncpg")
        settings = {"application_name": name[:63], **_KEEPALIVES}
        self._connection = await asyncpg.connect(self._dsn, server_settings=settings)

    async def value(self, query: str, *arguments: int) -> Any:
        return await self._connection.fetchval(query, *arguments)

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()  # a farewell might wait for a server that has gone


class _Psycopg(_Session):
    driver = "psycopg"

    @property
    def is_open(self) -> bool:
        return self._connection is not None and not self._connection.closed

    async def open(self, name: str) -> None:
        psycopg = import_module("psycopg")
        options = " ".join(f"-c {key}={value}" for key, value in _KEEPALIVES.items())
        self._connection = await psycopg.AsyncConnection.connect(
            self._dsn, autocommit=True, application_name=name[:63], options=options
        )

    async def value(self, query: str, *arguments: int) -> Any:
        for number in range(len(arguments), 0, -1):
            query = query.replace(f"${number}", "%s")
        cursor = await self._connection.execute(query, arguments or None)
        row = await cursor.fetchone()
        return row and row[0]

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


def _session_class(driver: str | None) -> type[_Session]:
    classes: dict[str, type[_Session]] = {"asyncpg": _Asyncpg, "psycopg": _Psycopg}
    if driver is not None and driver not in classes:
        msg = f"driver must be 'asyncpg', 'psycopg' or None, got {driver!r}"
        raise ValueError(msg)
    for name, session in classes.items():
        if driver in (None, name):
            try:
                import_module(name)
            except ModuleNotFoundError:
                continue
            return session
    extra = driver or "asyncpg"
    msg = f"PostgresLock needs {driver or 'asyncpg or psycopg'}: pip install 'quattro-web[{extra}]'"
    raise ModuleNotFoundError(msg, name=extra)
