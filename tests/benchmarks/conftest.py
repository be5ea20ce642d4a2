"""Benchmarks measure what runs without asyncio's debug mode, which makes them take a minute."""

import pytest


@pytest.fixture(autouse=True)
def no_debug_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONASYNCIODEBUG")
