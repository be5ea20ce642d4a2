"""The servers of the matrix, each started once for all tests of this folder."""

from collections.abc import Iterator
from itertools import count

import pytest

from tests.servers.matrix import OPTIONAL, Matrixed, commands, need


@pytest.fixture(scope="session", params=commands())
def server(request: pytest.FixtureRequest) -> Iterator[Matrixed]:
    """A server of the matrix; after all of its tests nothing may be left in it."""
    name: str = request.param
    need(*OPTIONAL & {*name.split("-")})
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
