"""What code that was written for `asyncio.TaskGroup` or for quattro finds."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import sys
from typing import Any

import pytest

from quattro_core import TaskGroup
from tests.core.conftest import Run
from tests.support.clock import VirtualClockLoop


def test_group_example_of_the_original_documentation(run: Run) -> None:
    """C7: the first example of the original documentation runs as it is: it passes functions."""
    log = []

    async def my_handler() -> None:
        # We want to spawn some tasks, and ensure they are all handled before we return.
        async def task_1() -> None:
            log.append("task_1")

        async def task_2() -> None:
            log.append("task_2")

        async def background_task() -> None:
            await asyncio.Event().wait()

        async with TaskGroup() as tg:
            t1 = tg.create_task(task_1)
            t2 = tg.create_task(task_2)
            tg.create_background_task(background_task)

        assert t1.done() and t2.done()

    run(my_handler)
    assert log == ["task_1", "task_2"]


def test_limit_example_of_the_original_documentation(run: Run) -> None:
    """C6: the loop of the original documentation runs as it is, ten at a time."""
    alive, most, started = set(), 0, []
    items = range(25)

    async def process(item: int) -> None:
        nonlocal most
        started.append(item)
        alive.add(item)
        most = max(most, len(alive))
        await asyncio.sleep(0.001)
        alive.discard(item)

    async def main() -> None:
        async with TaskGroup(concurrency_limit=10) as tg:
            for item in items:
                tg.create_task(process(item))

    run(main)
    assert most == 10
    assert started == list(items)


def test_background_example_of_the_original_documentation(run: Run) -> None:
    """C2: a pump between queues, as the original documentation has it, is cancelled."""

    async def main() -> list[int]:
        source: asyncio.Queue[int] = asyncio.Queue()
        target: asyncio.Queue[int] = asyncio.Queue()

        async def pump() -> None:
            while True:
                target.put_nowait(await source.get())

        async def use() -> list[int]:
            source.put_nowait(1)
            source.put_nowait(2)
            return [await target.get(), await target.get()]

        async with TaskGroup() as tg:
            pumping = tg.create_background_task(pump())
            task = tg.create_task(use())
        assert pumping.cancelled()
        return task.result()

    assert run(main) == [1, 2]


@pytest.mark.parametrize("method", ["create_task", "create_background_task"])
@pytest.mark.parametrize("limit", [None, 1])
def test_keyword_arguments(run: Run, method: str, limit: int | None) -> None:
    """C1: name and context are taken as the standard library takes them, by every kind of child."""
    variable = contextvars.ContextVar("variable", default="unset")
    context = contextvars.copy_context()
    context.run(variable.set, "given")

    async def child() -> str:
        return variable.get()

    async def main() -> None:
        async with TaskGroup(concurrency_limit=limit) as tg:
            create = getattr(tg, method)
            tasks = [create(child(), name=f"n{i}", context=context) for i in range(3)]
            tasks.append(create(child, name="n3", context=context))
            await asyncio.wait(tasks)
        assert [task.result() for task in tasks] == ["given"] * 4
        assert [task.get_name() for task in tasks] == ["n0", "n1", "n2", "n3"]

    run(main)


@pytest.mark.parametrize("limit", [None, 1])
def test_keyword_arguments_of_newer_pythons(run_plain: Run, limit: int | None) -> None:
    """C1: a keyword argument we don't know goes to the loop's create_task, which may know it."""

    class NewerLoop(VirtualClockLoop):
        def create_task(self, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
            given.append(kwargs.pop("novelty", None))
            return super().create_task(coro, **kwargs)

    async def main() -> None:
        async with TaskGroup(concurrency_limit=limit) as tg:
            tg.create_task(asyncio.sleep(0), novelty=1)
            tg.create_background_task(asyncio.sleep(0), novelty=2)

    given: list[object] = []
    run_plain.factory = NewerLoop
    run_plain(main)
    assert [value for value in given if value] == [1, 2]


@pytest.mark.parametrize("limit", [None, 1])
def test_unknown_keyword_arguments(run: Run, limit: int | None) -> None:
    """C1: a keyword argument that nobody knows is a TypeError at once, and closes the coroutine."""
    # asyncio's own words, which are others under an eager task factory from 3.14 on.
    words = "unexpected keyword argument|takes at most"

    async def main() -> None:
        async with TaskGroup(concurrency_limit=limit) as tg:
            for create in (tg.create_task, tg.create_background_task):
                for child in (asyncio.sleep(0), lambda: asyncio.sleep(0)):
                    with pytest.raises(TypeError, match=words):
                        create(child, bogus=1)
            tg.create_task(asyncio.sleep(0.001))
            with pytest.raises(TypeError, match=words):
                tg.create_task(asyncio.sleep(0), bogus=1)
            tg.create_task(asyncio.sleep(0))  # the slot was not lost

    run(main)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="eager_start came with Python 3.14")
@pytest.mark.parametrize("limit", [None, 1])
def test_eager_start(run_plain: Run, limit: int | None) -> None:
    """C1: `eager_start` is forwarded; a child that has to wait starts when its turn comes."""
    log = []

    async def child(name: str) -> None:
        log.append(name)
        await asyncio.sleep(0.001)

    async def main() -> None:
        async with TaskGroup(concurrency_limit=limit) as tg:
            tg.create_task(child("first"), eager_start=True)
            tg.create_background_task(child("pump"), eager_start=True)
            tg.create_task(child("second"), eager_start=True)
            log.append("body")

    run_plain(main)
    late = ["second"] if limit else []
    assert log == ["first", "pump", *(["second"] if not limit else []), "body", *late]


@pytest.mark.parametrize("child", [None, 3, "text"])
def test_neither_coroutine_nor_function(run_plain: Run, child: Any) -> None:
    """C7: what is neither a coroutine nor callable is a TypeError that shows it."""

    async def main() -> None:
        async with TaskGroup() as tg:
            with pytest.raises(TypeError, match=f"got {child!r}"):
                tg.create_task(child)
            with pytest.raises(TypeError, match=f"got {child!r}"):
                tg.create_background_task(child)

    run_plain(main)


def test_signatures_agree() -> None:
    """C2: create_background_task has the signature of create_task."""
    foreground = inspect.signature(TaskGroup.create_task)
    assert inspect.signature(TaskGroup.create_background_task) == foreground


def test_result_of_the_block(run: Run) -> None:
    """C1: the block gives the group, tasks give their results, and the group is falsy to nobody."""

    async def main() -> None:
        group = TaskGroup()
        async with group as tg:
            assert tg is group
            task = tg.create_task(asyncio.sleep(0.001, "result"))
        assert task.result() == "result"
        assert repr(group) == "<TaskGroup finished>"

    run(main)


def test_repr_counts_tasks_and_errors(run_plain: Run) -> None:
    """C1: A group shows how many of its tasks run, and how many errors it has, as asyncio's."""
    shown: list[str] = []

    async def fail() -> None:
        raise ZeroDivisionError

    async def child(tg: TaskGroup) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            shown.append(repr(tg))

    async def main() -> None:
        async with TaskGroup() as tg:
            tg.create_task(child(tg))
            tg.create_background_task(child(tg))
            await asyncio.sleep(0)
            tg.create_task(fail())

    with pytest.raises(ExceptionGroup):
        run_plain(main)
    assert shown[0] == "<TaskGroup tasks=2 errors=1 cancelling>"
