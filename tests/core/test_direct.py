"""Who is asked to make a task: the loop, wherever its way is not asyncio's own."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from quattro_core import TaskGroup
from tests.core.conftest import Run
from tests.support.clock import VirtualClockLoop

Log = list[str]
KINDS = ["create_task", "create_background_task"]


async def spawn(kind: str, name: str | None) -> asyncio.Task[Any]:
    """Spawn a child, and wait for it."""
    async with TaskGroup() as tg:
        task: asyncio.Task[Any] = getattr(tg, kind)(asyncio.sleep(0), name=name)
        await asyncio.wait((task,))
    return task


def noted(log: Log, original: Callable[..., Any]) -> Callable[..., Any]:
    def create_task(*args: Any, **kwargs: Any) -> Any:
        log.append("asked")
        return original(*args, **kwargs)

    return create_task


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("whose", ["subclass", "object", "asyncio"])
def test_loop_with_its_own_way_is_asked(
    run_plain: Run, monkeypatch: pytest.MonkeyPatch, whose: str, kind: str
) -> None:
    """C1: A loop whose create_task is not asyncio's own makes each child: that of a subclass, one
    that was given to the object, and one by which somebody has replaced asyncio's."""
    log: Log = []

    class Loop(VirtualClockLoop):
        pass

    run_plain.factory = Loop
    if whose == "subclass":
        monkeypatch.setattr(Loop, "create_task", noted(log, Loop.create_task), raising=False)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        if whose == "object":
            monkeypatch.setattr(loop, "create_task", noted(log, loop.create_task))
        if whose == "asyncio":
            own = asyncio.BaseEventLoop.create_task
            monkeypatch.setattr(asyncio.BaseEventLoop, "create_task", noted(log, own))
        log.clear()
        await spawn(kind, None)
        assert log == ["asked"]

    run_plain(main)


@pytest.mark.parametrize("kind", KINDS)
def test_task_factory_is_asked(run: Run, kind: str) -> None:
    """C1: A task factory makes each child, also one that is set while the group is open."""
    log: Log = []

    def factory(loop: Any, coro: Any, **kwargs: Any) -> Any:
        log.append("asked")
        return asyncio.Task(coro, loop=loop, **kwargs)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with TaskGroup() as tg:
            create = getattr(tg, kind)
            create(asyncio.sleep(0))
            loop.set_task_factory(factory)
            create(asyncio.sleep(0))
            loop.set_task_factory(None)
            create(asyncio.sleep(0))
        assert log == ["asked"]

    run(main)


@pytest.mark.parametrize("kind", KINDS)
def test_names(run_plain: Run, kind: str) -> None:
    """C1: A child has the name that it is given, or the next one of asyncio's own."""

    async def main() -> None:
        assert (await spawn(kind, "given")).get_name() == "given"
        before = asyncio.create_task(asyncio.sleep(0))
        task = await spawn(kind, None)
        after = asyncio.create_task(asyncio.sleep(0))
        numbers = [int(each.get_name().removeprefix("Task-")) for each in (before, task, after)]
        assert numbers == list(range(numbers[0], numbers[0] + 3))
        await asyncio.wait((before, after))

    run_plain(main)


def test_debug_mode_tells_the_line(run_plain: Run) -> None:
    """C1: In debug mode the traceback of a child's making ends as that of asyncio.TaskGroup: with
    the line in the group, and before it the caller's."""

    async def made(group: asyncio.TaskGroup) -> traceback.StackSummary:
        async with group as tg:
            task = tg.create_task(asyncio.sleep(0))
        found: traceback.StackSummary = task._source_traceback  # type: ignore[attr-defined]
        return found

    async def main() -> None:
        ours, asyncios = [await made(group) for group in (TaskGroup(), asyncio.TaskGroup())]
        assert [frame.name for frame in ours] == [frame.name for frame in asyncios]
        assert ours[-1].name == "create_task"

    run_plain(main)


def test_loop_of_asyncio_is_not_asked() -> None:
    """C11: On a loop that makes tasks in asyncio's own way, a group makes them itself."""

    async def main() -> None:
        async with TaskGroup() as tg:
            assert tg._is_direct

    asyncio.run(main())
