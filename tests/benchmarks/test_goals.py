"""What is said of a goal."""

import pytest

from benchmarks.goals import Goal, exactly
from benchmarks.measure import Spread, ratio, spread


@pytest.mark.parametrize(
    ("measured", "verdict"),
    [
        (exactly(1.0), "met"),
        (exactly(1.001), "missed"),
        (Spread(0.98, 0.97, 0.99), "met"),
        (Spread(0.99, 0.97, 1.01), "met, within the spread"),
        (Spread(1.01, 0.99, 1.02), "missed, within the spread"),
        (Spread(1.03, 1.01, 1.05), "missed"),
    ],
)
def test_verdict(measured: Spread, verdict: str) -> None:
    """A goal is met or missed by the median; that it is within the spread is said as well."""
    goal = Goal("ten children", "time", 1.0, measured)
    assert goal.verdict == verdict
    assert goal.row()[:3] == ["ten children", "time", "1"]
    assert goal.row()[-1] == verdict


def test_ratio() -> None:
    """A ratio is that of one round, so that what is slow for both does not count."""
    samples = {"a": [1.0, 10.0, 2.0], "b": [2.0, 20.0, 4.0]}
    assert ratio(samples, "a", "b") == exactly(0.5)


def test_few_rounds() -> None:
    """What had fewer rounds is compared in those that it had."""
    assert ratio({"slow": [6.0], "fast": [2.0, 1.0]}, "slow", "fast") == exactly(3.0)


def test_spread() -> None:
    """The spread is that of the middle half."""
    assert spread([5.0, 1.0, 2.0, 4.0, 3.0]) == Spread(3.0, 2.0, 4.0)
