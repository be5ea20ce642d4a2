"""The fast half of ``python -m tests.transparency``: Starlette's own tests."""

from __future__ import annotations

import os

import pytest

from tests.transparency import _suites
from tests.transparency._differences import compare


@pytest.mark.timeout(600)  # the first run fetches and installs what the suite needs
def test_starlettes_own_tests_pass_with_the_middleware_around_every_app() -> None:
    """R10: Starlette's own tests pass as they do without the middleware, under trio too."""
    starlette = next(suite for suite in _suites.suites() if suite.name == "starlette")
    try:
        _suites.prepare(starlette)
    except _suites.UnavailableError as exc:
        if "CI" in os.environ:
            raise
        pytest.skip(str(exc))
    difference = compare(starlette, "innermost")
    assert difference.broken == []
    assert difference.passed >= starlette.at_least
