"""The engines that there are, run through the conformance suite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

pytest.importorskip("docket", reason="pydocket is missing: pip install 'quattro-web[docket]'")

from quattro_web._jobs.docket_engine import DocketEngine
from quattro_web._jobs.engine import JobEngine
from tests.jobs.conformance import JobEngineConformance
from tests.jobs.services import DurableRedis
from tests.locks.conftest import _skip_without


@pytest.fixture(scope="module")
def the_redis() -> Iterator[DurableRedis]:
    """A Redis that the tests put out of reach."""
    service = DurableRedis()
    _skip_without(service)
    with service:
        yield service


class TestDocketInMemory(JobEngineConformance):
    """D1, D2, D3, D4: docket in memory does what the client and the worker rely on."""

    def make_engine(self, name: str) -> JobEngine:
        return DocketEngine(f"memory://{name}", name=name, redelivery=self.redelivery)


class TestDocketOnRedis(JobEngineConformance):
    """D1, D2, D3, D4: docket on Redis does what the client and the worker rely on."""

    @pytest.fixture(autouse=True)
    def on(self, the_redis: DurableRedis) -> None:
        self.service = the_redis
        self.url = the_redis.url

    def __reduce__(self) -> tuple[type[_Elsewhere], tuple[str]]:
        return _Elsewhere, (self.url,)

    def make_engine(self, name: str) -> JobEngine:
        return DocketEngine(self.url, name=name, redelivery=self.redelivery)

    @contextmanager
    def outage(self) -> Iterator[None]:
        self.service.kill()
        try:
            yield
        finally:
            self.service.start()


class _Elsewhere(JobEngineConformance):
    """The same in another process."""

    def __init__(self, url: str) -> None:
        self._url = url

    def make_engine(self, name: str) -> JobEngine:
        return DocketEngine(self._url, name=name, redelivery=self.redelivery)
