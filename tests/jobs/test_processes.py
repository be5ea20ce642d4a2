"""Remote children over real processes: a web server, workers, Redis, and the end of each."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

pytest.importorskip("docket", reason="pydocket is missing: pip install 'quattro-web[docket]'")

from redis import Redis

from tests.locks.services import RedisService
from tests.support.server import PATIENCE, Server, uvicorn
from tests.support.wire import Answer, Wire

APP = "tests.jobs.web:app"


class Herd:
    """A web server and workers, on a Redis of their own."""

    def __init__(self, redis: RedisService, stack: ExitStack) -> None:
        self.redis = redis
        self._stack = stack
        self._env = {"JOBS_URL": redis.url, "JOBS_NAME": "herd", "PYTHONASYNCIODEBUG": ""}
        self.web = stack.enter_context(Server(uvicorn(APP), env=self._env))
        self._pool = stack.enter_context(ThreadPoolExecutor())

    def worker(self, grace: int = 2) -> Server:
        command = ["-m", "quattro_web.jobs", "worker", APP, "--grace", str(grace)]
        worker = self._stack.enter_context(Server(command, env=self._env, ready=False))
        worker.wait_for("the worker takes jobs")
        return worker

    def get(self, path: str) -> Answer:
        with Wire(self.web.port) as wire:
            return wire.get(path)

    def begin(self, path: str) -> Callable[[], Answer]:
        """Ask for something, and return a function that waits for the answer."""
        future = self._pool.submit(self.get, path)
        return lambda: future.result(PATIENCE)


@pytest.fixture
def herd(own_redis: RedisService) -> Iterator[Herd]:
    with ExitStack() as stack:
        yield Herd(own_redis, stack)


def test_request_has_children_elsewhere(herd: Herd) -> None:
    """D1, D3: A response waits for its remote children, and is their failure; a worker has the
    state of the app's lifespan."""
    worker = herd.worker()
    assert herd.get("/double").text == "0 2 4 6 8"
    assert herd.get("/sleep/0.01").text == "slept"
    worker.wait_for("done")
    assert herd.get("/color").text == "red"
    failed = herd.get("/fail/http")
    assert (failed.status, dict(failed.headers)["x-page"]) == (404, "7")
    assert herd.get("/fail/unknown").status == 500
    herd.web.wait_for("on worker")
    assert herd.get("/readyz").text.startswith('{"ready":true')
    assert '"jobs":{"state":"running"' in herd.get("/readyz").text


def test_one_command_runs_everything() -> None:
    """D1, D3: With memory://, the server runs the jobs as well, and nothing else is needed."""
    with Server(uvicorn(APP), env={"JOBS_URL": "memory://", "PYTHONASYNCIODEBUG": ""}) as server:

        def get(path: str) -> Answer:
            with Wire(server.port) as wire:
                return wire.get(path)

        assert get("/double").text == "0 2 4 6 8"
        assert get("/color").text == "red"
        assert get("/fail/http").status == 404
        assert get("/deadline/60").status == 504
        server.wait_for("cleaned up")
        assert '"jobs worker":{"state":"running"' in get("/readyz").text
        with Wire(server.port) as wire:
            wire.send(b"GET /sleep/60 HTTP/1.1\r\nHost: x\r\n\r\n")
            server.wait_for("(?s)begins.*begins")
        server.wait_for("(?s)cleaned up.*cleaned up")
        server.stop()
        assert "Task was destroyed" not in server.log
        assert "Traceback" not in server.log


def test_client_leaves(herd: Herd) -> None:
    """D1: When the client leaves, its remote child is cancelled."""
    worker = herd.worker()
    wire = Wire(herd.web.port)
    with wire:
        wire.send(b"GET /sleep/60 HTTP/1.1\r\nHost: x\r\n\r\n")
        worker.wait_for("begins")
    worker.wait_for("cleaned up")


