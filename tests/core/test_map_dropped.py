"""`TaskGroup.map`: results that nobody holds any more, wherever they are dropped."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from quattro_core import MapResults, TaskGroup
from tests.core.conftest import Run
from tests.core.test_map_leaving import call


def test_dropped_in_another_thread(run: Run) -> None:
    """C8: where another thread lets go of the map last, its work ends just the same."""

    async def main() -> None:
        async with TaskGroup() as tg:
            held: list[Any] = [tg.map(call, range(9), limit=2)]
            await anext(held[0])
            await asyncio.to_thread(held.clear)
            await asyncio.sleep(0.001)
            assert tg.tasks == ()

    run(main)


def test_dropped_by_the_collector(run: Run) -> None:
    """A map that only a reference cycle holds ends when the garbage collector finds it."""

    async def main() -> None:
        async with TaskGroup() as tg:
            cycle: list[Any] = [tg.map(call, range(9), limit=2)]
            cycle.append(cycle)
            await anext(cycle[0])
            del cycle
            gc.collect()
            await asyncio.sleep(0.001)
            assert tg.tasks == ()

    run(main)


@pytest.mark.parametrize("limit", [1, 3])
def test_dropped_by_an_eager_call(run_eager: Run, limit: int) -> None:
    """C10: an eager call that closes the map before the group knows its worker ends the work."""
    held: list[MapResults[int]] = []

    def numbers() -> Iterator[int]:
        yield 0
        raise AssertionError("pulled after the end")  # pragma: no cover

    async def close(_: int) -> int:
        await held[0].aclose()
        return await asyncio.sleep(3600, 0)

    async def main() -> None:
        async with TaskGroup() as tg:
            held.append(tg.map(close, numbers(), limit=limit))
            assert [number async for number in held[0]] == []
            await asyncio.sleep(0.001)
            assert tg.tasks == ()

    run_eager(main)


def test_dropped_by_its_iterable(run: Run) -> None:
    """C2, C10: An iterable that closes its own map, an eager one at once, is cancelled with it."""
    held: list[MapResults[int]] = []
    log: list[str] = []

    async def numbers() -> AsyncIterator[int]:
        await held[0].aclose()
        try:
            await asyncio.sleep(3600)
        finally:
            log.append("cancelled")
        yield 0  # pragma: no cover

    async def main() -> None:
        async with TaskGroup() as tg:
            held.append(tg.map(call, numbers(), limit=2))
            assert [number async for number in held[0]] == []
            await asyncio.sleep(0.001)
            assert log == ["cancelled"]
            assert tg.tasks == ()

    run(main)


def test_dropped_after_its_loop() -> None:
    """A map whose loop was closed in the midst of it can be dropped, in any thread."""
    held: list[Any] = []
    loop = asyncio.new_event_loop()

    async def main() -> None:
        tg = TaskGroup().enter()
        held.append(tg.map(call, range(9), limit=2))
        held.append(tg)
        assert await anext(held[0]) == 0

    loop.run_until_complete(main())
    tasks = asyncio.all_tasks(loop)
    loop.close()
    assert tasks
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        coro: Any = task.get_coro()
        coro.close()


def test_dropped_as_the_interpreter_ends() -> None:
    """A map that lives until the interpreter ends says nothing then."""
    program = """
        import asyncio
        from quattro_core import TaskGroup

        async def main():
            global results
            async with TaskGroup() as tg:
                results = tg.map(asyncio.sleep, [0, 3600], limit=2)
                await anext(results)

        asyncio.run(main())
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""
