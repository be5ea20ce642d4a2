"""Connections to PostgreSQL, with either of two drivers."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from importlib import import_module
from typing import Any

from quattro_web._locks.address import Address, cleaned, is_secret
from quattro_web._util.arguments import without_value

# So that the server misses a client whose host has vanished, in seconds and milliseconds.
_KEEPALIVES = {
    "tcp_keepalives_idle": "4",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10000",
}


class PostgresSession(ABC):
    """A connection to a server, which nothing else uses."""

    driver: str

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: Any = None
        self._turn = asyncio.Lock()  # asyncpg has one query at a time
        self.address = Address(dsn, self.secrets_of(dsn))

    @staticmethod
    @abstractmethod
    def understands(dsn: str) -> bool:
        """Whether it could connect to that, as far as can be told without trying."""

    @classmethod
    def check(cls, dsn: str) -> None:
        """Raise an error if a DSN is none."""
        if not isinstance(dsn, str):
            msg = f"dsn must be a str, got {without_value(dsn)}"
            raise TypeError(msg)
        if not cls.understands(dsn):
            msg = (  # it is not shown, since it may have a password
                f"dsn is not a URL that {cls.driver} understands: it must "
                "be like postgresql://user:password@host:5432/database, with special "
                "characters in the password percent-encoded"
            )
            raise ValueError(msg)

    @staticmethod
    def secrets_of(dsn: str) -> list[str]:
        """Return the secrets in it that a URL does not show by itself."""
        del dsn
        return []

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Whether there is a connection, as far as is known."""

    @cleaned
    async def open(self, name: str) -> None:
        """Connect, with a name of at most 63 characters that others see."""
        await self._open(name)

    @cleaned
    async def value(self, query: str, *arguments: int | str) -> Any:
        """Return the first value that a query finds; None if it finds none."""
        async with self._turn:
            return await self._value(query, *arguments)

    @cleaned
    async def close(self) -> None:
        """End the connection, in whatever state it is."""
        await self._close()

    @abstractmethod
    async def _open(self, name: str) -> None: ...

    @abstractmethod
    async def _value(self, query: str, *arguments: int | str) -> Any: ...

    @abstractmethod
    async def _close(self) -> None: ...


class _AsyncpgSession(PostgresSession):
    driver = "asyncpg"

    @staticmethod
    def understands(dsn: str) -> bool:
        # Without one, it goes by the environment.
        is_url = dsn.startswith(("postgresql://", "postgres://"))
        return not dsn or (is_url and Address(dsn).has_hosts)

    @property
    def is_open(self) -> bool:
        return self._connection is not None and not self._connection.is_closed()

    async def _open(self, name: str) -> None:
        asyncpg = import_module("asyncpg")
        settings = {"application_name": name, **_KEEPALIVES}
        self._connection = await asyncpg.connect(self._dsn, server_settings=settings)

    async def _value(self, query: str, *arguments: int | str) -> Any:
        return await self._connection.fetchval(query, *arguments)

    async def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()  # a farewell might wait for a server that has gone


class _PsycopgSession(PostgresSession):
    driver = "psycopg"

    @staticmethod
    def understands(dsn: str) -> bool:
        psycopg = import_module("psycopg")
        try:
            port = psycopg.conninfo.conninfo_to_dict(dsn).get("port", "")
        except (psycopg.ProgrammingError, UnicodeError):  # the latter shows all of it
            return False
        return str(port).replace(",", "").isdecimal() or not port

    @staticmethod
    def secrets_of(dsn: str) -> list[str]:
        psycopg = import_module("psycopg")
        given = psycopg.conninfo.conninfo_to_dict(dsn)
        return [str(value) for key, value in given.items() if is_secret(key)]

    @property
    def is_open(self) -> bool:
        return self._connection is not None and not self._connection.closed

    async def _open(self, name: str) -> None:
        psycopg = import_module("psycopg")
        options = " ".join(f"-c {key}={value}" for key, value in _KEEPALIVES.items())
        self._connection = await psycopg.AsyncConnection.connect(
            self._dsn, autocommit=True, application_name=name, options=options
        )

    async def _value(self, query: str, *arguments: int | str) -> Any:
        for number in range(len(arguments), 0, -1):
            query = query.replace(f"${number}", "%s")
        cursor = await self._connection.execute(query, arguments or None)
        row = await cursor.fetchone() if cursor.description else None
        return row and row[0]

    async def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


def session_class(driver: str | None) -> type[PostgresSession]:
    """Return the session of a driver; None means the one that is installed."""
    classes: dict[str, type[PostgresSession]] = {
        "asyncpg": _AsyncpgSession,
        "psycopg": _PsycopgSession,
    }
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
