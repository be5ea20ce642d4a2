"""Two web processes, three workers and Redis, of which something ends all the time.

``python -m tests.jobs.chaos --seconds 120`` prints what it did, and fails if a remote child ran
longer than its request by more than the bound, if anything still runs at the end, or if work that
was handed over has got lost.
"""

from __future__ import annotations

import argparse
import random
import re
import signal
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from tests.jobs.services import DurableRedis
from tests.jobs.test_processes import APP
from tests.support.server import Server, uvicorn
from tests.support.wire import Wire

# How long a worker is stopped, which ends nothing meanwhile.
PAUSE = 4.0
# The lease of tests.jobs.web, its engine's time for two answers, the clean-up of its job, and what
# a machine that starts processes all the time takes.
BOUND = 2.0 + 2 * 1.0 + 0.1 + PAUSE + 1.0
STRIKES = ["web", "web", "worker", "worker", "stopped", "paused", "redis"]
STRIKES += ["web and worker", "web paused", "redis hangs"]
DID = re.compile(r"^did (\S+)$", re.MULTILINE)
# What is a 503, and its causes.
EXPECTED = re.compile(
    r".*(?:JobsUnavailable|WorkerLost|Connection|ConnectionReset|BusyLoading)Error: "
)
LINE = re.compile(r"^(begin|end) (\S+) ([\d.]+)$", re.MULTILINE)


def open_in(log: str) -> set[str]:
    """Return the jobs that have begun, and have not ended."""
    lines = LINE.findall(log)
    begun = Counter(name for what, name, _ in lines if what == "begin")
    begun.subtract(name for what, name, _ in lines if what == "end")
    return {name for name, count in begun.items() if count > 0}


