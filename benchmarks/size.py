"""How much is measured: all of it, the same in fewer rounds, or just so much that it runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass


class Rounds:
    """The numbers of the rounds: at least so many, and then as many as there is time for."""

    def __init__(self, least: int, seconds: float) -> None:
        self._least = least
        self._seconds = seconds

    def __iter__(self) -> Iterator[int]:
        end = time.monotonic() + self._seconds
        number = 0
        while number < self._least or time.monotonic() < end:
            yield number
            number += 1


@dataclass(frozen=True)
class Size:
    """The numbers of a run."""

    name: str
    children: tuple[int, ...] = (1, 10, 1000, 100_000)  # of a group; the last one is the goal's
    pumps: tuple[int, ...] = (1, 10, 1000)  # beside as many children
    gathered: tuple[int, ...] = (2, 10, 100)  # calls
    waiting: int = 100_000  # children under a limit
    few_waiting: int = 5000  # what an abort is tried with first, and then with twice as many
    patience: float = 6.0  # seconds for an abort; who would take longer is asked for no more
    items: int = 100_000  # of a map
    stream: tuple[int, int] = (10_000, 1_000_000)  # items, for the memory of a map
    growing: tuple[int, ...] = (10, 1000, 100_000)  # children, or items, whose costs are compared
    left: int = 20_000  # of them, of which something could be left
    connections: tuple[int, ...] = (10, 100, 1000)
    per_request: tuple[int, ...] = (1, 10, 100, 1000)  # children
    counted: int = 100  # requests under callgrind; it takes twice as many as well
    timed: int = 300  # requests of each variant in a round
    warm_up: int = 50  # requests before any counts: the interpreter specialises its code by then
    load: int = 1000  # requests of each variant in a round, to uvicorn
    wrk: tuple[int, ...] = (1, 100, 1000)  # connections of wrk
    batches: int = 12  # of rounds under wrk, at most; the servers are started anew for each
    streams: int = 10_000  # open at once
    sockets: int = 2000
    idle: float = 5.0  # seconds that they are open while nothing happens
    batch: int = 500  # children of the groups of a round, where groups are small
    seconds: float = 0.6  # for the rounds, as a part of what each benchmark asks for
    least: int = 5  # rounds
    few: int = 3  # rounds of what takes seconds
    uvloop: bool = False  # for requests in process

    @property
    def loop(self) -> str:
        """The event loop of requests in process."""
        return "uvloop" if self.uvloop else "asyncio"

    def rounds(self, seconds: float, *, least: int | None = None) -> Rounds:
        """Return rounds that take a part of so many seconds, as this size has it."""
        return Rounds(self.least if least is None else least, seconds * self.seconds)

    def times_of(self, count: int) -> int:
        """Return how often so few connections are opened for one sample."""
        return max(1, self.batch // 5 // count)


FULL = Size("full")
QUICK = Size(
    "quick",
    patience=0.5,
    stream=(10_000, 100_000),
    left=10_000,
    per_request=(1, 10, 100),
    counted=30,
    timed=150,
    load=400,
    wrk=(100,),
    batches=1,
    streams=1000,
    sockets=200,
    idle=1.0,
    seconds=0.12,
    least=3,
    few=1,
)
TINY = Size(
    "tiny",
    children=(1, 2),
    pumps=(1, 2),
    gathered=(1, 2),
    waiting=40,
    few_waiting=20,
    items=30,
    stream=(20, 40),
    growing=(2, 20),
    left=20,
    connections=(1, 2),
    per_request=(1, 2),
    counted=1,
    timed=2,
    warm_up=1,
    load=4,
    wrk=(2,),
    batches=1,
    streams=20,
    sockets=10,
    idle=0.05,
    batch=2,
    seconds=0,
    least=1,
    few=1,
)
