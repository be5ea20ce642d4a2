"""A child that waits for its slot behaves like any other task."""

from __future__ import annotations

import asyncio
import contextvars
import io
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from quattro_core import TaskGroup
from tests.core.conftest import Run

Child = asyncio.Task[str]


async def child(result: str = "result") -> str:
    """Return the result, a moment later."""
    await asyncio.sleep(0.01)
    return result


async def until_started(task: Child) -> None:
    """Wait until the child runs."""
    while "wait_for=<Turn" in repr(task):
        await asyncio.sleep(0.001)


def with_waiting(run: Run, use: Callable[[Child], Awaitable[None]], **options: Any) -> Child:
    """Run *use* in the body of a group, with a child that waits for its slot."""

    async def main() -> Child:
        async with TaskGroup(concurrency_limit=1) as tg:
            tg.create_task(asyncio.sleep(0.003))
            task = tg.create_task(child(), **options)
            assert not task.done()
            await use(task)
        return task

    return run(main)


async def by_await(task: Child) -> str:
    return await task


async def by_gather(task: Child) -> str:
    return (await asyncio.gather(task, asyncio.sleep(0)))[0]


async def by_wait(task: Child) -> str:
    done, _ = await asyncio.wait((task,))
    return done.pop().result()


async def by_wait_for(task: Child) -> str:
    return await asyncio.wait_for(task, 5)


async def by_as_completed(task: Child) -> str:
    return [await first for first in asyncio.as_completed((task,))][0]


async def by_shield(task: Child) -> str:
    return await asyncio.shield(task)


@pytest.mark.parametrize(
    "wait", [by_await, by_gather, by_wait, by_wait_for, by_as_completed, by_shield]
)
def test_can_be_awaited(run: Run, wait: Callable[[Child], Awaitable[str]]) -> None:
    """C6: a child that waits can be awaited in every way, and gives its result."""

    async def use(task: Child) -> None:
        waiters = [asyncio.ensure_future(wait(task)) for _ in range(2)]
        assert await wait(task) == "result"
        assert await asyncio.gather(*waiters) == ["result", "result"]

    assert with_waiting(run, use).result() == "result"


@pytest.mark.parametrize("wait", [by_await, by_gather, by_wait_for])
def test_cancelled_while_awaited(run: Run, wait: Callable[[Child], Awaitable[str]]) -> None:
    """C6: who awaits a waiting child that is cancelled gets the CancelledError."""

    async def use(task: Child) -> None:
        waiter = asyncio.ensure_future(wait(task))
        await asyncio.sleep(0)
        assert task.cancel("why")
        with pytest.raises(asyncio.CancelledError):
            await waiter
        with pytest.raises(asyncio.CancelledError):
            task.result()
        assert not task.cancel()
        assert (task.cancelling(), task.uncancel()) == (1, 0)

    assert with_waiting(run, use).cancelled()


def test_timeout_while_waiting(run: Run) -> None:
    """C6: wait_for cancels a child that waits too long; it never starts."""

    async def use(task: Child) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(task, 0.0005)

    assert with_waiting(run, use).cancelled()


def test_cancel_after_the_start(run: Run) -> None:
    """C6: once started, the child is cancelled like any other task."""

    async def use(task: Child) -> None:
        await until_started(task)
        task.cancel("why")
        assert (task.cancelling(), task.uncancel()) == (1, 0)
        task.cancel("why")
        await asyncio.wait((task,))

    assert with_waiting(run, use).cancelled()


def test_callbacks(run: Run) -> None:
    """C6: callbacks that were added to a waiting child are called, in order, in their contexts."""
    variable = contextvars.ContextVar("variable", default="")
    log: list[tuple[str, str]] = []

    def callback(key: str) -> Callable[[Child], None]:
        return lambda task: log.append((key + task.result(), variable.get()))

    async def use(task: Child) -> None:
        removed = callback("removed ")
        variable.set("first")
        task.add_done_callback(callback("first "))
        task.add_done_callback(removed)
        context = contextvars.copy_context()
        context.run(variable.set, "second")
        task.add_done_callback(callback("second "), context=context)
        assert task.remove_done_callback(removed) == 1

    with_waiting(run, use)
    assert log == [("first result", "first"), ("second result", "second")]


