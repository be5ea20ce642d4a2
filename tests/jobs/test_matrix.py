"""A fan-out over three workers, of which something breaks: nothing runs on that nobody wants."""

from __future__ import annotations

import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

pytest.importorskip("docket", reason="pydocket is missing: pip install 'quattro-web[docket]'")

from redis import Redis

from tests.jobs.chaos import LINE, open_in
from tests.jobs.services import DurableRedis
from tests.locks.conftest import _skip_without
from tests.support.server import PATIENCE, Server, uvicorn
from tests.support.wire import CutError, Wire

APP = "tests.jobs.web:app"
SLOTS = 4
"""How many jobs a worker runs: three are full with a fan-out of so many, and two of their own."""
COUNT = 3 * SLOTS
LEASE = 2.0 + 0.1
"""That of the app, in seconds, by a clock that is not the one of these tests."""


class Machines:
    """Two web processes, three workers, and a Redis that forgets nothing."""

    def __init__(self, stack: ExitStack, redis: DurableRedis) -> None:
        self._stack = stack
        self.redis = redis
        self._env = {
            "JOBS_URL": redis.url,
            "JOBS_NAME": "matrix",
            "JOBS_CONCURRENCY": str(SLOTS),
            "JOBS_GRACE": "0.5",
            "PYTHONASYNCIODEBUG": "",
        }
        with ThreadPoolExecutor() as pool:
            workers = [pool.submit(self._worker) for _ in range(3)]
            webs = [pool.submit(self._web) for _ in range(2)]
            self.workers = [worker.result() for worker in workers]
            self.webs = [web.result() for web in webs]
        self._logs: list[Server] = [*self.workers]
        self._broken: list[Callable[[], None]] = []
        self._paused: list[Server] = []

    def _web(self) -> Server:
        return self._stack.enter_context(Server(uvicorn(APP), env=self._env))

    def _worker(self) -> Server:
        command = ["-m", "quattro_web.jobs", "worker", APP, "--grace", "0.5"]
        worker = self._stack.enter_context(Server(command, env=self._env, ready=False))
        worker.wait_for("the worker takes jobs")
        return worker

    def end(self, server: Server, number: signal.Signals) -> None:
        """End a process; `mend` puts another one in its place."""
        place = self.webs if server in self.webs else self.workers
        make = self._web if place is self.webs else self._worker

        def mend() -> None:
            place[place.index(server)] = make()
            self._logs = [*dict.fromkeys((*self._logs, *self.workers))]

        self._broken.append(mend)
        server.stop(number)

    def pause(self, server: Server) -> None:
        """Let a process stand still until `mend`."""
        self._broken.append(lambda: server.send(signal.SIGCONT))
        self._paused.append(server)
        server.send(signal.SIGSTOP)

    def end_redis(self, *, forgets: bool = False) -> None:
        """End Redis until `mend`."""
        self.redis.kill()
        if forgets:
            shutil.rmtree(self.redis._directory / "appendonlydir")
            self._broken.append(self.redis.start)
        else:
            self._broken += [self.redis.start, self._wait_for_leases()]

    def pause_redis(self) -> None:
        """Let Redis hang until `mend`."""
        self.redis.signal(signal.SIGSTOP)
        self._broken += [lambda: self.redis.signal(signal.SIGCONT), self._wait_for_leases()]

    def _wait_for_leases(self) -> Callable[[], None]:
        """Return what waits until each lease of now is over: as long as one is, its calls begin."""
        over = time.monotonic() + LEASE
        return lambda: time.sleep(max(over - time.monotonic(), 0))

    def mend(self) -> None:
        self._paused.clear()
        while self._broken:
            self._broken.pop()()

    def get(self, path: str, web: int = 1) -> int:
        with Wire(self.webs[web].port) as wire:
            return wire.get(path).status

    def log(self, name: str) -> str:
        """Return what the workers that live say of the jobs of a request."""
        alive = [each for each in self.workers if each._process.poll() is None]
        lines = "".join(worker.log for worker in alive if worker not in self._paused)
        return "\n".join(line for line in lines.splitlines() if f" {name}/" in line)

    def begun(self, name: str) -> int:
        return len(re.findall(rf"^begin {name}/", "".join(w.log for w in self._logs), re.MULTILINE))

    def done(self, name: str) -> bool:
        return any(re.search(rf"^did {name}$", w.log, re.MULTILINE) for w in self._logs)


