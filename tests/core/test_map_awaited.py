"""`await tg.map(...)`: all results, in a list."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from quattro_core import TaskGroup
from tests.core.conftest import Run
from tests.core.items import LIMITS, Items, at_once, later
from tests.core.test_errors import errors_of
from tests.core.test_map_failures import fail_at_three


@LIMITS
@pytest.mark.parametrize("source", [iter, later, at_once])
def test_a_list_in_order(run: Run, limit: int, source: Any) -> None:
    """C12: `await` gives the list of all results, in the order of the items, whichever is ready
    first; no more calls than the limit run at once."""
    items = Items()

    async def main() -> None:
        async with TaskGroup() as tg:
            results = tg.map(items.call, source(items), limit=limit)
            assert await results == list(range(20))
            assert await results == []

    run(main)
    assert items.most_running <= limit


def test_one_that_takes_long_holds_up_none(run_plain: Run) -> None:
    """C12: Calls behind one that takes long are made meanwhile."""

    async def call(number: int) -> float:
        await asyncio.sleep(100 if number == 0 else 1)
        return asyncio.get_running_loop().time()

    async def main() -> None:
        start = asyncio.get_running_loop().time()
        async with TaskGroup() as tg:
            times = await tg.map(call, range(51), limit=2)
        assert [round(time - start) for time in times] == [100, *range(1, 51)]

    run_plain(main)


def test_what_is_left(run: Run) -> None:
    """C12: Of a map that somebody iterates over, `await` gives what is left."""

    async def call(number: int) -> int:
        return number

    async def main() -> None:
        async with TaskGroup() as tg:
            results = tg.map(call, range(5), limit=1)
            assert await anext(results) == 0
            assert await results == [1, 2, 3, 4]

    run(main)


def test_failure(run: Run) -> None:
    """C5: An error of a call aborts the group, and none of the calls is alive then."""

    async def main() -> None:
        async with TaskGroup() as tg:
            await tg.map(fail_at_three, range(9), limit=4)

    assert errors_of(run, main) == ["three"]
