"""`TaskGroup.map`: what it refuses."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from quattro_core import TaskGroup
from tests.core.conftest import Run
from tests.core.test_background import forever


@pytest.mark.parametrize("limit", [0, -1])
def test_limit_too_low(run_plain: Run, limit: int) -> None:
    """C6: a limit below 1 is a ValueError that names and shows it."""

    async def main() -> None:
        async with TaskGroup() as tg:
            with pytest.raises(ValueError, match=f"limit must be >= 1, got {limit}"):
                tg.map(asyncio.sleep, [1], limit=limit)

    run_plain(main)


@pytest.mark.parametrize("limit", [None, "3", 2.0, True])
def test_limit_of_another_type(run_plain: Run, limit: Any) -> None:
    """C6: a limit that is not an int is a TypeError that names and shows it."""

    async def main() -> None:
        async with TaskGroup() as tg:
            with pytest.raises(TypeError, match=f"limit must be an int, got {limit!r}"):
                tg.map(asyncio.sleep, [1], limit=limit)

    run_plain(main)


def test_no_function_and_no_iterable(run_plain: Run) -> None:
    """What can't be called, and what can't be iterated over, is a TypeError at once."""

    async def main() -> None:
        anything: Any = 3
        async with TaskGroup() as tg:
            with pytest.raises(TypeError, match="function must be a coroutine function of one"):
                tg.map(anything, [1], limit=1)
            with pytest.raises(TypeError, match="'int' object is not iterable"):
                tg.map(asyncio.sleep, anything, limit=1)

    run_plain(main)


def test_group_that_is_not_open(run: Run) -> None:
    """C4: a group that is not entered, or finished, refuses a map, and one that was not begun."""

    async def main() -> None:
        tg = TaskGroup()
        with pytest.raises(RuntimeError, match="has not been entered"):
            tg.map(forever, [], limit=1)  # type: ignore[arg-type]
        async with tg:
            results = tg.map(asyncio.sleep, [0], limit=1)
        with pytest.raises(RuntimeError, match="is finished"):
            tg.map(asyncio.sleep, [0], limit=1)
        with pytest.raises(RuntimeError, match="is finished"):
            await anext(results)

    run(main)


def test_group_that_shuts_down(run: Run) -> None:
    """C9: a group that was cancelled refuses a map."""

    async def main() -> None:
        async with TaskGroup() as tg:
            tg.cancel()
            with pytest.raises(RuntimeError, match="is shutting down"):
                tg.map(asyncio.sleep, [0], limit=1)

    run(main)


def test_another_thread(run: Run) -> None:
    """C8: in another thread, `map` and what it has returned raise a RuntimeError that says so."""

    async def main() -> None:
        async with TaskGroup() as tg:
            results = tg.map(asyncio.sleep, [0, 0], limit=1)

            def elsewhere() -> None:
                with pytest.raises(RuntimeError, match=r"TaskGroup\.map was called in thread"):
                    tg.map(asyncio.sleep, [0], limit=1)
                for call in (results.__anext__, results.aclose):
                    with pytest.raises(RuntimeError, match="can't be used in another thread"):
                        asyncio.run(call())

            await asyncio.to_thread(elsewhere)
            assert [result async for result in results] == [None, None]

    run(main)