def until(condition: Callable[[], bool], what: Callable[[], object]) -> None:
    """Wait for something that happens in other processes, with a bound that is far away."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, what()
        time.sleep(0.01)


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    redis = DurableRedis()
    _skip_without(redis)
    with redis, ExitStack() as stack:
        machines = Machines(stack, redis)
        stack.callback(machines.mend)
        yield machines


def stand_still(machines: Machines, server: Server) -> None:
    """Pause a process until it counts as dead: its own lease is over, whatever else runs out."""
    machines.pause(server)
    with Redis.from_url(machines.redis.url) as client:
        pattern = f"matrix:lease:*-{server.pid}-*"
        until(lambda: not [*client.scan_iter(pattern)], lambda: [*client.scan_iter(pattern)])
    time.sleep(0.1)  # the process itself measures with another clock than Redis


def leave(machines: Machines, name: str, wire: Wire) -> None:
    wire.close()


def end_web(number: signal.Signals) -> Way:
    return lambda machines, *_: machines.end(machines.webs[0], number)


def end_worker(number: signal.Signals, count: int = 1) -> Way:
    return lambda machines, *_: [machines.end(each, number) for each in machines.workers[:count]]


def pause_web(machines: Machines, *_: object) -> None:
    stand_still(machines, machines.webs[0])
    machines.mend()


def pause_worker(machines: Machines, *_: object) -> None:
    stand_still(machines, machines.workers[0])


def end_redis(machines: Machines, *_: object) -> None:
    machines.end_redis()


def empty_redis(machines: Machines, *_: object) -> None:
    machines.end_redis(forgets=True)
    machines.mend()


def pause_redis(machines: Machines, *_: object) -> None:
    machines.pause_redis()


Way = Callable[[Machines, str, Wire], object]
KILL, TERM = signal.SIGKILL, signal.SIGTERM
CUT = 0
# What breaks, one after the other without a pause, and what the client then gets.
WAYS: dict[str, tuple[int, tuple[Way, ...]]] = {
    "client leaves": (CUT, (leave,)),
    "deadline": (504, ()),
    "sibling": (404, ()),
    "handler": (409, ()),
    "web is stopped": (503, (end_web(TERM),)),
    "web is killed": (CUT, (end_web(KILL),)),
    "web stands still": (503, (pause_web,)),
    "worker is stopped": (503, (end_worker(TERM),)),
    "worker is killed": (503, (end_worker(KILL),)),
    "worker stands still": (503, (pause_worker,)),
    "Redis is gone": (503, (end_redis,)),
    "Redis hangs": (503, (pause_redis,)),
    "Redis forgets": (503, (empty_redis,)),
    "web and worker are killed": (CUT, (end_web(KILL), end_worker(KILL))),
    "web is killed, and Redis is gone": (CUT, (end_web(KILL), end_redis)),
    "all workers are killed": (503, (end_worker(KILL, 3),)),
    "client leaves, and Redis hangs": (CUT, (pause_redis, leave)),
    "client leaves, and worker stands still": (CUT, (leave, pause_worker)),
}


# In two groups, which may run beside each other, each on machines of its own.
GROUPS = [
    pytest.param(what, marks=pytest.mark.xdist_group(f"jobs matrix {number % 2}"))
    for number, what in enumerate(WAYS)
]


@pytest.mark.parametrize("what", GROUPS)
def test_nothing_is_left(machines: Machines, what: str) -> None:
    """D1, D2, D3, D4: Whatever breaks, the remote children of a request end, with those that these
    have: before its response, where its process and the engine live. None begins later, the request
    gets an answer, other requests go on, and what was handed over is done."""
    status, ways = WAYS[what]
    name = re.sub(r"\W+", "-", what)
    kept = [f"{name}-slowly", *(f"{name}-{number}" for number in range(3))]
    assert machines.get(f"/hand-over/{kept[0]}") == 200
    with Wire(machines.webs[0].port) as wire:
        wire.ask(f"/tree/{name}/{COUNT}/{name.partition('-')[0]}")
        until(lambda: machines.begun(name) == COUNT + 2, lambda: machines.log(name))
        assert all(f"begin {name}/" in worker.log for worker in machines.workers)
        assert machines.get(f"/go/{name}", web=0) == 200  # and some more, which have to wait
        for each in kept[1:]:
            assert machines.get(f"/hand-over/{each}") == 200
        for way in ways:
            way(machines, name, wire)
        try:
            answered = CUT if leave in ways else wire.answer().status
        except CutError:
            answered = CUT
        answered_at = time.time()
    assert answered == status
    until(lambda: not open_in(machines.log(name)), lambda: open_in(machines.log(name)))
    if status in (504, 404, 409):
        ends = [float(at) for how, _, at in LINE.findall(machines.log(name)) if how == "end"]
        assert max(ends) <= answered_at
    begun = machines.begun(name)
    machines.mend()
    until(lambda: not open_in(machines.log(name)), lambda: open_in(machines.log(name)))
    if empty_redis not in ways:
        until(lambda: all(map(machines.done, kept)), lambda: [*filter(machines.done, kept)])
    for web in range(2):
        until(lambda: machines.get("/double", web) == 200, lambda: "no double")  # noqa: B023
    assert machines.begun(name) == begun
    assert not open_in(machines.log(name))


def test_nothing_is_left_in_one_process() -> None:
    """D1, D4: With memory://, the same holds for what one process does: when the client leaves, the
    deadline passes, a sibling or the handler fails, and when the server is stopped."""
    env = {"JOBS_URL": "memory://", "JOBS_CONCURRENCY": str(COUNT), "JOBS_GRACE": "0.5"}
    env["PYTHONASYNCIODEBUG"] = ""
    with Server(uvicorn(APP), env=env) as server:

        def get(path: str) -> int:
            with Wire(server.port) as wire:
                return wire.get(path).status

        def lines(what: str, name: str) -> int:
            return len(re.findall(rf"^{what} {name}/", server.log, re.MULTILINE))

        ways = {"client": CUT, "deadline": 504, "sibling": 404, "handler": 409, "stopped": 503}
        for name, status in ways.items():
            with Wire(server.port) as wire:
                wire.ask(f"/tree/{name}/{COUNT}/{name}")
                until(lambda: lines("begin", name) == COUNT + 2, lambda: server.log)  # noqa: B023
                assert get(f"/go/{name}") == 200
                assert get(f"/hand-over/{name}") == 200
                if name == "client":
                    wire.close()
                elif name == "stopped":
                    server.send(TERM)
                if status != CUT:
                    assert wire.answer().status == status
                answered_at = time.time()
            until(lambda: lines("end", name) == lines("begin", name), lambda: server.log)  # noqa: B023
            until(lambda: f"did {name}" in server.log, lambda: server.log)  # noqa: B023
            ends = re.findall(rf"^end {name}/\S+ (.*)$", server.log, re.MULTILINE)
            assert status == CUT or max(map(float, ends)) <= answered_at
        server.wait()
