"""A function called for each of many items, ten at once: time and memory."""

from __future__ import annotations

from functools import partial

from benchmarks.core_mappers import BASE, LIMIT, MAP, SLOW, mappers
from benchmarks.goals import Goal, exactly
from benchmarks.measure import interleaved, ratios
from benchmarks.memory import peak_of
from benchmarks.plot import Bar
from benchmarks.report import Report
from benchmarks.size import Size

# Whose memory could be the same for a million.
CONSTANT = (MAP, "asyncio, workers by hand")


def map_(report: Report, size: Size) -> None:
    """Compare the time for all items, and the most memory that it took."""
    kinds = mappers()
    scenarios = {name: partial(run, size.items) for name, run in kinds.items()}
    samples = interleaved(scenarios, size.rounds(90), slow=SLOW, few=size.few)
    times = ratios(samples, BASE)
    few, many = size.stream
    rows = []
    for name, run in kinds.items():
        less = peak_of(partial(run, few))
        more = peak_of(partial(run, many)) if name in CONSTANT else None
        cells = [f"{less / 1024:.0f}", "" if more is None else f"{more / 1024:.0f}"]
        rows.append([name, str(times[name]), *cells])
        if name == MAP and more is not None:
            growth = exactly(more / less)
            how = f"memory for {many}, of that for {few}"
            report.goal(Goal(f"map, limit {LIMIT}", how, 1.1, growth))
    what = f"map of {size.items} items, limit {LIMIT}"
    report.goal(Goal(what, "time, of quattro's tasks under a limit", 0.2, times[MAP]))
    bars = [Bar.of(what, name, times[name], 0.2 if name == MAP else None) for name in kinds]
    header = ["", "time, of quattro", f"KiB for {few} items", f"KiB for {many} items"]
    title = f"{size.items} items, ten at once; quattro's tasks under a limit = 1"
    report.table("map", title, header, rows, bars=bars)
