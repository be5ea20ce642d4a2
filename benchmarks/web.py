"""What a request costs with quattro_web, as a ratio to the framework without it.

In process, by instructions where valgrind is installed and by CPU time, and over a real uvicorn
with 1 to 1 000 connections and 1 to 1 000 children: ``python -m benchmarks.web [--quick]``. The
options choose one of these.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.plot import Bar, bars
from benchmarks.report import Report
from benchmarks.web_process import Samples, all_variants, counted, fork_all, timed
from benchmarks.web_server import served, serving
from benchmarks.web_variants import FAST, STAR, Variant, missing_peers, spawning

CONNECTIONS = {1: 600, 100: 1000, 1000: 2000}  # and how many requests are made in a round
CHILDREN = {1: 500, 10: 500, 100: 150, 1000: 30}
PACKAGES = (
    *("quattro-web", "fastapi", "starlette", "uvicorn", "uvloop", "httptools"),
    *("asgi-background", "fastapi-disconnect"),
)


def ratios(variant: Variant, variants: Sequence[Variant], samples: Samples) -> list[float]:
    """Return the cost of a variant in terms of the first of its group, round by round."""
    base = next(other for other in variants if other.group == variant.group)
    return [
        ours / theirs
        for ours, theirs in zip(samples[variant.name], samples[base.name], strict=True)
    ]


def verdict(goal: float | None, ratio: float) -> str:
    if goal is None:
        return "-"
    return f"{goal:.2f} {'met' if ratio <= goal else 'MISSED'}"


def in_process(report: Report, title: str, unit: str, samples: Samples) -> None:
    """Report medians, the ratio with its middle half, and the goal."""
    variants, rows = all_variants(), []
    for variant in variants:
        ratio = ratios(variant, variants, samples)
        middle = "-"
        if len(ratio) > 1:
            low, _, high = statistics.quantiles(ratio, n=4)
            middle = f"{low:.3f} to {high:.3f}"
        median, own = statistics.median(ratio), statistics.median(samples[variant.name])
        cells = [f"{own:.1f}", f"{median:.3f}", middle, verdict(variant.goal, median)]
        rows.append([variant.group, variant.label, *cells])
    header = ["", "", unit, "ratio", "middle half", "goal"]
    report.table(title, header, rows, samples=samples)


def over_uvicorn(
    report: Report, title: str, variants: list[list[Variant]], samples: dict[int, Samples]
) -> None:
    """Report the ratios, a column for each load; *variants* has a list for each of them."""
    rows = []
    for row in zip(*variants, strict=True):
        cells = []
        for variant, group, measured in zip(row, variants, samples.values(), strict=True):
            ratio = statistics.median(ratios(variant, group, measured))
            own = statistics.median(measured[variant.name])
            missed = " MISSED" if "MISSED" in verdict(variant.goal, ratio) else ""
            cells.append(f"{ratio:.2f} ({own:.0f} µs){missed}")
        goal = "-" if row[0].goal is None else f"{row[0].goal:.2f}"
        name = row[0].group if row[0].group == row[-1].group else row[0].framework
        rows.append([name, row[0].label, *cells, goal])
    header = ["", "", *(f"{load:,}".replace(",", " ") for load in samples), "goal"]
    report.table(title, header, rows, samples=samples)


def plot(path: Path, title: str, variants: list[Variant], samples: Samples) -> None:
    """Draw the ratios as bars."""
    groups: dict[str, list[Bar]] = {}
    for variant in variants:
        ratio = statistics.median(ratios(variant, variants, samples))
        groups.setdefault(variant.group, []).append(Bar(variant.label, ratio, variant.goal))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(bars(title, groups))


def by_connections(report: Report, *, quick: bool) -> tuple[list[Variant], Samples]:
    """Report uvicorn under more and more connections; return what it was like under 100."""
    skipped = {"plain dependency"}
    variants = [variant for variant in all_variants() if variant.label not in skipped]
    rounds = 7 if quick else 21
    with serving(variants) as servers:
        samples = {
            connections: served(servers, connections, count // (2 if quick else 1), rounds)
            for connections, count in CONNECTIONS.items()
        }
    title = "CPU time of uvicorn for a request, by the number of connections"
    over_uvicorn(report, title, [variants] * len(samples), samples)
    return variants, samples[100]


def by_children(report: Report, *, quick: bool) -> None:
    """Report uvicorn under 10 connections whose requests start more and more children."""
    rounds = 7 if quick else 21
    variants: list[list[Variant]] = []
    samples: dict[int, Samples] = {}
    for children, count in CHILDREN.items():
        variants.append(spawning(FAST, children) + spawning(STAR, children))
        with serving(variants[-1]) as servers:
            samples[children] = served(servers, 10, count // (2 if quick else 1), rounds)
    title = "CPU time of uvicorn for a request, 10 connections, by the number of children"
    over_uvicorn(report, title, variants, samples)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.web", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--uvloop", action="store_true", help="in process on uvloop")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument("--plots", type=Path, help="also draw plots, in this directory")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--callgrind", action="store_true", help="only instructions in process")
    how.add_argument("--time", action="store_true", help="only CPU time in process")
    how.add_argument("--server", action="store_true", help="only CPU time of a real uvicorn")
    how.add_argument("--forks", type=int, help=argparse.SUPPRESS)
    arguments: Any = parser.parse_args()
    quick, uvloop = arguments.quick, arguments.uvloop
    if arguments.forks:
        fork_all(arguments.forks, uvloop=uvloop)
        return
    everything = not (arguments.callgrind or arguments.time or arguments.server)
    report = Report(*PACKAGES)
    for peer in missing_peers():
        report.note(f"Left out: {peer}, which is not installed here, or not made for this Python.")
    where = f"for a request in process, {'uvloop' if uvloop else 'asyncio'}"
    if arguments.callgrind or everything:
        title = f"Instructions {where}"
        if shutil.which("valgrind"):
            samples = counted(quick=quick, uvloop=uvloop)
            in_process(report, title, "thousand", samples)
            if arguments.plots:
                plot(arguments.plots / "web-in-process.svg", title, all_variants(), samples)
        else:
            report.note(f"Left out: {title}, for which valgrind is missing.")
    if arguments.time or everything:
        in_process(report, f"CPU time {where}", "µs", timed(quick=quick, uvloop=uvloop))
    if arguments.server or everything:
        if Path("/proc/self/schedstat").exists():
            variants, samples = by_connections(report, quick=quick)
            if arguments.plots:
                title = "CPU time of uvicorn for a request, 100 connections"
                plot(arguments.plots / "web-uvicorn.svg", title, variants, samples)
            by_children(report, quick=quick)
        else:
            report.note("Left out: uvicorn, whose CPU time is read from Linux's /proc.")
    report.save(arguments.json)


if __name__ == "__main__":
    main()
