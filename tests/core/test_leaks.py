"""What a group leaves in memory: nothing that waits for the garbage collector."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from collections.abc import AsyncIterator

import pytest

from quattro_core import TaskGroup
from tests.core.conftest import Run
from tests.core.test_background import forever
from tests.core.test_errors import fail, fail_when_cancelled


class Marker:
    """An object that lives as long as the frame that holds it."""


@pytest.mark.parametrize("how", ["body", "child", "pump", "cancel", "outer", "quiet"])
@pytest.mark.parametrize("limit", [None, 1])
def test_no_reference_cycles(run_plain: Run, how: str, limit: int | None) -> None:
    """C5: group and errors are in no reference cycle: they go when nobody holds them."""
    left: list[weakref.ref[object]] = []

    async def body() -> None:
        marker = Marker()
        group = TaskGroup(concurrency_limit=limit)
        left.extend([weakref.ref(marker), weakref.ref(group)])
        async with group as tg:
            tg.create_background_task(fail(ValueError()) if how == "pump" else forever())
            tg.create_task(fail(ValueError()) if how == "child" else asyncio.sleep(0.001))
            tg.create_task(asyncio.sleep(0.001))
            if how == "body":
                raise ValueError
            if how == "cancel":
                tg.cancel()
            if how != "quiet":
                await forever()

    async def main() -> None:
        gc.disable()
        try:
            task = asyncio.create_task(body())
            await asyncio.sleep(0.002)
            task.cancel()
            await asyncio.wait((task,))
            if not task.cancelled():
                task.exception()
            del task
            await asyncio.sleep(0)
            assert [reference() for reference in left] == [None, None]
        finally:
            gc.enable()

    run_plain(main)


@pytest.mark.parametrize("limit", [None, 1])
def test_finished_group_is_no_cycle(run_plain: Run, limit: int | None) -> None:
    """C3, C5: A group that was finished, and never exited, goes when nobody holds it."""

    async def main() -> None:
        gc.disable()
        try:
            group = TaskGroup(concurrency_limit=limit).enter()
            group.create_task(asyncio.sleep(0))
            await group.finish()
            left = weakref.ref(group)
            del group
            assert left() is None
        finally:
            gc.enable()

    run_plain(main)


# From 3.14 on, a task that was cancelled in asyncio.wait is in a cycle with it, by the callbacks.
CYCLE = pytest.mark.skipif(sys.version_info >= (3, 14), reason="asyncio.wait leaves a cycle there")


@pytest.mark.parametrize(
    "how",
    [
        *("call", "iterable", "body", "left", "cancel", "wait", "end"),
        pytest.param("clean-up", marks=CYCLE),
    ],
)
@pytest.mark.parametrize("limit", [None, 1])
def test_map_is_no_cycle(run_plain: Run, how: str, limit: int | None) -> None:
    """C5: A map, its errors and its group are in no reference cycle, however it ends."""
    left: list[weakref.ref[object]] = []

    async def numbers() -> AsyncIterator[int]:
        yield 0
        yield 1
        if how == "iterable":
            await asyncio.sleep(0.001)
            raise ValueError

    async def call(number: int) -> None:
        left.append(weakref.ref(marker := Marker()))
        if number == 0 or how == "end":
            return
        if how == "call":
            raise ValueError
        try:
            await forever()
        finally:
            if how == "clean-up":
                raise ValueError
            del marker

    async def child(tg: TaskGroup) -> None:
        async with tg.map(call, numbers(), limit=3) as results:
            async for _ in results:
                await asyncio.sleep(0)
                if how == "body":
                    raise ValueError
                if how in {"clean-up", "left"}:
                    break

    async def body() -> None:
        group = TaskGroup(concurrency_limit=limit)
        left.append(weakref.ref(group))
        async with group as tg:
            tg.create_task(child(tg))
            if how == "wait":
                tg.create_task(forever())  # in the slot that the other one lends
            await asyncio.sleep(0.002)
            if how in {"cancel", "wait"}:
                tg.cancel()

    async def main() -> None:
        gc.disable()
        try:
            task = asyncio.create_task(body())
            await asyncio.wait((task,))
            assert (task.exception() is None) == (how in {"left", "cancel", "wait", "end"})
            del task
            await asyncio.sleep(0)
            assert {reference() for reference in left} == {None}
        finally:
            gc.enable()

    run_plain(main)


@CYCLE
def test_finish_that_is_cancelled_is_no_cycle(run_plain: Run) -> None:
    """C5: Nor is a group that another task wanted to finish, and was cancelled."""

    async def main() -> None:
        gc.disable()
        try:
            group = TaskGroup()
            async with group:
                group.create_task(forever())
                task = asyncio.create_task(group.finish())
                await asyncio.sleep(0.001)
                task.cancel()
            left = weakref.ref(group)
            del group, task
            assert left() is None
        finally:
            gc.enable()

    run_plain(main)


def test_group_lets_go_of_errors(run_plain: Run) -> None:
    """C5: a group that somebody keeps holds neither its errors nor its parent task."""
    group = TaskGroup()

    async def main() -> None:
        with pytest.raises(ExceptionGroup):
            async with group as tg:
                tg.create_task(fail_when_cancelled(ValueError()))
                await asyncio.sleep(0)
                tg.cancel()

    run_plain(main)
    held = gc.get_referents(vars(group)) if hasattr(group, "__dict__") else []
    assert not [one for one in held if isinstance(one, (asyncio.Task, BaseException))]


def test_waiting_child_is_small() -> None:
    """C11: a child that waits for its slot takes no more than a task, and no dictionary."""

    async def main() -> None:
        async with TaskGroup(concurrency_limit=1) as tg:
            tg.create_task(asyncio.sleep(0))
            task = tg.create_task(asyncio.sleep(0))
            assert sys.getsizeof(task) <= 256
            assert not [one for one in gc.get_referents(task) if isinstance(one, dict)]

    asyncio.run(main(), debug=False)
