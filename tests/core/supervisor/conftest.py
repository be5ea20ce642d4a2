"""The loops that supervision is tested on, and its delays."""

from __future__ import annotations

import pytest

from quattro_core import RestartPolicy
from tests.core.conftest import LOOPS, Run


@pytest.fixture(params=sorted(LOOPS.keys() - {"uvloop"}))
def run(request: pytest.FixtureRequest) -> Run:
    """A loop on a virtual clock: policies take minutes."""
    return Run(LOOPS[request.param])


@pytest.fixture(autouse=True)
def longest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every delay be the longest that its policy allows."""
    monkeypatch.setattr(RestartPolicy.delay, "__kwdefaults__", {"uniform": lambda _, high: high})
