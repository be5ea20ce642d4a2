"""How much of the time a target was up."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from example_app.availability import HOUR, Bar, Checks, spans_of
from example_app.settings import Settings
from example_app.store import open_store
from example_app.targets import Target
from tests.example_app.support import result, running

pytestmark = pytest.mark.anyio

A = Target(name="a", url="http://a.test/")
NOON = 500_000 * HOUR


def test_each_span_has_its_bars() -> None:
    """The last hour is in the last bar of each span, an older one only where it belongs."""
    hours = {
        500_000: Checks(checks=10, good=9),
        500_000 - 23: Checks(checks=4, good=4),
        500_000 - 24: Checks(checks=2, good=0),
        500_000 - 720: Checks(checks=100, good=0),  # too old for all of them
    }
    day, week, month = spans_of(hours, NOON + 1800.0)
    assert [span.name for span in (day, week, month)] == ["24 hours", "7 days", "30 days"]
    assert [len(span.bars) for span in (day, week, month)] == [24, 28, 30]
    assert (day.checks, day.good) == (14, 13)
    assert day.bars[0] == Bar(start=NOON - 23 * HOUR, checks=4, good=4)
    assert day.bars[-1] == Bar(start=NOON, checks=10, good=9)
    for span in (week, month):
        assert (span.checks, span.good) == (16, 13)
        assert sum(bar.checks for bar in span.bars) == 16
    assert week.bars[-1] == Bar(start=NOON - 5 * HOUR, checks=10, good=9)
    assert month.bars[-1] == Bar(start=NOON - 23 * HOUR, checks=14, good=13)


async def test_each_result_counts_once(tmp_path: Path) -> None:
    """Results are counted by the hour, once however often they are stored; slow is up."""
    results = [
        result(at=NOON + 0.5), result(at=NOON + 3599.0, state="slow"),
        result(at=NOON + 1.0, state="down"), result(at=NOON + 3600.0), result("b", at=NOON + 1.0),
    ]  # fmt: skip
    async with open_store(tmp_path / "x.db", 1, [A]) as store:
        await store.save(results)
        await store.save(results)
        assert await store.hours("a") == {
            500_000: Checks(checks=3, good=2),
            500_001: Checks(checks=1, good=1),
        }
        assert await store.hours("b") == {}  # not on the board


async def test_sums_outlive_their_results(tmp_path: Path) -> None:
    """Tidying deletes results after their days, and sums when no span has them any more."""
    now = time.time()
    week, older = now - 7 * 86400, now - 31 * 86400
    async with open_store(tmp_path / "x.db", 1, [A]) as store:
        await store.save([result(at=older), result(at=week), result(at=now)])
        await store.tidy()
        assert len(await store.history("a", 9)) == 1
        assert [*await store.hours("a")] == [week // HOUR, now // HOUR]
        await store.delete_target("a")
        assert await store.hours("a") == {}


async def test_availability_is_told(settings: Settings, web: dict[str, int | Exception]) -> None:
    """/availability tells the spans of a target of the board."""
    async with open_store(settings.database, 7, [A]) as store:
        await store.save([result(at=time.time() - 40 * HOUR, state="down")])
    async with running(settings) as app:
        day, week, month = (await app.client.get("/availability/a")).json()
        assert day["good"] == day["checks"]
        assert week["checks"] == week["good"] + 1
        assert month["checks"] == week["checks"]
        assert (await app.client.get("/availability/c")).status_code == 404
