"""What the board remembers, in SQLite."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

import aiosqlite

from example_app.availability import HOUR, LONGEST, Checks
from example_app.probe import Result
from example_app.settings import ConfigurationError
from example_app.status import Change, status_of
from example_app.targets import MAX_TARGETS, Target

# Each step makes a database of the version before it one of its own version; none is ever changed.
# The first one leaves alone what there is: the first databases had no version.
STEPS = (
    """
    CREATE TABLE IF NOT EXISTS target (name TEXT PRIMARY KEY, json TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS result (
        id TEXT PRIMARY KEY, target TEXT NOT NULL, at REAL NOT NULL, state TEXT NOT NULL,
        seconds REAL NOT NULL, status INTEGER, error TEXT NOT NULL
    );
    CREATE INDEX IF NOT EXISTS result_by_target ON result (target, at);
    CREATE INDEX IF NOT EXISTS result_by_time ON result (at);
    """,
    """
    ALTER TABLE target ADD COLUMN deleted INTEGER NOT NULL DEFAULT 0;
    """,
    """
    CREATE TABLE down (target TEXT PRIMARY KEY);
    CREATE TABLE change (
        id TEXT PRIMARY KEY, json TEXT NOT NULL, due REAL NOT NULL, tries INTEGER NOT NULL DEFAULT 0
    );
    """,
    """
    CREATE TABLE hour (
        target TEXT, hour INTEGER, checks INTEGER NOT NULL, good INTEGER NOT NULL,
        PRIMARY KEY (target, hour)
    );
    INSERT INTO hour
        SELECT target, CAST(at / 3600 AS INTEGER), count(*), sum(state <> 'down')
        FROM result GROUP BY 1, 2;
    """,
)
# Other processes know by its number what they have seen (see `Store.since`). The last number stays
# until there is another one: it must not be used again.
NOT_LAST = "rowid < (SELECT max(rowid) FROM result)"
# Readers and a writer don't wait for each other.
JOURNAL = "PRAGMA journal_mode = WAL"
# Seconds that a process waits for another one that writes.
PATIENCE = 30.0


class TargetExistsError(Exception):
    """A target of that name is stored already."""


class UnknownTargetError(Exception):
    """No target of that name is on the board."""


class BoardFullError(Exception):
    """There are as many targets as a board holds."""


class Store:
    """The results, and how the targets differ from those of the file.

    A target that was added, changed or deleted while the board ran has a row, and the row counts.
    """

    def __init__(
        self,
        connection: aiosqlite.Connection,
        keep_days: float,
        listed: Iterable[Target] = (),
        *,
        announce: bool = False,
    ) -> None:
        self._connection = connection
        self._keep = keep_days * 86400
        self._listed = {target.name: target for target in listed}
        self._announce = announce
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
        """Store results in one transaction.

        In the same one they are counted, and it is noted which targets have gone down by that or
        come back, and what is to be sent to the webhook: either all of it is kept or nothing.

        Storing a result again changes nothing, so that who was cancelled here may just repeat it.
        """
        if not results:
            return
        async with self._transaction():
            targets = {target.name: target for target in await self.targets()}
            for result in results:
                inserted = await self._connection.execute(
                    "INSERT OR IGNORE INTO result"
                    " VALUES (:id, :target, :at, :state, :seconds, :status, :error)",
                    result.model_dump(),
                )
                if inserted.rowcount and result.target in targets:
                    await self._count(result)
                    await self._note_change(targets[result.target], result)

    async def tidy(self) -> None:
        """Delete results that are older than they are kept, and sums that no page shows."""
        now = time.time()
        async with self._transaction():
            await self._connection.execute(
                f"DELETE FROM result WHERE at < ? AND {NOT_LAST}",  # noqa: S608  # a constant
                (now - self._keep,),
            )
            await self._connection.execute(
                "DELETE FROM hour WHERE hour < ?", (now // HOUR - LONGEST,)
            )

    async def hours(self, target: str) -> dict[int, Checks]:
        """Return how many checks of a target there were in each hour, counted from 1970 on."""
        rows = await self._connection.execute_fetchall(
            "SELECT hour, checks, good FROM hour WHERE target = ?", (target,)
        )
        return {row["hour"]: Checks(checks=row["checks"], good=row["good"]) for row in rows}

    async def _count(self, result: Result) -> None:
        await self._connection.execute(
            "INSERT INTO hour VALUES (?, ?, 1, ?) ON CONFLICT (target, hour)"
            " DO UPDATE SET checks = checks + 1, good = good + excluded.good",
            (result.target, result.at // HOUR, result.state != "down"),
        )

    async def _note_change(self, target: Target, result: Result) -> None:
        """Note it if a target has gone down, or has come back, with this result."""
        recent = await self.history(target.name, target.failures)
        state = status_of(target, recent[::-1]).state
        if state in {"failing", "paused"}:
            return  # nothing is decided yet
        down = state == "down"
        sql = "SELECT 1 FROM down WHERE target = ?"
        if down == bool(await self._connection.execute_fetchall(sql, (target.name,))):
            return
        sql = "INSERT INTO down VALUES (?)" if down else "DELETE FROM down WHERE target = ?"
        await self._connection.execute(sql, (target.name,))
        if self._announce:
            change = Change(
                target=target.name,
                url=target.url,
                state="down" if down else "up",
                at=result.at,
                error=result.error,
            )
            await self._connection.execute(
                "INSERT INTO change (id, json, due) VALUES (?, ?, ?)",
                (change.id, change.model_dump_json(), result.at),
            )

    async def due_changes(self) -> list[Change]:
        """Return the changes that are to be sent now, the oldest first."""
        rows = await self._connection.execute_fetchall(
            "SELECT json FROM change WHERE due <= ? ORDER BY rowid LIMIT 100", (time.time(),)
        )
        return [Change.model_validate_json(row["json"]) for row in rows]

    async def put_off(self, change: Change) -> None:
        """Have a change sent later: after 2 seconds, then 4, 8 and so on, up to some minutes."""
        async with self._transaction():
            await self._connection.execute(
                "UPDATE change SET tries = tries + 1, due = ? + (2 << min(tries, 7)) WHERE id = ?",
                (time.time(), change.id),
            )

    async def forget(self, change: Change) -> None:
        """Have a change never sent again."""
        async with self._transaction():
            await self._connection.execute("DELETE FROM change WHERE id = ?", (change.id,))

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
        if not found:
            return number, []
        number = [each.pop("number") for each in found][-1]
        return number, [Result.model_validate(each) for each in found]

    async def last_number(self) -> int:
        """Return the number of the last result that is stored."""
        [row] = await self._connection.execute_fetchall("SELECT max(rowid) AS number FROM result")
        return int(row["number"] or 0)

    async def add_target(self, target: Target) -> None:
        """Store a new target.

        Whether there is room for it is only known while nobody else can write.

        Raises:
            TargetExistsError: If there is one of that name.
            BoardFullError: If there are `MAX_TARGETS` already.
        """
        async with self._transaction():
            targets = await self.targets()
            if target.name in [other.name for other in targets]:
                raise TargetExistsError(target.name)
            if len(targets) >= MAX_TARGETS:
                raise BoardFullError
            await self._write_target(target, deleted=False)

    async def change_target(self, target: Target) -> None:
        """Store a target in the place of the one that has its name.

        Raises:
            UnknownTargetError: If there is none.
        """
        async with self._transaction():
            await self._existing(target.name)
            await self._write_target(target, deleted=False)

    async def delete_target(self, name: str) -> None:
        """Delete a target and its results; one that the file lists does not come back either.

        Raises:
            UnknownTargetError: If there is none.
        """
        async with self._transaction():
            target = await self._existing(name)
            if name in self._listed:
                await self._write_target(target, deleted=True)
            else:
                await self._connection.execute("DELETE FROM target WHERE name = ?", (name,))
            await self._connection.execute("DELETE FROM down WHERE target = ?", (name,))
            await self._connection.execute("DELETE FROM hour WHERE target = ?", (name,))
            await self._connection.execute(
                f"DELETE FROM result WHERE target = ? AND {NOT_LAST}",  # noqa: S608  # a constant
                (name,),
            )

    async def targets(self) -> list[Target]:
        """Return the targets of the board: those of the file, then the others, oldest first."""
        targets = dict(self._listed)
        for row in await self._connection.execute_fetchall("SELECT * FROM target ORDER BY rowid"):
            if row["deleted"]:
                targets.pop(row["name"], None)
            else:
                targets[row["name"]] = Target.model_validate_json(row["json"])
        return list(targets.values())

    async def _existing(self, name: str) -> Target:
        for target in await self.targets():
            if target.name == name:
                return target
        raise UnknownTargetError(name)

    async def _write_target(self, target: Target, *, deleted: bool) -> None:
        await self._connection.execute(
            "INSERT INTO target (name, json, deleted) VALUES (?, ?, ?) ON CONFLICT (name)"
            " DO UPDATE SET json = excluded.json, deleted = excluded.deleted",
            (target.name, target.model_dump_json(), deleted),
        )


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
async def open_store(
    path: Path, keep_days: float, listed: Iterable[Target] = (), *, announce: bool = False
) -> AsyncIterator[Store]:
    """Open the database, which is made where it is missing, and close it at the end.

    Args:
        path: The file, which an older board may have made.
        keep_days: Days after which a result is deleted.
        listed: The targets of the file of targets.
        announce: Whether changes are kept for the webhook.
    """
    # Without an isolation level, only what says so begins a transaction.
    async with aiosqlite.connect(path, timeout=PATIENCE, isolation_level=None) as connection:
        connection.row_factory = sqlite3.Row
        await connection.execute(JOURNAL)
        await _bring_up_to_date(connection)
        yield Store(connection, keep_days, listed, announce=announce)


async def _bring_up_to_date(connection: aiosqlite.Connection) -> None:
    """Take the steps that the database has not taken, one process after the other."""
    await connection.execute("BEGIN IMMEDIATE")
    [row] = await connection.execute_fetchall("PRAGMA user_version")
    version = row["user_version"]
    for number, step in enumerate(STEPS[version:], version + 1):
        for statement in step.split(";"):
            await connection.execute(statement)
        await connection.execute(f"PRAGMA user_version = {number}")
    await connection.commit()
