"""How much of the time a target was up."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel

HOUR = 3600
# The hours that a span has, and those that a bar of it has.
SPANS = {"24 hours": (24, 1), "7 days": (7 * 24, 6), "30 days": (30 * 24, 24)}
LONGEST = max(length for length, _ in SPANS.values())


class Checks(BaseModel):
    """How many checks there were, and how many of them were good."""

    checks: int = 0
    good: int = 0


class Bar(Checks):
    """The checks from *start* on, in seconds since 1970, up to the next bar."""

    start: int


class Span(Checks):
    """The checks of the last hours, as bars of equal length, the oldest first."""

    name: str
    bars: list[Bar]


def spans_of(hours: Mapping[int, Checks], now: float) -> list[Span]:
    """Return what is shown of the checks of each hour; hours count from 1970 on."""
    end = int(now // HOUR) + 1
    spans = []
    for name, (length, step) in SPANS.items():
        bars = [
            Bar(start=first * HOUR, **_total(hours, range(first, first + step)))
            for first in range(end - length, end, step)
        ]
        spans.append(Span(name=name, bars=bars, **_total(hours, range(end - length, end))))
    return spans


def _total(hours: Mapping[int, Checks], some: range) -> dict[str, int]:
    found = [hours[hour] for hour in some if hour in hours]
    return {
        "checks": sum(each.checks for each in found),
        "good": sum(each.good for each in found),
    }
