"""Goals, beside what was measured."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.measure import Spread

HEADER = ["", "measured as", "goal", "measured", ""]


@dataclass(frozen=True)
class Goal:
    """An upper bound for one thing, and what came out."""

    what: str
    measured_as: str
    most: float
    measured: Spread
    digits: int = 3

    @property
    def verdict(self) -> str:
        """Whether it is met; a spread that has the goal in it leaves that open."""
        said = "met" if self.measured.median <= self.most else "missed"
        low, high = self.measured.low, self.measured.high
        return f"{said}, within the spread" if low < self.most < high else said

    def row(self) -> list[str]:
        """Return the row of the table of all goals."""
        return [self.what, self.measured_as, f"{self.most:g}", self._result(), self.verdict]

    def _result(self) -> str:
        low, median, high = (
            f"{value:.{self.digits}f}"
            for value in (self.measured.low, self.measured.median, self.measured.high)
        )
        return median if low == high else f"{median} ({low}-{high})"


def exactly(value: float) -> Spread:
    """Return what has no spread: something that was counted."""
    return Spread(value, value, value)
