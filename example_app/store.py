"""What the board remembers, in SQLite."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

import aiosqlite

from example_app.probe import Result
from example_app.settings import ConfigurationError
from example_app.targets import MAX_TARGETS, Target

SCHEMA = """
CREATE TABLE IF NOT EXISTS target (name TEXT PRIMARY KEY, json TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS result (
    id TEXT PRIMARY KEY, target TEXT NOT NULL, at REAL NOT NULL, state TEXT NOT NULL,
    seconds REAL NOT NULL, status INTEGER, error TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS result_by_target ON result (target, at);
CREATE INDEX IF NOT EXISTS result_by_time ON result (at);
"""
# Readers and a writer don't wait for each other.
JOURNAL = "PRAGMA journal_mode = WAL"
# Seconds that a process waits for another one that writes.
PATIENCE = 30.0


class TargetExistsError(Exception):
    """A target of that name is stored already."""


class BoardFullError(Exception):
    """There are as many targets as a board holds."""


class Store:
    """The results, and the targets that were added while the board ran."""

    def __init__(self, connection: aiosqlite.Connection, keep_days: float) -> None:
        self._connection = connection
        self._keep = keep_days * 86400
        self._writing = asyncio.Lock()

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[None]:
        """Write all of the block, or nothing of it; none of it stays open, whatever happens.

        One that is left open keeps all other processes from writing. Two tasks have one connection,
        and so one transaction: they take turns.
        """
        async with self._writing:
            try:
                await self._connection.execute("BEGIN IMMEDIATE")
                yield
                await self._connection.commit()
            except BaseException:  # a cancelled statement is executed nevertheless
                await self._connection.rollback()
                raise

    async def save(self, results: Sequence[Result]) -> None:
        """Store results in one transaction, and delete those that have become too old.

        Storing a result again changes nothing, so that who was cancelled here may just repeat it.
        """
        if not results:
            return
        async with self._transaction():
            await self._connection.executemany(
                "INSERT OR IGNORE INTO result"
                " VALUES (:id, :target, :at, :state, :seconds, :status, :error)",
                [result.model_dump() for result in results],
            )
            await self._connection.execute(
                "DELETE FROM result WHERE at < ?", (time.time() - self._keep,)
            )

    async def history(self, target: str, limit: int) -> list[Result]:
        """Return the latest results of a target, the newest first."""
        rows = await self._connection.execute_fetchall(
            "SELECT * FROM result WHERE target = ? ORDER BY at DESC LIMIT ?", (target, limit)
        )
        return [Result.model_validate(dict(row)) for row in rows]

    async def since(self, number: int) -> tuple[int, list[Result]]:
        """Return the results that were stored after the one with this number, and the last number.

        Numbers count up in the order in which results are stored, whichever process stores them.
        """
        rows = await self._connection.execute_fetchall(
            "SELECT rowid AS number, * FROM result WHERE rowid > ? ORDER BY rowid LIMIT 1000",
            (number,),
        )
        found = [dict(row) for row in rows]
        if not found:  # the last ones may have been deleted, and their numbers are free again
            return min(number, await self.last_number()), []
        number = [each.pop("number") for each in found][-1]
        return number, [Result.model_validate(each) for each in found]

    async def last_number(self) -> int:
        """Return the number of the last result that is stored."""
        [row] = await self._connection.execute_fetchall("SELECT max(rowid) AS number FROM result")
        return int(row["number"] or 0)

    async def add_target(self, target: Target, others: Collection[str] = ()) -> None:
        """Store a target.

        Whether there is room for it is only known while nobody else can write.

        Args:
            target: The target.
            others: The names of targets that are on the board, stored or not.

        Raises:
            TargetExistsError: If there is one of that name.
            BoardFullError: If there are `MAX_TARGETS` already.
        """
        async with self._transaction():
            rows = await self._connection.execute_fetchall("SELECT name FROM target")
            names = {row["name"] for row in rows}.union(others)
            if target.name in names:
                raise TargetExistsError(target.name)
            if len(names) >= MAX_TARGETS:
                raise BoardFullError
            await self._connection.execute(
                "INSERT INTO target VALUES (?, ?)", (target.name, target.model_dump_json())
            )

    async def targets(self) -> list[Target]:
        """Return the targets that were added, the oldest first."""
        rows = await self._connection.execute_fetchall("SELECT json FROM target ORDER BY rowid")
        return [Target.model_validate_json(row["json"]) for row in rows]


def check_database(path: Path) -> None:
    """Tell whether the database can be opened, and make it where it is missing.

    Raises:
        ConfigurationError: If it can't.
    """
    try:
        with closing(sqlite3.connect(path, timeout=PATIENCE)) as connection:
            connection.execute(JOURNAL)
    except sqlite3.Error as exc:
        msg = f"can't use the database {path}: {exc}"
        raise ConfigurationError(msg) from None


@asynccontextmanager
async def open_store(path: Path, keep_days: float) -> AsyncIterator[Store]:
    """Open the database, which is made where it is missing, and close it at the end."""
    # Without an isolation level, only what says so begins a transaction.
    async with aiosqlite.connect(path, timeout=PATIENCE, isolation_level=None) as connection:
        connection.row_factory = sqlite3.Row
        await connection.execute(JOURNAL)
        await connection.executescript(SCHEMA)
        yield Store(connection, keep_days)
