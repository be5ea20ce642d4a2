"""Interleaved measurements: what is noise for one is noise for all."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
import tracemalloc
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

Scenario = Callable[[], Coroutine[Any, Any, object]]


@dataclass(frozen=True)
class Ratio:
    """The cost of one thing in terms of another, over the rounds of a run."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f}-{self.high:.3f})"


def ratios(scenarios: dict[str, Scenario], base: str, rounds: int) -> dict[str, Ratio]:
    """Run all scenarios in turn, round by round, and compare each with *base* of its round.

    The spread is that of the middle half of the rounds.
    """
    times: dict[str, list[float]] = {name: [] for name in scenarios}
    with asyncio.Runner(debug=False) as runner:
        for scenario in scenarios.values():
            runner.run(scenario())  # the first run is for the caches of the interpreter
        names = list(scenarios)
        for number in range(rounds):
            gc.collect()
            # Not always in the same order: who comes first pays for the frequency of the CPU.
            turn = names[number % len(names) :] + names[: number % len(names)]
            for name in turn:
                started = time.perf_counter()
                runner.run(scenarios[name]())
                times[name].append(time.perf_counter() - started)
    return {name: _ratio(times[name], times[base]) for name in scenarios}


def _ratio(times: list[float], base: list[float]) -> Ratio:
    quotients = [one / other for one, other in zip(times, base, strict=True)]
    if len(quotients) < 2:
        return Ratio(quotients[0], quotients[0], quotients[0])
    low, median, high = statistics.quantiles(quotients, n=4, method="inclusive")
    return Ratio(median, low, high)


async def bytes_each(spawn: Callable[[], object], count: int) -> float:
    """Return the bytes that each of *count* things takes that *spawn* makes."""
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        kept = spawn()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    del kept
    return (after - before) / count
