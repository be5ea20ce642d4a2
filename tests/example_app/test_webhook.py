"""What the webhook is sent: each change, at least once."""

from __future__ import annotations

import asyncio
import json
import logging
import queue
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

import example_app.pumps
import example_app.webhook
from example_app.probe import new_client
from example_app.settings import Settings
from example_app.status import Change
from example_app.store import open_store
from example_app.targets import Target
from example_app.webhook import send
from tests.example_app.support import PATIENCE, Site, answer, result, running, served

pytestmark = pytest.mark.anyio

A = Target(name="a", url="http://a.test/", failures=2)
URL = "http://hook.test/secret"
CHANGE = Change(target="a", url="http://a.test/", state="down", at=1.0, error="refused")


def pending(database: Path) -> list[tuple[str, str]]:
    """Return the changes that are in the database: the targets and their states."""
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute("SELECT json FROM change ORDER BY rowid").fetchall()
    changes = [Change.model_validate_json(row[0]) for row in rows]
    return [(change.target, change.state) for change in changes]


@pytest.mark.parametrize(
    ("seen", "changes"),
    [
        ("up up slow", []),
        ("down", []),
        ("down down", ["down"]),
        ("down up down up", []),
        ("down down down down", ["down"]),
        ("down down up up", ["down", "up"]),
        ("down down up down", ["down", "up"]),
        ("down down slow down down", ["down", "up", "down"]),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
async def test_a_change_is_kept_with_its_result(
    tmp_path: Path, seen: str, changes: list[str], at_once: bool
) -> None:
    """Each change from up to down and back is in the database with the result that has made it,
    once, whether results are stored together or one by one, and twice."""
    now = time.time()
    results = [result(state=each, at=now + n) for n, each in enumerate(seen.split())]
    async with open_store(tmp_path / "x.db", 1, [A], announce=True) as store:
        for batch in [results] if at_once else [[each] for each in results]:
            await store.save(batch)
            await store.save(batch)
    assert pending(tmp_path / "x.db") == [("a", state) for state in changes]


async def test_what_nobody_is_told(tmp_path: Path) -> None:
    """Without a webhook nothing is kept for one that is set later; neither is what was seen of a
    paused target, or of one that is not on the board."""
    down = [result(name, state="down", at=time.time()) for name in ("a", "a", "p", "p", "x", "x")]
    paused = Target(name="p", url="http://p.test/", failures=2, paused=True)
    async with open_store(tmp_path / "x.db", 1, [A, paused]) as store:
        await store.save(down)
    async with open_store(tmp_path / "x.db", 1, [A, paused], announce=True) as store:
        await store.save([result("p", state="down", at=time.time())])
        await store.save([result("a", at=time.time())])
    assert pending(tmp_path / "x.db") == [("a", "up")]


async def test_a_change_is_put_off(tmp_path: Path) -> None:
    """A change that was not taken is due again after a while; one that was taken never is."""
    async with open_store(tmp_path / "x.db", 1, [A], announce=True) as store:
        now = time.time()
        await store.save([result(state="down", at=now - 1), result(state="down", at=now - 1)])
        [change] = await store.due_changes()
        await store.put_off(change)
        assert await store.due_changes() == []
        assert pending(tmp_path / "x.db") == [("a", "down")]
        await store.forget(change)
        assert pending(tmp_path / "x.db") == []


@pytest.mark.parametrize(
    ("said", "taken", "log"),
    [
        (204, True, []),
        (302, False, ["the webhook answered with status 302"]),
        (503, False, ["the webhook answered with status 503"]),
        (httpx.ConnectError(URL), False, ["the webhook can't be reached: ConnectError"]),
        (None, False, ["the webhook can't be reached: TimeoutError"]),
    ],
)
async def test_what_is_sent(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    said: int | Exception | None,
    taken: bool,
    log: list[str],
) -> None:
    """The change and its id are sent, nowhere else than to the address, which is in no log."""
    requests: list[httpx.Request] = []

    async def handle(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        if said is None:
            await asyncio.Event().wait()
        if isinstance(said, Exception):
            raise said
        assert isinstance(said, int)
        return answer(said, Location="http://elsewhere.test/")

    if said is None:
        monkeypatch.setattr(example_app.webhook, "TIMEOUT", 0)
    async with new_client(httpx.MockTransport(handle)) as client:
        assert await send(client, URL, CHANGE) is taken
    for request in requests:
        assert str(request.url) == URL
        assert request.headers["Webhook-Id"] == CHANGE.id
        assert json.loads(request.content) == CHANGE.model_dump()
    assert [each.getMessage() for each in caplog.records if each.levelno > logging.INFO] == log


async def test_what_is_too_old_is_given_up(
    settings: Settings,
    web: dict[str, int | Exception],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A change that nobody has taken for as long as results are kept is in the log, and gone."""
    monkeypatch.setattr(example_app.pumps, "SEND_EVERY", 0.01)
    web["hook.test"] = web["a.test"] = 503
    settings = replace(settings, webhook=URL)
    async with open_store(settings.database, 365, [A], announce=True) as store:
        old = time.time() - 8 * 86400
        await store.save([result(state="down", at=old), result(state="down", at=old)])
    async with running(settings):
        while pending(settings.database):
            await asyncio.sleep(0.01)
    [record] = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert "gave up a change for the webhook" in record.getMessage()
    assert "secret" not in caplog.text


def test_there_is_no_messenger_by_default(settings: Settings) -> None:
    """A board without a webhook has no pump for it."""
    assert "messenger" not in [pump.name for pump in example_app.pumps.pumps_of(settings)]


@contextmanager
def watching(folder: Path, site: Site, hook: Site) -> Iterator[httpx.Client]:
    targets = f"[[target]]\nname = 'a'\nurl = '{site.url}'\nfailures = 2\n"
    with (
        served(folder, targets, BOARD_WEBHOOK=hook.url, BOARD_INTERVAL="0.1") as server,
        httpx.Client(base_url=server.url, timeout=PATIENCE) as client,
    ):
        yield client
        server.process.kill()


def test_none_is_lost_when_the_board_dies(tmp_path: Path, site: Site) -> None:
    """A change that was not taken when the board was killed is sent again by the next one, with
    the same id; the way back up follows it."""
    hook = Site()
    try:
        hook.status, site.status = 500, 503
        with watching(tmp_path, site, hook):
            first, body = hook.posted.get(timeout=PATIENCE)
            assert (body["id"], body["target"], body["state"]) == (first, "a", "down")
            assert body["error"] == "answered with status 503"
        hook.status, hook.posted = 200, queue.Queue()
        with watching(tmp_path, site, hook):
            again, _ = hook.posted.get(timeout=PATIENCE)
            assert again == first
            site.status = 200
            second = first
            while second == first:  # sent at least once
                second, body = hook.posted.get(timeout=PATIENCE)
            assert (body["state"], second) == ("up", body["id"])
            assert second != first
    finally:
        hook.close()