def test_deadline_passes(herd: Herd) -> None:
    """D1: When the deadline passes, the child has been cancelled before the 504 leaves."""
    worker = herd.worker()
    assert herd.get("/deadline/60").status == 504
    worker.wait_for("cleaned up")


def test_deadline_travels(herd: Herd) -> None:
    """D1: A child knows what is left of the deadline of its request, but for a section that must
    not be cut."""
    herd.worker()
    assert float(herd.get("/left").text) < 15
    assert float(herd.get("/left/uninterrupted").text) > 15


def test_web_process_is_killed(herd: Herd) -> None:
    """D2: When the web process is killed, its children are cancelled, those that wait not run."""
    worker = herd.worker()
    wire = Wire(herd.web.port)
    with wire:
        wire.send(b"GET /sleep/60 HTTP/1.1\r\nHost: x\r\n\r\n")
        worker.wait_for("begins")
        herd.web.stop(signal.SIGKILL)
        worker.wait_for("the process that requested it is gone")
    worker.wait_for("cleaned up")


def test_waiting_children_of_a_killed_process_never_start(herd: Herd) -> None:
    """D2: What a web process has submitted before it was killed does not start after its lease."""
    first = herd.worker()
    first.send(signal.SIGSTOP)
    wire = Wire(herd.web.port)
    with wire:
        wire.send(b"GET /sleep/60 HTTP/1.1\r\nHost: x\r\n\r\n")
        first.wait_for("takes jobs")
        herd.web.stop(signal.SIGKILL)
    with Redis.from_url(herd.redis.url) as client:
        while [*client.scan_iter("herd:lease:*")]:
            time.sleep(0.01)
    with Server(uvicorn(APP), env=herd._env) as web:  # another one, with a lease of its own
        herd.web = web
        first.send(signal.SIGCONT)
        assert herd.get("/double").text == "0 2 4 6 8"
        assert herd.get("/sleep/0").status == 200
        first.wait_for("done")  # its lines come by another way than the answer
        assert first.log.count("begins") == 1


def test_worker_is_killed(herd: Herd) -> None:
    """D3: When its worker is killed, a request learns of it; an idempotent job runs once more."""
    workers = [herd.worker() for _ in range(2)]
    for path, status in (("/sleep/60", 503), ("/again/2", 200)):
        answer = herd.begin(path)
        killed = None
        while killed is None:
            time.sleep(0.01)
            killed = next((each for each in workers if "begins" in each.log), None)
        workers.remove(killed)
        killed.stop(signal.SIGKILL)
        assert answer().status == status
        workers.append(herd.worker())
    while not any("done" in each.log for each in workers):
        time.sleep(0.01)


def test_worker_stands_still(herd: Herd) -> None:
    """D2: A worker that was given up, and goes on later, cancels what was given up."""
    worker = herd.worker()
    answer = herd.begin("/sleep/60")
    worker.wait_for("begins")
    worker.send(signal.SIGSTOP)
    assert answer().status == 503
    worker.send(signal.SIGCONT)
    worker.wait_for("cleaned up")


def test_worker_stands_still_for_long(herd: Herd) -> None:
    """D2: Also when nothing in Redis tells it any more that it was given up."""
    worker = herd.worker()
    answer = herd.begin("/sleep/60")
    worker.wait_for("begins")
    worker.send(signal.SIGSTOP)
    with Redis.from_url(herd.redis.url) as client:
        client.client_kill_filter(_type="pubsub")  # it hears of no cancellation
        assert answer().status == 503
        (run,) = client.scan_iter("herd:runs:*")
        while client.hget(run, "state") != b"cancelled":
            pass
        client.delete(run)  # as it is a minute later
    worker.send(signal.SIGCONT)
    worker.wait_for("cleaned up")


