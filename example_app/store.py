"""What the board remembers, in SQLite."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiosqlite

from example_app.probe import Result
from example_app.targets import Target

SCHEMA = """
CREATE TABLE IF NOT EXISTS target (name TEXT PRIMARY KEY, json TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS result (
    id TEXT PRIMARY KEY, target TEXT NOT NULL, at REAL NOT NULL, state TEXT NOT NULL,
    seconds REAL NOT NULL, status INTEGER, error TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS result_by_target ON result (target, at);
CREATE INDEX IF NOT EXISTS result_by_time ON result (at);
"""


class TargetExistsError(Exception):
    """A target of that name is stored already."""


class Store:
    """The results, and the targets that were added while the board ran."""

    def __init__(self, connection: aiosqlite.Connection, keep_days: float) -> None:
        self._connection = connection
        self._keep = keep_days * 86400

    async def save(self, results: Sequence[Result]) -> None:
        """Store results in one transaction, and delete those that have become too old.

        Storing a result again changes nothing, so that who was cancelled here may just repeat it.
        """
        if not results:
            return
        await self._connection.executemany(
            "INSERT OR IGNORE INTO result"
            " VALUES (:id, :target, :at, :state, :seconds, :status, :error)",
            [result.model_dump() for result in results],
        )
        await self._connection.execute(
            "DELETE FROM result WHERE at < ?", (time.time() - self._keep,)
        )
        await self._connection.commit()

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

    async def add_target(self, target: Target) -> None:
        """Store a target.

        Raises:
            TargetExistsError: If there is one of that name.
        """
        try:
            await self._connection.execute(
                "INSERT INTO target VALUES (?, ?)", (target.name, target.model_dump_json())
            )
        except sqlite3.IntegrityError:
            raise TargetExistsError(target.name) from None
        await self._connection.commit()

    async def targets(self) -> list[Target]:
        """Return the targets that were added, the oldest first."""
        rows = await self._connection.execute_fetchall("SELECT json FROM target ORDER BY rowid")
        return [Target.model_validate_json(row["json"]) for row in rows]


@asynccontextmanager
async def open_store(path: Path, keep_days: float) -> AsyncIterator[Store]:
    """Open the database, which is made where it is missing, and close it at the end."""
    async with aiosqlite.connect(path) as connection:
        connection.row_factory = sqlite3.Row
        await connection.execute("PRAGMA journal_mode = WAL")
        await connection.executescript(SCHEMA)
        yield Store(connection, keep_days)
