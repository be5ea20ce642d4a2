"""What makes benchmarks fast enough for a test: none of these changes what they do."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_debug_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio's debug mode is for tests of what runs; the servers would take a minute in it."""
    monkeypatch.delenv("PYTHONASYNCIODEBUG", raising=False)


@pytest.fixture(autouse=True)
def no_old_objects() -> Iterator[None]:
    """Benchmarks collect garbage often, and that of all the other tests is none of theirs."""
    gc.freeze()
    yield
    gc.unfreeze()
