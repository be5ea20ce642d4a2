"""Each benchmark runs, with tiny numbers, and its tables have their rows."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from benchmarks.__main__ import BENCHMARKS
from benchmarks.core_growth import kinds
from benchmarks.core_limiters import LIMITERS
from benchmarks.core_mappers import mappers
from benchmarks.goals import Goal, exactly
from benchmarks.measure import Spread, spread, steady_ratio
from benchmarks.report import Report
from benchmarks.size import TINY, Rounds
from benchmarks.web_callgrind import VALGRIND
from benchmarks.web_held import KINDS
from benchmarks.web_server import SERVERS, serving
from benchmarks.web_streams import KINDS as OPEN_KINDS
from benchmarks.web_streams import SOCKETS, STREAMS
from benchmarks.web_telemetry import telemetry_variants
from benchmarks.web_variants import FAST, STAR, all_variants, spawning
from benchmarks.web_wrk import EXACT, PEERS, WRK, agree, makers, microseconds, under_wrk

COUNTER = (sys.executable, str(Path(__file__).with_name("counter.py")))
LOADER = (sys.executable, str(Path(__file__).with_name("loader.py")))

GROUPS = [[variant.group, variant.label] for variant in all_variants()]
OVER_UVICORN = [row for row in GROUPS if row[1] != "plain dependency"]
SPAWNING = [
    [variant.framework, variant.label]
    for framework in (FAST, STAR)
    for variant in spawning(framework)
]
# What the rows of each table begin with, by the benchmarks that make the tables.
ROWS: dict[str, dict[str, list[list[str]]]] = {
    "spawning": {"spawning": [["1"], ["2"]]},
    "background": {"background": [["1"], ["2"]]},
    "limit": {
        "limit": [
            ["time, of quattro"],
            ["bytes a waiting child"],
            ["early end"],
            ["warnings at the early end"],
        ]
    },
    "map": {"map": [[name] for name in mappers()]},
    "gather": {
        "gather": [
            ["asyncio.gather"],
            ["asyncio.TaskGroup, by hand"],
            ["quattro_core, by hand"],
            ["quattro.gather"],
        ],
        "gathers": [["1"], ["2"]],
    },
    "growth": {"growth": [[name] for name in kinds()]},
    "instructions": {"instructions": GROUPS},
    "time": {"time": GROUPS},
    "connections": {"connections": OVER_UVICORN},
    "children": {"children": SPAWNING},
    "open": {
        "open-in-process": [[kind] for kind in KINDS],
        "open-over-uvicorn": [[kind] for kind in KINDS],
    },
    "telemetry": {
        "telemetry": [[variant.group, variant.label] for variant in telemetry_variants()],
        "look": [["snapshot"], ["snapshot, as JSON"], ["all of it"], ["all of it, as JSON"]],
    },
    "wrk": {"wrk": [row for row in GROUPS if row[1] in (*EXACT, *PEERS)]},
    "streams": {
        "streams": [[kind] for kind in OPEN_KINDS[STREAMS]],
        "sockets": [[kind] for kind in OPEN_KINDS[SOCKETS]],
    },
}
# How many goals each has, of which nothing may be left out.
GOALS = {
    "spawning": 4,
    "background": 4,
    "limit": 4,
    "gather": 4,
    "instructions": 6,
    "time": 6,
    "connections": 6,
    "open": 8,
    "telemetry": 6,
    "wrk": 8,
    "streams": 6,
}


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("name", BENCHMARKS)
def test_tables(name: str) -> None:
    """A benchmark makes its tables with all of their rows, and tells what became of its goals."""
    report = Report(TINY.name)
    run: Callable[..., None] = BENCHMARKS[name]
    if name in ("instructions", "telemetry"):
        run = partial(run, tool=COUNTER)
    if name == "wrk":
        run = partial(run, tool=LOADER)
    run(report, TINY)
    for key, rows in ROWS[name].items():
        table = report.tables.pop(key)
        found = [row[: len(start)] for row, start in zip(table["rows"], rows, strict=False)]
        assert found == rows
        assert all(len(row) == len(table["header"]) for row in table["rows"])
        assert len(table["rows"]) == len(rows) or key == "gather"  # one more where there is ours
    assert report.tables == {}
    assert len(report.goals) >= GOALS.get(name, 0)
    assert len({(goal.what, goal.measured_as) for goal in report.goals}) == len(report.goals)


def test_limiters_end_what_they_started() -> None:
    """What is compared under a limit is compared for the same: quattro's and ours, and by hand."""
    assert list(LIMITERS)[:3] == ["quattro_core", "quattro", "asyncio, Semaphore"]


def test_valgrind_is_what_counts() -> None:
    """Instructions are counted by callgrind, which follows the processes that are forked."""
    assert VALGRIND[:2] == ("valgrind", "--tool=callgrind")


def test_wrk_is_what_loads() -> None:
    """A real wrk makes requests, and a second of it tells what they took."""
    if shutil.which(WRK[0]) is None:
        pytest.skip("wrk is missing: apt-get install wrk")
    variants = [each for each in all_variants() if each.name == "Starlette, no children: ours"]
    for serve in SERVERS.values():
        with serving(makers(variants), 1, serve) as servers:
            assert all(0 < microseconds(each, 2, WRK) < 1e6 for each in servers.values())


def test_without_wrk() -> None:
    """Without wrk, its benchmark is left out, and the output says where to get it."""
    report = Report(TINY.name)
    under_wrk(report, TINY, tool=["no-such-program"])
    assert report.tables == {}
    assert "apt-get install wrk" in report.notes[0]


def test_rounds_until_they_agree() -> None:
    """More rounds narrow what is said of a ratio: it is of the medians of eighths of them."""
    one = [1.0, 1.2] * 40
    found = steady_ratio({"one": one, "other": [1.0] * 80}, "one", "other")
    assert spread(one) == Spread(1.1, 1.0, 1.2)
    assert not agree([spread(one)])
    assert (found.low, found.median, found.high) == (1.1, 1.1, 1.1)
    assert agree([found])


def test_rounds() -> None:
    """There are as many rounds as there have to be, even where they take longer than planned."""
    assert list(Rounds(3, 0)) == [0, 1, 2]


def test_result_of_some(tmp_path: Path) -> None:
    """The result of some benchmarks takes the place of theirs in that of all, which says so."""
    path = tmp_path / "result.json"
    for measured, only in ((1.5, []), (1.0, ["limit"]), (1.0, ["map"]), (0.5, ["limit"])):
        report = Report("tiny")
        report.goal(Goal("children", "time", 1, exactly(measured)))
        report.table("limit", "Limits", ["", "ours"], [["time", str(measured)]])
        if not only:
            report.goal(Goal("others", "time", 1, exactly(1)))
            report.table("map", "Maps", ["", "ours"], [["time", "1"]])
        report.close(path, only=only)
    result = json.loads(path.read_text("utf-8"))
    assert re.fullmatch("map: .*; limit: [^;]*", result["environment"]["measured anew"])
    assert [goal["measured"]["median"] for goal in result["goals"]] == [0.5, 1]
    assert result["tables"]["limit"]["rows"] == [["time", "0.5"]]
    assert result["tables"]["map"]["rows"] == [["time", "1"]]
