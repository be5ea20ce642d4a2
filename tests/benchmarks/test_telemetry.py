"""What telemetry costs those who start nothing: nothing, to the bytecode."""

from __future__ import annotations

import pytest

from benchmarks.size import TINY
from benchmarks.web_telemetry import KINDS, OFF, bytecodes, in_fork, telemetry_variants

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != OFF])
def test_bytecodes(kind: str) -> None:
    """O2: A request that starts nothing executes as many bytecodes with telemetry as without, and
    one that starts children does with metrics."""
    variants = {(bool(each.children), each.label): each for each in telemetry_variants()}

    def executed(label: str, *, spawns: bool) -> float:
        return in_fork(variants[spawns, label], TINY, bytecodes)

    assert executed(kind, spawns=False) == executed(OFF, spawns=False) > 100
    if kind not in ("traces", "a span for each child"):
        assert executed(kind, spawns=True) == executed(OFF, spawns=True)
