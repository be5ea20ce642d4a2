"""The page and the plots of a result: `python -m benchmarks.page`.

Whatever figures docs/benchmarks.md has are between markers, and come from the committed
docs/_static/benchmarks.json.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from benchmarks.goals import HEADER, Goal
from benchmarks.measure import Spread
from benchmarks.plot import Bar, chart
from benchmarks.report import markdown

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "benchmarks.md"
STATIC = DOCS / "_static"
RESULT = STATIC / "benchmarks.json"
PLOT = "benchmarks-{}.svg"

MARKED = re.compile(r"(<!-- begin (?P<key>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def goals_of(result: dict[str, Any]) -> list[Goal]:
    """Return the goals of a result."""
    return [Goal(**{**goal, "measured": Spread(**goal["measured"])}) for goal in result["goals"]]


def summary(goals: list[Goal]) -> str:
    """Return how many goals are met, in a sentence."""
    missed = [goal for goal in goals if goal.verdict.startswith("missed")]
    if not missed:
        return f"All {len(goals)} goals are met."
    open_ = sum(goal.verdict != "missed" for goal in missed)
    return (
        f"{len(goals) - len(missed)} of {len(goals)} goals are met, and {len(missed)} are missed"
        + (f", {open_} of these by less than the spread." if open_ else ".")
    )


def answers(result: dict[str, Any]) -> str:
    """Return what a user wants to know first, as a table of questions and answers."""

    def cell(key: str, column: str, *names: str) -> str:
        table = result["tables"][key]
        (row,) = [row for row in table["rows"] if tuple(row[: len(names)]) == names]
        return str(row[table["header"].index(column)]).partition(" (")[0]

    def more(framework: str, who: str) -> str:
        microseconds = [
            float(cell("time", "µs", f"{framework}, no children", each)) for each in (who, "bare")
        ]
        return f"{microseconds[0] - microseconds[1]:.1f} µs"

    def both(who: str) -> str:
        return f"{more('FastAPI', who)} in FastAPI, {more('Starlette', who)} in Starlette"

    def percent(ratio: str) -> str:
        change = round(100 * (float(ratio) - 1))
        return f"{abs(change)} % {'more' if change >= 0 else 'less'}"

    def more_than_by_hand(column: str) -> str:
        return f"{percent(cell('streams', column, 'ours'))} than by hand"

    open_streams = result["tables"]["streams"]["title"].partition(" ")[0]
    ten = {
        each: percent(cell("time", "ratio", f"{each}, 10 children", "ours"))
        for each in ("FastAPI", "Starlette")
    }
    return markdown(
        ["You want to know", "Measured"],
        [
            [
                "what `install(app)` adds to a request that does not use it",
                both("ours"),
            ],
            [
                "the same, with `cancel_on_disconnect=True`",
                both("ours, watching"),
            ],
            [
                "for comparison: what an empty `BaseHTTPMiddleware` adds",
                both("BaseHTTPMiddleware"),
            ],
            [
                "the time of a request with ten children, compared to an `asyncio.TaskGroup`",
                f"{ten['FastAPI']} in FastAPI, {ten['Starlette']} in Starlette",
            ],
            [
                "the memory of an open event stream with a task that feeds it",
                f"{cell('streams', 'KiB each', 'ours')} KiB, {more_than_by_hand('of by hand')}",
            ],
            [
                f"the time from SIGTERM to the end, with {open_streams} such streams",
                f"{cell('streams', 'seconds to the end', 'ours')} s, "
                + more_than_by_hand("of the end by hand"),
            ],
            [
                "the time of ten children in `quattro_core`, compared to `asyncio.TaskGroup`",
                percent(cell("spawning", "quattro_core", "10")),
            ],
            [
                "the memory of a child that waits for its turn under a limit",
                f"{cell('limit', 'quattro_core', 'bytes a waiting child')} bytes",
            ],
            [
                "the memory of `tg.map` for a million items",
                f"{cell('map', 'KiB for 1000000 items', 'quattro_core, map')} KiB",
            ],
        ],
    )


def pieces(result: dict[str, Any]) -> dict[str, str]:
    """Return what the page has between its markers, by their names."""
    goals = goals_of(result)
    facts = [f"- {name}: {value}" for name, value in result["environment"].items()]
    tables = {
        key: markdown(table["header"], table["rows"]) for key, table in result["tables"].items()
    }
    return {
        **tables,
        "answers": answers(result),
        "environment": "\n".join([*facts, *(f"- {note}" for note in result["notes"])]),
        "goals": f"{summary(goals)}\n\n{markdown(HEADER, [goal.row() for goal in goals])}",
    }


def filled(page: str, result: dict[str, Any]) -> str:
    """Return the page with the figures of a result.

    Raises:
        KeyError: If the page has a marker for something that the result does not have.
    """
    found = pieces(result)

    def fill(match: re.Match[str]) -> str:
        # Blank lines around a table: it would be a part of the comment otherwise.
        return f"{match[1]}\n{found[match['key']]}\n\n{match[3]}"

    return MARKED.sub(fill, page)


def plots(result: dict[str, Any]) -> dict[str, str]:
    """Return the plots of a result, by the names of their files."""
    found = {}
    for key, table in result["tables"].items():
        if table["bars"]:
            title = ", ".join(filter(None, (table["title"], table["unit"])))
            found[PLOT.format(key)] = chart(title, [Bar(**bar) for bar in table["bars"]])
    return found


def main() -> None:
    """Write the page and the plots."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else RESULT
    result = json.loads(path.read_text(encoding="utf-8"))
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), result), encoding="utf-8")
    for name, image in plots(result).items():
        (STATIC / name).write_text(image, encoding="utf-8")
    print(f"written: {PAGE}, and its plots")


if __name__ == "__main__":
    main()