def test_names(run_plain: Run) -> None:
    """C6: a waiting child has a name, can be renamed, and keeps the name when it runs."""
    names = []

    async def use(task: Child) -> None:
        names.extend([task.get_name(), task.get_name()])
        assert names[0] in repr(task)

    task = with_waiting(run_plain, use)
    assert names == [task.get_name()] * 2

    async def rename(task: Child) -> None:
        assert task.get_name() == "given"
        task.set_name("renamed")
        assert task.get_name() == "renamed"

    task = with_waiting(run_plain, rename, name="given")
    assert task.get_name() == "renamed"
    task.set_name("again")
    assert task.get_name() == "again"
    assert "again" in repr(task)


def test_context_of_the_creation(run: Run) -> None:
    """C6: context variables are seen as they were when the child was created."""
    variable = contextvars.ContextVar("variable", default="unset")

    async def read() -> str:
        return variable.get()

    async def main() -> list[str]:
        async with TaskGroup(concurrency_limit=1) as tg:
            tasks = [tg.create_task(asyncio.sleep(0.001, "running"))]
            for value in ("a", "b"):
                variable.set(value)
                tasks += [tg.create_task(read()), tg.create_task(read)]
            variable.set("c")
        return [task.result() for task in tasks]

    assert run(main) == ["running", "a", "a", "b", "b"]


def inspect_task(task: Child) -> None:
    """Call everything that a task has for those who look at it."""
    output = io.StringIO()
    task.print_stack(file=output)
    assert isinstance(task.get_stack(), list)
    assert isinstance(task.get_name(), str)
    assert isinstance(task.cancelling(), int)
    assert isinstance(task.uncancel(), int)
    assert task.get_loop() is asyncio.get_running_loop()
    assert type(task).__name__ in repr(task)
    if sys.version_info >= (3, 12):
        assert task.get_context() is not None
    with pytest.raises(RuntimeError):
        task.set_result("")
    with pytest.raises(RuntimeError):
        task.set_exception(ValueError)
    for name in dir(asyncio.Future):
        getattr(task, name, None)


def test_every_method_is_safe(run: Run) -> None:
    """C6: every method of a task works on a child that waits, runs, is cancelled, or is done."""

    async def use(task: Child) -> None:
        inspect_task(task)
        assert task.get_coro().__qualname__ == "child"  # type: ignore[union-attr]
        await asyncio.sleep(0)
        inspect_task(task)
        assert "<child() running at" in repr(task) or "<child() created at" in repr(task)
        assert "wait_for=<Turn waiting" in repr(task)
        with pytest.raises(asyncio.InvalidStateError):
            task.result()
        with pytest.raises(asyncio.InvalidStateError):
            task.exception()
        await until_started(task)
        inspect_task(task)
        assert task.get_coro().__qualname__ == "child"  # type: ignore[union-attr]
        await task
        inspect_task(task)

    with_waiting(run, use)

    async def cancel(task: Child) -> None:
        task.cancel()
        await asyncio.wait((task,))
        inspect_task(task)
        assert "cancelled" in repr(task)

    with_waiting(run, cancel)


def test_function_that_waits(run_plain: Run) -> None:
    """C6: a function that waits has no frame yet; once cancelled, it is never called."""

    async def main() -> None:
        async with TaskGroup(concurrency_limit=1) as tg:
            tg.create_task(child())
            task = tg.create_task(child)
            assert task.get_coro().__qualname__ == "child"  # type: ignore[union-attr]
            assert not hasattr(task.get_coro(), "cr_frame")
            assert task.get_stack() == []
            task.cancel()

    run_plain(main)
