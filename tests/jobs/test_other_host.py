"""A worker on another host, and a cable that is pulled: no connection is told of its end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

pytest.importorskip("docket", reason="pydocket is missing: pip install 'quattro-web[docket]'")

from tests.jobs.services import DurableRedis
from tests.jobs.test_matrix import until
from tests.jobs.test_processes import APP, Herd
from tests.locks.conftest import _skip_without
from tests.support.hosts import OtherHost, missing
from tests.support.server import Server

MISSING = missing()


class ListeningRedis(DurableRedis):
    """A Redis that listens at the end of the cable as well."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self._address = address

    def _command(self) -> list[str]:
        command = super()._command()
        command.insert(command.index("127.0.0.1") + 1, self._address)
        return [*command, "--protected-mode", "no"]


@pytest.fixture
def other_host() -> Iterator[OtherHost]:
    if MISSING and os.environ.get("CI"):
        pytest.fail(MISSING)
    if MISSING:
        pytest.skip(MISSING)
    with OtherHost() as host:
        yield host


@pytest.fixture
def herd(other_host: OtherHost) -> Iterator[Herd]:
    redis = ListeningRedis(other_host.here)
    _skip_without(redis)
    with redis, ExitStack() as stack:
        herd = Herd(redis, stack)
        herd._env["JOBS_URL"] = redis.url.replace("127.0.0.1", other_host.here)
        yield herd


def worker_on(herd: Herd, host: OtherHost) -> Server:
    command = ["-m", "quattro_web.jobs", "worker", APP, "--grace", "1"]
    server = host.runs(Server(command, env=herd._env, ready=False))
    worker = herd._stack.enter_context(server)
    worker.wait_for("the worker takes jobs")
    return worker


Hands = Callable[[OtherHost], None]
# What is done to the cable, and how it is undone.
WAYS: dict[str, tuple[Hands, Hands]] = {
    "pulled here": (lambda host: host.pull("near"), lambda host: host.plug("near")),
    "pulled there": (lambda host: host.pull("far"), lambda host: host.plug("far")),
    "what is sent there is lost": (lambda host: host.lose("near"), lambda host: host.find("near")),
    "what it sends is lost": (lambda host: host.lose("far"), lambda host: host.find("far")),
}


@pytest.mark.parametrize("how", WAYS)
def test_cable_to_the_worker(herd: Herd, other_host: OtherHost, how: str) -> None:
    """D1, D2, D3, D4: A worker that is cut off cancels its jobs, with what they have elsewhere;
    their requests learn of it, and what was handed over is done by another. With the cable back it
    works on, and nothing that was given up runs again."""
    pull, plug = WAYS[how]
    far = worker_on(herd, other_host)
    answer = herd.begin("/tree/cut/2/wait")
    far.wait_for(r"(?s)begin cut/0.*begin cut/1")
    far.wait_for(r"(?s)begin cut/./leaf.*begin cut/./leaf")
    near = herd.worker()
    kept = [f"slowly-{number}" for number in range(4)]
    assert [herd.get(f"/hand-over/{each}").status for each in kept] == [200] * 4
    pull(other_host)
    try:
        assert answer().status == 503
        far.wait_for(r"(?s)(end cut/\S+ .*){4}")
        for each in kept:
            until(lambda: f"did {each}" in far.log + near.log, lambda: each)  # noqa: B023
        assert herd.get("/double").text == "0 2 4 6 8"
    finally:
        plug(other_host)
    assert near.stop() == 0
    until(lambda: herd.get("/double").status == 200, lambda: far.log)
    assert herd.get("/sleep/0").status == 200
    far.wait_for("done")
    assert far.log.count("begin cut/") == 4
    assert "begin cut/" not in near.log
