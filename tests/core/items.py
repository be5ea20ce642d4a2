"""What the tests of `TaskGroup.map` go through, and with which limits and orders."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

ORDERS = pytest.mark.parametrize("ordered", [False, True])

LIMITS = pytest.mark.parametrize("limit", [1, 2, 7, 100])


class Items:
    """Twenty numbers, which count how many were pulled, and how many calls run."""

    def __init__(self, count: int = 20) -> None:
        self.count = count
        self.pulled = self.yielded = self.running = self.most_running = self.most_held = 0

    def __iter__(self) -> Iterator[int]:
        for number in range(self.count):
            self.pulled += 1
            self.most_held = max(self.most_held, self.pulled - self.yielded)
            yield number

    async def call(self, number: int) -> int:
        """Return the number after a while: odd ones sooner."""
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        await asyncio.sleep(0.001 if number % 2 else 0.003)
        self.running -= 1
        return number


async def later(numbers: Items) -> AsyncIterator[int]:
    """Yield the numbers, each after a while."""
    for number in numbers:
        await asyncio.sleep(0.001)
        yield number


async def at_once(numbers: Items) -> AsyncIterator[int]:
    """Yield the numbers without ever waiting."""
    for number in numbers:
        yield number
