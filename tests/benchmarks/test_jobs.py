"""The benchmark of jobs runs, with tiny numbers, for what is installed."""

import pytest

pytest.importorskip("docket", reason="pydocket is missing: pip install 'quattro-web[docket]'")

from collections.abc import Iterator

from benchmarks.jobs import main
from tests.locks.conftest import _service
from tests.locks.kinds import REDIS


@pytest.fixture
def url() -> Iterator[str]:
    yield from _service("redis", REDIS)


def test_jobs(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It has a row for each number of children and one for cancellations, and a goal for each."""
    main(url, {1: 1, 2: 1})
    printed = capsys.readouterr().out
    for row in ("await 1", "await 2", "cancel one", "1 children", "2 children", "a cancellation"):
        assert f"\n| {row} | " in printed
