"""The module that the README's examples import."""

import sys
from collections.abc import Iterator

import pytest

from tests.docs import my_shop


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What became of the calls to shops."""
    monkeypatch.setitem(sys.modules, "my_shop", my_shop)
    my_shop.told.clear()
    yield my_shop.told
    my_shop.told.clear()
