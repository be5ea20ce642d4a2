"""What a job costs that runs in another process: `python -m benchmarks.jobs`.

It needs a Redis, whose URL may be in ``REDIS_URL``, and what the dependency group ``bench-jobs``
installs. Each library has one worker process beside its caller, all on the same Redis, and they
take turns: each figure is the median of all rounds, with the middle half of them in parentheses.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import multiprocessing
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack, contextmanager
from importlib.util import find_spec

from redis import Redis

from benchmarks.goals import HEADER, Goal
from benchmarks.jobs_kinds import KINDS, Caller, work
from benchmarks.measure import Samples, Spread, spread, turn
from benchmarks.report import environment, markdown

MODULES = {"taskiq": "taskiq_redis", "streaq": "streaq", "arq": "arq"}
COUNTS = {1: 20, 10: 15, 200: 5, 10_000: 1}  # children, and the rounds of each
MANY = 10_000
OURS, BY_HAND = "quattro_web", "docket, by hand"
CANCEL = "cancel"


@contextmanager
def workers(url: str, names: dict[str, str]) -> Iterator[None]:
    """Run a worker of each kind."""
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=work, args=(kind, url, name), daemon=True)
        for kind, name in names.items()
    ]
    try:
        for process in processes:
            process.start()
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


async def seconds(caller: Caller, count: int | None) -> float:
    """Return what it takes to await so many jobs; with None, to cancel one."""
    gc.collect()
    if count is None:
        assert caller.cancel is not None
        end = await caller.cancel()
        begin = time.perf_counter()
        await end()
        return time.perf_counter() - begin
    begin = time.perf_counter()
    found = await caller.call(count)
    taken = time.perf_counter() - begin
    assert found == [*range(count)], found[:10]
    return taken


async def measured(url: str, names: dict[str, str], rounds: dict[int, int]) -> dict[str, Samples]:
    """Return the samples of each number of children, by kind, and those of cancellations."""
    found: dict[str, Samples] = {}
    async with AsyncExitStack() as stack:
        callers = {
            kind: await stack.enter_async_context(KINDS[kind](url, name).calling())
            for kind, name in names.items()
        }
        for caller in callers.values():
            async with asyncio.timeout(60):
                await caller.call(1)  # its worker is there then
        for count, how_many in rounds.items():
            samples: Samples = {kind: [] for kind in callers}
            # The first round makes connections.
            for number in range(-1 if count < MANY else 0, how_many):
                for kind in turn(list(callers), number + 1):
                    taken = await seconds(callers[kind], count)
                    if number >= 0:
                        samples[kind].append(taken)
            found[str(count)] = samples
            say(str(count), samples)
        can = [kind for kind, caller in callers.items() if caller.cancel is not None]
        found[CANCEL] = {kind: [] for kind in can}
        for number in range(max(rounds.values())):
            for kind in turn(can, number):
                found[CANCEL][kind].append(await seconds(callers[kind], None))
        say(CANCEL, found[CANCEL])
    return found


def forget(url: str, names: Iterable[str]) -> None:
    """Remove what is left in Redis."""
    with Redis.from_url(url) as client:
        for name in names:
            for key in client.scan_iter(f"*{name}*", count=1000):
                client.delete(key)


def say(what: str, samples: Samples) -> None:
    """Say what has come out for one of them, since all of it takes minutes."""
    found = ", ".join(f"{kind} {cell(milliseconds(each))}" for kind, each in samples.items())
    print(f"{what}: {found}", flush=True)


def milliseconds(values: list[float]) -> Spread:
    """Return them as milliseconds."""
    return spread([1000 * value for value in values])


def cell(found: Spread) -> str:
    """Return a cell of the table."""
    return f"{found.median:.2f} ms ({found.low:.2f}-{found.high:.2f})"


def goals(found: dict[str, Samples]) -> list[Goal]:
    """Return what the structure adds to docket by hand: at most 10 % or 0.2 ms."""
    made = []
    for what, samples in found.items():
        pairs = zip(samples[OURS], samples[BY_HAND], strict=True)
        more = [(1000 * (ours - other), ours / other) for ours, other in pairs]
        added, ratio = (spread([pair[place] for pair in more]) for place in (0, 1))
        name = "a cancellation" if what == CANCEL else f"{what} children"
        made.append(
            Goal(name, "ms more than by hand", 0.2, added)
            if added.median <= 0.2
            else Goal(name, "of docket, by hand", 1.1, ratio)
        )
    return made


def main(url: str, rounds: dict[int, int]) -> None:
    """Measure, and print the tables."""
    # docket tells of each task that is cancelled, arq of each job.
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    kinds = [kind for kind in KINDS if kind not in MODULES or find_spec(MODULES[kind])]
    for kind in KINDS.keys() - {*kinds}:
        print(f"{kind} is left out, since it is not installed")
    names = {kind: f"bench-{uuid.uuid4().hex[:8]}" for kind in kinds}
    for name, value in environment(f"{rounds}").items():
        print(f"- {name}: {value}")
    try:
        with workers(url, names):
            found = asyncio.run(measured(url, names, rounds))
    finally:
        logging.disable(disabled)
        forget(url, names.values())
    rows = [
        [
            "cancel one" if what == CANCEL else f"await {what}",
            *(cell(milliseconds(samples[kind])) if kind in samples else "-" for kind in kinds),
        ]
        for what, samples in found.items()
    ]
    print(f"\n{markdown(['', *kinds], rows)}\n")
    print(markdown(HEADER, [goal.row() for goal in goals(found)]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.jobs", description=__doc__)
    parser.add_argument("--most", type=int, default=MANY, help="the most children")
    options = parser.parse_args()
    main(
        os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"),
        {count: how_many for count, how_many in COUNTS.items() if count <= options.most},
    )