class Chaos:
    """A herd of processes, and clients that want something from it."""

    def __init__(self, stack: ExitStack, seed: int) -> None:
        self._stack = stack
        self.random = random.Random(seed)
        self.redis = stack.enter_context(DurableRedis())
        self._env = {"JOBS_URL": self.redis.url, "JOBS_NAME": "chaos", "PYTHONASYNCIODEBUG": ""}
        self.all_webs: list[Server] = []
        self.webs = [self.web() for _ in range(2)]
        self.workers = [self.worker() for _ in range(3)]
        self.all = [*self.workers]
        self.ended: dict[str, float] = {}
        self.handed_over: set[str] = set()
        self.counts: Counter[str] = Counter()
        self._number = 0
        self._is_over = threading.Event()

    def web(self) -> Server:
        web = self._stack.enter_context(Server(uvicorn(APP), env=self._env))
        self.all_webs.append(web)
        return web

    def worker(self) -> Server:
        command = ["-m", "quattro_web.jobs", "worker", APP, "--grace", "0.5"]
        worker = self._stack.enter_context(Server(command, env=self._env, ready=False))
        worker.wait_for("the worker takes jobs")
        return worker

    def client(self, seed: int) -> None:
        """Ask for one thing after the other, and leave some of it early."""
        dice = random.Random(seed)
        while not self._is_over.is_set():
            self._number += 1
            name = f"{seed}-{self._number}"
            path = f"/tracked/{name}/{dice.choice([1, 1, 3])}/{dice.choice([0.05, 0.3, 3.0]):g}"
            try:
                with Wire(self.webs[dice.randrange(2)].port) as wire:
                    if wire.get(f"/hand-over/{name}").status == 200:
                        self.handed_over.add(name)
                with Wire(self.webs[dice.randrange(2)].port) as wire:
                    if dice.random() < 0.3:
                        wire.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                        time.sleep(dice.random() / 2)
                        self.counts["left"] += 1
                    else:
                        self.counts[str(wire.get(path).status)] += 1
            except Exception:  # the server was killed
                self.counts["cut"] += 1
                time.sleep(0.1)
            self.ended[name] = time.time()

    def strike(self) -> None:
        """End something, in one way or another, and start it anew."""
        what = self.random.choice(STRIKES)
        self.counts[f"{what} struck"] += 1
        if what == "web and worker":
            self._kill_worker(signal.SIGKILL, also=self.random.randrange(2))
            return
        if what == "web":
            index = self.random.randrange(2)
            self.webs[index].stop(signal.SIGKILL)
            self.webs[index] = self.web()
        elif what in ("worker", "stopped"):
            self._kill_worker(signal.SIGKILL if what == "worker" else signal.SIGTERM)
        elif what in ("paused", "web paused"):
            paused = self.random.choice(self.workers if what == "paused" else self.webs)
            paused.send(signal.SIGSTOP)
            time.sleep(self.random.choice([0.2, PAUSE]))
            paused.send(signal.SIGCONT)
        elif what == "redis hangs":
            self.redis.signal(signal.SIGSTOP)
            time.sleep(self.random.choice([0.2, PAUSE]))
            self.redis.signal(signal.SIGCONT)
        else:
            self.redis.kill()
            time.sleep(self.random.choice([0.1, 4.0]))
            self.redis.start()

    def _kill_worker(self, number: signal.Signals, *, also: int | None = None) -> None:
        """End a worker, and a web process with it, and start both anew."""
        index = self.random.randrange(3)
        if also is not None:
            self.webs[also].send(signal.SIGKILL)
        self.workers[index].stop(number)
        self.workers[index] = self.worker()
        self.all.append(self.workers[index])
        if also is not None:
            self.webs[also].wait()
            self.webs[also] = self.web()

    def run(self, seconds: float, clients: int) -> None:
        threads = [threading.Thread(target=self.client, args=(n,)) for n in range(clients)]
        for thread in threads:
            thread.start()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(self.random.random() * 2)
            self.strike()
        self._is_over.set()
        for thread in threads:
            thread.join()
        time.sleep(BOUND)
        until = time.monotonic() + 60
        while self.handed_over - self._done().keys() and time.monotonic() < until:
            time.sleep(0.2)

    def _done(self) -> Counter[str]:
        return Counter(name for worker in self.all for name in DID.findall(worker.log))

    def check(self, logs: Path | None) -> list[str]:
        """Return what is wrong."""
        wrong = [f"{name} still runs" for each in self.workers for name in open_in(each.log)]
        done = self._done()
        wrong += [f"{name} was lost" for name in self.handed_over - done.keys()]
        self.counts["handed over"] = len(self.handed_over)
        self.counts["done more than once"] = sum(done[each] > 1 for each in self.handed_over)
        longest = 0.0
        for worker in self.all:
            for what, name, at in LINE.findall(worker.log):
                if what == "end":
                    self.counts["ends of jobs"] += 1
                    request = name.partition("/")[0]
                    late = float(at) - self.ended[request]
                    longest = max(longest, late)
                    if late > BOUND:
                        wrong.append(f"{name} ran for {late:.2f} s after its request")
        for web in self.all_webs if self.counts["500"] else ():
            raised = re.findall(r"^[\w.]*(?:Error|Exception): .*$", web.log, re.MULTILINE)
            wrong += [line for line in raised if not EXPECTED.match(line)]
        if logs and wrong:
            logs.mkdir(parents=True, exist_ok=True)
            for server in (*self.all_webs, *self.all):
                (logs / f"{server.pid}.log").write_text(server.log)
        print(dict(sorted(self.counts.items())))
        print(f"the longest that a job ran on after its request: {longest:.2f} s of {BOUND:.2f} s")
        return wrong


def main(seconds: float, seed: int, clients: int, logs: Path | None = None) -> list[str]:
    with ExitStack() as stack:
        chaos = Chaos(stack, seed)
        chaos.run(seconds, clients)
        return chaos.check(logs)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--logs", type=Path, help="where the logs go, if something is wrong")
    options = parser.parse_args()
    found = main(options.seconds, options.seed, options.clients, options.logs)
    raise SystemExit("\n".join(found) or 0)
