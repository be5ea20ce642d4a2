"""A real server is the same after a crowd of clients as it was before."""

import asyncio
import json
import os
import random
import time
from typing import Any

import pytest

from tests.load.client import HABITS, Client, crowd
from tests.support.server import PATIENCE, Server, uvicorn
from tests.support.wire import Wire

# `make test` takes the short form; LOAD_SECONDS=60 is the long one.
SECONDS = float(os.environ.get("LOAD_SECONDS", "6"))
CLIENTS = int(os.environ.get("LOAD_CLIENTS", "100"))

Counts = tuple[int, int, int]

BAD_WORDS = ("Traceback", "never awaited", "never retrieved", "was destroyed", "ERROR")


def counts(port: int) -> Counts:
    """Return how many tasks, task groups and open files the server has."""
    with Wire(port) as wire:
        alive: dict[str, Any] = json.loads(wire.get("/alive").body)
    return alive["tasks"], alive["groups"], alive["files"]


def least(port: int) -> Counts:
    """Wait until nothing becomes less any more."""
    seen = [counts(port)]
    while len(seen) < 5 or seen[-1] < seen[-5]:
        time.sleep(0.2)
        seen.append(counts(port))
    return min(seen)


def rest(port: int, before: Counts) -> Counts:
    """Wait until the last of those who have left is gone; return what is there for good."""
    until = time.monotonic() + PATIENCE
    while not is_within(now := counts(port), before) and time.monotonic() < until:
        time.sleep(0.1)
    return now


def is_within(now: Counts, then: Counts) -> bool:
    """Whether there is no more of anything than there was."""
    return all(one <= other for one, other in zip(now, then, strict=True))


async def each_once(port: int) -> None:
    for behave in HABITS:
        await Client(port, random.Random(1)).visit(behave)


@pytest.mark.timeout(SECONDS + 180)
@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_nothing_is_left_of_a_crowd(http: str) -> None:
    """R2, R3, R7: After clients that complete, leave, reset, pipeline and drop WebSockets, no task,
    no group and no open file is left, and the log tells of no lost task and no error."""
    with Server(uvicorn("tests.load.app:app", "--http", http)) as server:
        asyncio.run(each_once(server.port))  # what is made once is made now
        before = least(server.port)
        visits = asyncio.run(crowd(server.port, seconds=SECONDS, at_once=CLIENTS))
        after = rest(server.port, before)
        assert set(visits) == {behave.__name__ for behave in HABITS}
        assert is_within(after, before), visits
        bad = [line for line in server.log.splitlines() if any(word in line for word in BAD_WORDS)]
        assert bad == []
        print(f"{http}: {sum(visits.values())} visits; tasks, groups, files: {after}")
