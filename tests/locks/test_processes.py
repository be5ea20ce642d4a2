"""Once-pumps of several real processes, on real services, with real crashes."""

import os
import shutil
import signal
import statistics
import time
import uuid
from itertools import pairwise
from pathlib import Path

import pytest

from tests.locks.herd import Herd
from tests.locks.services import Service

# The hundred are `ONCE_KILLS=100 make test ARGS="tests/locks -k takes_over -s"`.
KILLS = int(os.environ.get("ONCE_KILLS", "6"))

pytestmark = pytest.mark.timeout(180 + 3 * KILLS)


@pytest.fixture
def name() -> str:
    """A name that no other test's pump has."""
    return f"beat {uuid.uuid4().hex[:8]}"


def test_one_of_four_runs_it_and_another_takes_over(lock: str, tmp_path: Path, name: str) -> None:
    """A7: Of four processes one runs the pump; when it is killed another takes over, each time, and
    there are never two at once: no beat comes with an older token than the one before."""
    took = []
    with Herd(lock, tmp_path, name) as herd:
        for _ in range(KILLS):
            herd.wait_ready()
            killed = herd.kill(herd.holder().pid)
            herd.start()
            took.append(herd.holder().at - killed)
        # On a busy machine a holder may lose its lock for once, since a proof comes too late.
        lost = herd.output().count("has lost its lock")
        assert KILLS + 1 <= len(herd.check()) <= KILLS + 1 + lost
    print(
        f"\n{lock.partition('=')[0]}: {KILLS} take-overs, never two at once; "
        f"median {statistics.median(took):.2f} s, "
        f"95 of 100 within {statistics.quantiles(took, n=20, method='inclusive')[-1]:.2f} s, "
        f"longest {max(took):.2f} s"
    )


def test_holder_that_leaves_makes_room(lock: str, tmp_path: Path, name: str) -> None:
    """A7: A process that shuts down gives the lock back: its pump has ended before another's."""
    with Herd(lock, tmp_path, name, size=2) as herd:
        first = herd.holder()
        process = herd.processes.pop(first.pid)
        assert process.stdin is not None
        process.stdin.close()
        herd.holder()
        process.wait()
        herd.check()
        whats = [line.what for line in herd.lines() if line.what != "beat"]
        assert set(pairwise(whats)) == {("begin", "end"), ("end", "begin")}


def test_holder_that_was_suspended_does_not_go_on(
    request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    """A7: A process that was suspended until its lock has expired ends its pump when it comes back:
    what it may still write has an old token, by which a store can refuse it."""
    with Herd(f"redis={request.getfixturevalue('redis')}", tmp_path, name, size=2) as herd:
        first = herd.holder()
        herd.signal(first.pid, signal.SIGSTOP)
        second = herd.wait_for(lambda line: line.what == "beat" and line.pid != first.pid)
        assert second.token > first.token
        herd.signal(first.pid, signal.SIGCONT)
        ends = (first.pid, "end")  # the other's beats go on after it
        herd.wait_for(lambda _: ends in [(line.pid, line.what) for line in herd.lines()])
        again = len(herd.lines())
        herd.wait_for(lambda _: len(herd.lines()) > again + 50)
        # On a busy machine the other one may lose the lock as well, and this one have it anew.
        late = [line for line in herd.lines()[again:] if line.token == first.token]
        assert not late
        assert "has lost its lock" in herd.output()


def test_service_that_goes_down(
    own_service: tuple[str, Service], tmp_path: Path, name: str
) -> None:
    """A7: When the lock's service is stopped, or killed, the pump stops, since nothing proves that
    its lock is still held; when the service is back, with its memory or without, one runs it
    again."""
    lock, service = own_service
    with Herd(lock, tmp_path, name, size=3) as herd:
        for goes_down in (service.stop, service.kill):
            herd.holder()
            goes_down()
            ended = herd.wait_for(lambda line: line.what == "end")
            time.sleep(0.3)  # nothing comes after it: there is nothing else to be waited for
            assert herd.last() == ended
            service.start()
            herd.holder()
        herd.check()
        assert "is unreachable" in herd.output()
        assert "is reachable again" in herd.output()


def test_service_that_hangs(own_service: tuple[str, Service], tmp_path: Path, name: str) -> None:
    """A7: When the service takes connections, but does not answer, it is as if it were down."""
    lock, service = own_service
    with Herd(lock, tmp_path, name, size=3) as herd:
        herd.holder()
        service.signal(signal.SIGSTOP)
        try:
            ended = herd.wait_for(lambda line: line.what == "end")
            time.sleep(0.3)  # nothing comes after it: there is nothing else to be waited for
            assert herd.last() == ended
        finally:
            service.signal(signal.SIGCONT)
        herd.holder()
        herd.check()


def test_file_that_is_removed(tmp_path: Path, name: str) -> None:
    """A7: When the file of a lock is removed under its holder, there are never two at once."""
    path = tmp_path / "locks" / "the.lock"
    with Herd(f"file={path}", tmp_path, name, size=3) as herd:
        for number in range(3):
            held = herd.holder()
            # Others make the file anew at any time, and in the folder that is just removed, too.
            removed = path.parent.rename(tmp_path / f"removed {number}")
            shutil.rmtree(removed, ignore_errors=True)
            herd.wait_for(lambda line, held=held: line.token > held.token)  # type: ignore[misc]
        herd.check()
        assert "was removed or replaced" in herd.output()


def test_connection_that_is_cut(
    own_service: tuple[str, Service], tmp_path: Path, name: str
) -> None:
    """A7: When the service cuts the holder's connection, there are never two at once."""
    lock, _ = own_service
    with Herd(lock, tmp_path, name, size=3) as herd:
        for _ in range(3):
            held = herd.holder()
            cut_connections(lock)
            if "redis" not in lock:  # its holder goes on, with another connection
                herd.wait_for(lambda line, held=held: line.token > held.token)  # type: ignore[misc]
        herd.check()


def cut_connections(lock: str) -> None:
    """Cut every connection of the holders, from the side of the service."""
    kind, _, url = lock.partition("=")
    if kind == "redis":
        import redis

        with redis.Redis.from_url(url) as client:
            client.client_kill_filter(_type="normal", skipme=True)
        return
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
        )