def test_web_process_stands_still(herd: Herd) -> None:
    """D3: A web process that was given up, and goes on later, tells its requests so."""
    worker = herd.worker()
    answer = herd.begin("/sleep/60")
    worker.wait_for("begins")
    herd.web.send(signal.SIGSTOP)
    worker.wait_for("the process that requested it is gone")
    worker.wait_for("cleaned up")
    herd.web.send(signal.SIGCONT)
    assert answer().status == 503
    assert herd.get("/double").text == "0 2 4 6 8"


def test_redis_forgets(herd: Herd) -> None:
    """D2, D3: When Redis has lost its memory, a request learns of it, and its child ends."""
    worker = herd.worker()
    answer = herd.begin("/sleep/60")
    worker.wait_for("begins")
    herd.redis.kill()
    herd.redis.start()
    assert answer().status == 503
    worker.wait_for("cleaned up")


def test_worker_hurries(herd: Herd) -> None:
    """D3: A second signal ends the grace period of a worker."""
    command = ["-m", "quattro_web.jobs", "worker", APP, "--grace", "600"]
    with Server(command, env=herd._env, ready=False) as worker:
        worker.wait_for("the worker takes jobs")
        answer = herd.begin("/sleep/60")
        worker.wait_for("begins")
        worker.send(signal.SIGTERM)
        while "cleaned up" not in worker.log:  # the first one may still be on its way
            worker.send(signal.SIGTERM)
            time.sleep(0.1)
        assert answer().status == 503
        worker.wait()


def test_worker_shuts_down(herd: Herd) -> None:
    """D3: A worker that is asked to stop lets its jobs finish within its grace period, and ends
    the lifespan of its app."""
    worker = herd.worker(grace=15)
    answer = herd.begin("/sleep/1")
    worker.wait_for("begins")
    assert worker.stop() == 0
    assert answer().text == "slept"
    assert "the lifespan has ended" in worker.log
    worker = herd.worker()
    answer = herd.begin("/sleep/60")
    worker.wait_for("begins")
    assert worker.stop() == 0
    assert answer().status == 503
    worker.wait_for("cleaned up")


def test_worker_shuts_down_without_redis(herd: Herd) -> None:
    """D3: A worker that is asked to stop while Redis is away ends, also with a result to tell."""
    worker = herd.worker()
    answer = herd.begin("/sleep/1")
    worker.wait_for("begins")
    herd.redis.kill()
    worker.wait_for("done")
    assert worker.stop() == 0
    assert answer().status == 503


def test_worker_has_a_job_that_stays(herd: Herd) -> None:
    """D3: A worker that is asked to stop ends although a job swallows its cancellation, and
    another one gets the job."""
    herd._env["JOBS_CLEAN_UP"] = "0.1"
    worker = herd.worker()
    assert herd.get("/hand-over/stay").status == 200
    worker.wait_for("begins to stay")
    assert worker.stop() == 1
    assert "has swallowed its cancellation" in worker.log
    other = herd.worker()
    other.wait_for("begins to stay")
    other.stop(signal.SIGKILL)


@pytest.mark.parametrize("how", ["killed", "hung"])
def test_redis_goes_away(herd: Herd, how: str) -> None:
    """D2, D3: When Redis is away or hangs, a request gets a 503, its child is cancelled, the
    process is ready for other requests, and all goes on when Redis is back."""
    worker = herd.worker()
    answer = herd.begin("/sleep/60")
    worker.wait_for("begins")
    if how == "killed":
        herd.redis.kill()
    else:
        herd.redis.signal(signal.SIGSTOP)
    assert answer().status == 503
    assert herd.get("/double").status == 503
    assert herd.get("/readyz").status == 200
    worker.wait_for("cleaned up")
    if how == "killed":
        herd.redis.start()
    else:
        herd.redis.signal(signal.SIGCONT)
    for _ in range(50):
        if (again := herd.get("/double")).status == 200:
            break
    assert again.text == "0 2 4 6 8"
    assert herd.get("/readyz").status == 200
    assert worker.log.count("begins") == 1
