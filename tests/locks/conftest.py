"""The services of the tests: those that run already, else our own, else a reason to skip."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.locks.kinds import POSTGRES, REDIS
from tests.locks.services import PROGRAMS, Service, answers


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL."""
    yield from _service("postgres", POSTGRES)


@pytest.fixture(scope="session")
def redis() -> Iterator[str]:
    """The URL of a Redis."""
    yield from _service("redis", REDIS)


@pytest.fixture(params=["file", "asyncpg", "psycopg", "redis"])
def lock(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A lock, for `tests.locks.kinds.make`: each kind in turn."""
    kind = request.param
    if kind == "file":
        return f"file={tmp_path / 'the.lock'}"
    service = "redis" if kind == "redis" else "postgres"
    return f"{kind}={request.getfixturevalue(service)}"


@pytest.fixture(params=["asyncpg", "psycopg", "redis"])
def own_service(
    request: pytest.FixtureRequest,
) -> Iterator[tuple[str, Service]]:
    """A lock, and the service of its own that it is in, which a test may kill."""
    kind = request.param
    service = PROGRAMS["redis" if kind == "redis" else "postgres"]()
    _skip_without(service)
    with service:
        yield f"{kind}={service.url}", service


def _service(name: str, url: str) -> Iterator[str]:
    if answers(url):
        yield url
        return
    service = PROGRAMS[name]()
    _skip_without(service)
    with service:
        yield service.url


def _skip_without(service: Service) -> None:
    missing = service.missing()
    if missing and os.environ.get("CI"):
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)
