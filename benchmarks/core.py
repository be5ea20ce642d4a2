"""What `quattro_core.TaskGroup` costs: `python -m benchmarks.core [--quick]`.

Each table is the result of interleaved runs in this process, as ratios: the median of all rounds,
and the spread of the middle half of them in parentheses.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import time
import warnings
from pathlib import Path
from typing import Any

from benchmarks.core_measure import Scenario, bytes_each, ratios
from benchmarks.report import Report
from quattro_core import TaskGroup

GOALS = {1: "<= 1.02", 10: "<= 1.00", 1000: "<= 1.00", 100_000: "<= 1.00"}
LIMIT = 10


def peers() -> dict[str, Any]:
    """Return the task groups to compare with: asyncio's, and those that are installed."""
    found: dict[str, Any] = {"asyncio": asyncio.TaskGroup, "quattro_core": TaskGroup}
    for package, name in (("quattro", "TaskGroup"), ("anyio", "create_task_group")):
        try:
            found[package] = getattr(importlib.import_module(package), name)
        except ImportError:
            print(f"{package} is not installed: skipped\n")
    return found


async def child() -> None:
    """Wait once, and end."""
    await asyncio.sleep(0)


def spawn_and_join(kind: Any, children: int, repeats: int) -> Scenario:
    """Return a scenario that opens groups, one after the other, with so many children each."""

    async def of_asyncio() -> None:
        for _ in range(repeats):
            async with kind() as group:
                for _ in range(children):
                    group.create_task(child())

    async def of_anyio() -> None:
        for _ in range(repeats):
            async with kind() as group:
                for _ in range(children):
                    group.start_soon(child)

    return of_asyncio if hasattr(kind, "create_task") else of_anyio


def spawning(report: Report, *, quick: bool) -> None:
    """Compare opening a group, spawning N children, and joining them."""
    kinds, rows = peers(), []
    for children, goal in GOALS.items():
        repeats = max(1, 500 // children)
        if children > 1000:
            rounds = 3 if quick else 15
        else:
            rounds = 25 if quick else 400
        scenarios = {
            name: spawn_and_join(kind, children, repeats)
            for name, kind in kinds.items()
            if not (quick and name == "anyio" and children > 1000)  # takes half a minute
        }
        result = ratios(scenarios, "asyncio", rounds)
        cells = [str(result.get(name, "not in --quick")) for name in kinds]
        rows.append([f"{children}", *cells, goal])
    title = "Spawning and joining, asyncio.TaskGroup = 1"
    report.table(title, ["children", *kinds, "goal for quattro_core"], rows)


def limited(kind: Any, children: int) -> Scenario:
    """Return a scenario in which children wait for one of ten slots."""

    async def scenario() -> None:
        async with kind(concurrency_limit=LIMIT) as group:
            for _ in range(children):
                group.create_task(child())

    return scenario


async def waiting_bytes(kind: Any, children: int) -> float:
    """Return the bytes of a child that waits for its slot, its coroutine included."""
    async with kind(concurrency_limit=LIMIT) as group:

        def spawn() -> None:
            for _ in range(children):
                group.create_task(child())

        return await bytes_each(spawn, children)


async def abort_seconds(kind: Any, children: int) -> float:
    """Return the time from an error to the end of a group whose children wait for their slots."""
    started = 0.0
    try:
        async with kind(concurrency_limit=LIMIT) as group:
            for _ in range(children):
                group.create_task(child())
            await asyncio.sleep(0)
            started = time.perf_counter()
            raise ValueError
    except* ValueError:
        seconds = time.perf_counter() - started
    return seconds


def limiting(report: Report, *, quick: bool) -> None:
    """Compare 100 000 children under a `concurrency_limit` of ten with quattro's."""
    kinds = {"quattro_core": TaskGroup}
    try:
        kinds["quattro"] = importlib.import_module("quattro").TaskGroup
    except ImportError:
        print("quattro is not installed: no ratio of time\n")
    children = 100_000
    base = "quattro" if "quattro" in kinds else "quattro_core"
    scenarios = {name: limited(kind, children) for name, kind in kinds.items()}
    times = ratios(scenarios, base, 3 if quick else 7)
    rows = [["time, quattro = 1", *(str(times[name]) for name in kinds), "<= 0.60"]]
    sizes = [f"{asyncio.run(waiting_bytes(kind, 20_000)):.0f}" for kind in kinds.values()]
    rows.append(["bytes a waiting child", *sizes, "<= 500"])
    abort = f"{asyncio.run(abort_seconds(TaskGroup, children)):.2f} s"
    # quattro's abort is quadratic: all of them would take over a minute.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of coroutines that it leaves unawaited
        others = [
            f"{asyncio.run(abort_seconds(kind, 5000)):.2f} s for 5 000" for kind in kinds.values()
        ]
    rows.append([f"abort of {children}", abort, *others[1:], "< 1 s"])
    report.table(f"A limit of {LIMIT}, {children} children", ["", *kinds, "goal"], rows)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, below a minute")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    arguments: Any = parser.parse_args()
    report = Report("quattro-web", "quattro", "anyio")
    spawning(report, quick=arguments.quick)
    limiting(report, quick=arguments.quick)
    report.save(arguments.json)


if __name__ == "__main__":
    main()
