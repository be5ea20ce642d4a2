"""The engines of the tests: docket in memory, and on a Redis that runs or is started."""

from __future__ import annotations

import gc
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs.services import DurableRedis
from tests.locks.conftest import _service, _skip_without
from tests.locks.kinds import REDIS
from tests.locks.services import RedisService

HERE = Path(__file__).parent

# A connection of redis-py's that is given up while it is made may be left to the garbage collector.
_OF_REDIS = (
    "ignore:(?s)Exception ignored.*ResourceWarning. (unclosed|loop is closed)"
    ":pytest.PytestUnraisableExceptionWarning"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let tests here pass where that is so: see `collected`."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings(_OF_REDIS))


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Have what a test has left collected in it, and not in any other."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def redis() -> Iterator[str]:
    """The URL of a Redis."""
    yield from _service("redis", REDIS)


@pytest.fixture
def own_redis() -> Iterator[RedisService]:
    """A Redis that the test may kill."""
    service = RedisService()
    _skip_without(service)
    with service:
        yield service


@pytest.fixture
def durable_redis() -> Iterator[DurableRedis]:
    """A Redis that the test may kill, and that forgets nothing."""
    service = DurableRedis()
    _skip_without(service)
    with service:
        yield service


@pytest.fixture(params=["memory", "redis"])
def url(request: pytest.FixtureRequest) -> str:
    """The URL of an engine: each kind in turn."""
    return "memory://" if request.param == "memory" else str(request.getfixturevalue("redis"))


@pytest.fixture
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    """A name that no other test's jobs have; what they leave in Redis is removed."""
    from tests.jobs.functions import log

    log.clear()
    own = f"quattro-web-test-{uuid.uuid4().hex[:8]}"
    yield own
    if "redis" in request.fixturenames:
        _forget(str(request.getfixturevalue("redis")), own)


def _forget(url: str, name: str) -> None:
    from redis import Redis

    with Redis.from_url(url) as client:
        for key in client.scan_iter(f"{name}:*", count=1000):
            client.delete(key)
