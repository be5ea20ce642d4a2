"""What a request costs, as a ratio to the framework without quattro_web.

In process, by instructions where valgrind is installed and by CPU time, and over a real uvicorn
with more and more connections and children.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial

from benchmarks.goals import Goal
from benchmarks.measure import Samples, ratio, spread
from benchmarks.plot import Bar
from benchmarks.report import Report
from benchmarks.size import Size
from benchmarks.web_callgrind import VALGRIND, counted
from benchmarks.web_load import HAS_CLOCKS
from benchmarks.web_process import timed
from benchmarks.web_server import Make, served, serving
from benchmarks.web_variants import (
    FAST,
    STAR,
    Variant,
    all_variants,
    missing_peers,
    spawning,
    variant_app,
)

CHILDREN_CONNECTIONS = 10


def base_of(variant: Variant, variants: Sequence[Variant]) -> Variant:
    """Return what a variant is measured against: the first of its group."""
    return next(other for other in variants if other.group == variant.group)


def in_process(report: Report, key: str, title: str, unit: str, samples: Samples) -> None:
    """Report what a request of each variant costs, and its ratio."""
    variants, rows, bars = all_variants(), [], []
    for variant in variants:
        found = ratio(samples, variant.name, base_of(variant, variants).name)
        own = spread(samples[variant.name]).median
        rows.append([variant.group, variant.label, f"{own:.1f}", str(found)])
        bars.append(Bar.of(variant.group, variant.label, found, variant.goal))
        if variant.goal is not None:
            what = f"{variant.group}, {variant.label}"
            measured_as = f"{'instructions' if key == 'instructions' else 'time'} in process"
            report.goal(Goal(what, measured_as, variant.goal, found))
    report.table(key, title, ["", "", unit, "ratio"], rows, bars=bars)


def instructions(report: Report, size: Size, tool: Sequence[str] = VALGRIND) -> None:
    """Count the instructions of a request."""
    for peer in missing_peers():
        report.note(f"Left out: {peer}, which is not installed, or not made for this Python.")
    if shutil.which(tool[0]) is None:
        report.note("Left out: instructions, for which valgrind is missing.")
        return
    samples = counted(size, tool)
    title = f"Instructions for a request in process, {size.loop}"
    in_process(report, "instructions", title, "thousand", samples)


def in_time(report: Report, size: Size) -> None:
    """Measure the CPU time of a request in process."""
    samples = timed(size)
    in_process(report, "time", f"CPU time for a request in process, {size.loop}", "µs", samples)


def cells_of(variant: Variant, variants: Sequence[Variant], samples: Samples) -> str:
    """Return a ratio with its spread, and the time that it is a ratio of."""
    found = ratio(samples, variant.name, base_of(variant, variants).name)
    own = spread(samples[variant.name]).median
    return f"{found.median:.2f} ({found.low:.2f}-{found.high:.2f}), {own:.0f} µs"


def makers(variants: Sequence[Variant]) -> dict[str, Make]:
    """Return what another process makes the apps with."""
    return {
        variant.name: partial(variant_app, variant.framework, variant.children, variant.label)
        for variant in variants
    }


def connections(report: Report, size: Size) -> None:
    """Measure uvicorn under more and more connections."""
    if not HAS_CLOCKS:
        report.note("Left out: uvicorn, whose CPU time only Linux tells.")
        return
    variants = [variant for variant in all_variants() if variant.label != "plain dependency"]
    # The goals are for as many connections as are in the middle: these get the most time.
    middle = size.connections[len(size.connections) // 2]
    with serving(makers(variants), size.warm_up) as servers:
        found = {
            count: served(
                servers,
                count,
                size.load,
                size.rounds(140) if count == middle else size.rounds(50, least=size.few),
            )
            for count in size.connections
        }
    rows, bars = [], []
    for variant in variants:
        cells = [cells_of(variant, variants, samples) for samples in found.values()]
        rows.append([variant.group, variant.label, *cells])
        result = ratio(found[middle], variant.name, base_of(variant, variants).name)
        bars.append(Bar.of(variant.group, variant.label, result, variant.goal))
        if variant.goal is not None:
            what = f"{variant.group}, {variant.label}"
            measured_as = f"time over uvicorn, {middle} connections"
            report.goal(Goal(what, measured_as, variant.goal, result))
    title = "CPU time of uvicorn for a request, by the number of connections"
    header = ["", "", *map(str, found)]
    report.table("connections", title, header, rows, bars=bars, unit=f"{middle} connections")


def children(report: Report, size: Size) -> None:
    """Measure uvicorn under 10 connections whose requests start more and more children."""
    if not HAS_CLOCKS:
        return  # as said already
    rows: dict[tuple[str, str], list[str]] = {}
    for count in size.per_request:
        variants = spawning(FAST, count) + spawning(STAR, count)
        requests = max(CHILDREN_CONNECTIONS, size.load // max(1, count // 10))
        with serving(makers(variants), size.warm_up) as servers:
            samples = served(servers, CHILDREN_CONNECTIONS, requests, size.rounds(30))
        for variant in variants:
            cells = rows.setdefault((variant.framework, variant.label), [])
            cells.append(cells_of(variant, variants, samples))
    title = (
        f"CPU time of uvicorn for a request, {CHILDREN_CONNECTIONS} connections, "
        "by the number of children"
    )
    table = [[*names, *cells] for names, cells in rows.items()]
    report.table("children", title, ["", "", *map(str, size.per_request)], table)
