"""The servers of the matrix, each started once for all tests of this folder."""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import count

import pytest

from tests.servers.matrix import OPTIONAL, Matrixed, commands


@pytest.fixture(scope="session", params=commands())
def server(request: pytest.FixtureRequest) -> Iterator[Matrixed]:
    """A server of the matrix; after all of its tests nothing may be left in it."""
    name: str = request.param
    for module in OPTIONAL & {*name.split("-")}:
        if find_spec(module) is None:
            reason = f"{module} is not installed"
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    with Matrixed(name) as server:
        yield server
        assert server.get("tasks", "the-end") == "", "tasks are left"
    for mishap in ("Task was destroyed", "never awaited", "never retrieved", "was never closed"):
        assert mishap not in server.log


_keys = count(1)


@pytest.fixture
def key() -> str:
    """What tells the requests of a test from those of others, in paths and in the log."""
    return f"k{next(_keys)}"
