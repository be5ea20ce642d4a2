"""Interleaved measurements: what is noise for one is noise for all."""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Scenario = Callable[[], Coroutine[Any, Any, object]]
Samples = dict[str, list[float]]  # of each scenario one for each round


@dataclass(frozen=True)
class Spread:
    """What came out over the rounds of a run: the median, and where the middle half of them is."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.median:.3f}"
        return f"{self.median:.3f} ({self.low:.3f}-{self.high:.3f})"


def spread(values: Sequence[float]) -> Spread:
    """Return the median of the values, and the bounds of their middle half."""
    if len(values) < 2:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def ratio(samples: Samples, name: str, base: str) -> Spread:
    """Return what one thing costs in terms of another, in the rounds that had both."""
    pairs = zip(samples[name], samples[base], strict=False)
    return spread([one / other for one, other in pairs])


def ratios(samples: Samples, base: str) -> dict[str, Spread]:
    """Return what each thing costs in terms of one of them."""
    return {name: ratio(samples, name, base) for name in samples}


PARTS = 8


def steady_ratio(samples: Samples, name: str, base: str) -> Spread:
    """Return a ratio like `ratio`, with the middle half of the medians of eighths of the rounds.

    More rounds do not narrow the middle half of the rounds, but they do narrow that of the medians.
    """
    pairs = zip(samples[name], samples[base], strict=False)
    each = [one / other for one, other in pairs]
    step = max(1, len(each) // PARTS)
    found = spread([statistics.median(part) for part in batched(each, step)])
    return Spread(statistics.median(each), found.low, found.high)


def batched(values: Sequence[float], size: int) -> list[Sequence[float]]:
    """Return the values in parts of one size; what is left over goes to the last of them."""
    starts = range(0, max(1, len(values) - size + 1), size)
    return [values[start : start + size] for start in starts[:-1]] + [values[starts[-1] :]]


def turn(names: Sequence[str], number: int) -> list[str]:
    """Return the names in the order of a round, which is another one in each, and known.

    Who comes first pays for the frequency of the CPU, and who comes next for what the one before
    has left of the heap.
    """
    return random.Random(number).sample(names, len(names))


def interleaved(
    scenarios: Mapping[str, Scenario],
    rounds: Iterable[int],
    *,
    slow: Collection[str] = (),
    few: int = 1,
) -> Samples:
    """Run all scenarios in turn, round by round, and return the CPU seconds that each took.

    All of them compute and none waits, so that the time of the CPU is what they take; that of the
    clock would count what else the machine does.

    The *slow* ones, which take seconds each, are in the first *few* rounds only, so that there is
    time for more rounds of the others. They are not warmed up.
    """
    samples: Samples = {name: [] for name in scenarios}
    fast = [name for name in scenarios if name not in slow]
    with asyncio.Runner(debug=False) as runner:
        for name in fast:
            runner.run(scenarios[name]())  # the first run is for the caches of the interpreter
        for number in rounds:
            for name in turn(list(scenarios) if number < few else fast, number):
                gc.collect()
                started = time.process_time()
                runner.run(scenarios[name]())
                samples[name].append(time.process_time() - started)
    return samples
