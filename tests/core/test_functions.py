"""Functions in the place of coroutines."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
from collections.abc import Coroutine
from typing import Any

import pytest

from quattro_core import TaskGroup
from tests.core.conftest import Run
from tests.core.test_background import forever
from tests.core.test_errors import errors_of

EVERY_WAY = pytest.mark.parametrize(
    ("method", "limit"),
    [("create_task", None), ("create_task", 1), ("create_background_task", None)],
)


@EVERY_WAY
def test_any_callable(run: Run, method: str, limit: int | None) -> None:
    """C7: a function, a bound method, a partial, a lambda: whatever returns a coroutine will do."""

    class Worker:
        async def work(self) -> str:
            return "method"

        async def __call__(self) -> str:
            return "object"

    async def function(result: str = "function") -> str:
        return result

    async def main() -> list[str]:
        async with TaskGroup(concurrency_limit=limit) as tg:
            create = getattr(tg, method)
            children = [
                function,
                Worker().work,
                Worker(),
                functools.partial(function, "partial"),
                lambda: function("lambda"),
            ]
            tasks = [create(child) for child in children]
            await asyncio.wait(tasks)
        return [task.result() for task in tasks]

    assert run(main) == ["function", "method", "object", "partial", "lambda"]


def test_called_when_its_turn_comes(run: Run) -> None:
    """C7: under a limit, the function is called when its turn comes, not before."""
    log = []

    def function() -> Any:
        log.append("called")
        return asyncio.sleep(0)

    async def main() -> None:
        async with TaskGroup(concurrency_limit=1) as tg:
            first = tg.create_task(asyncio.sleep(0.001))
            tg.create_task(function)
            await first
            log.append("its turn")

    run(main)
    assert log in (["its turn", "called"], ["called", "its turn"])
    assert len(log) == 2


def test_not_called_before_its_turn(run: Run) -> None:
    """C7: a function that never gets its turn is never called."""

    def function() -> Any:
        raise AssertionError

    async def main() -> None:
        async with TaskGroup(concurrency_limit=1) as tg:
            tg.create_task(forever())
            tg.create_task(function)
            await asyncio.sleep(0.001)
            tg.cancel()

    run(main)


@EVERY_WAY
def test_function_that_raises(run: Run, method: str, limit: int | None) -> None:
    """C7: an error of the function itself is an error of the child."""

    def function() -> Any:
        raise ValueError("function")

    async def main() -> None:
        async with TaskGroup(concurrency_limit=limit) as tg:
            tg.create_task(asyncio.sleep(0.001))
            getattr(tg, method)(function)
            await forever()

    assert errors_of(run, main) == ["function"]


@EVERY_WAY
def test_function_that_returns_something_else(run: Run, method: str, limit: int | None) -> None:
    """C7: a function that returns no coroutine is a TypeError of the child that names it."""

    def not_a_coroutine() -> Any:
        return 3

    async def main() -> None:
        async with TaskGroup(concurrency_limit=limit) as tg:
            tg.create_task(asyncio.sleep(0.001))
            getattr(tg, method)(not_a_coroutine)

    (error,) = errors_of(run, main)
    assert "not_a_coroutine" in error
    assert error.endswith("to return a coroutine, got 3")


@EVERY_WAY
def test_called_by_its_task(run: Run, method: str, limit: int | None) -> None:
    """C7: the function is called by its task, in the context of its task."""
    variable = contextvars.ContextVar("variable", default="unset")

    def function() -> Any:
        return asyncio.sleep(0, (asyncio.current_task(), variable.get()))

    async def main() -> None:
        context = contextvars.copy_context()
        context.run(variable.set, "given")
        async with TaskGroup(concurrency_limit=limit) as tg:
            create = getattr(tg, method)
            tasks = [create(function, context=context) for _ in range(3)]
            await asyncio.wait(tasks)
        assert [task.result() for task in tasks] == [(task, "given") for task in tasks]

    run(main)


@pytest.mark.parametrize("limit", [None, 1])
def test_context_that_is_in_use(run_plain: Run, limit: int | None) -> None:
    """C7: a function may share the context of the task that creates it."""
    context = contextvars.copy_context()

    async def function() -> str:
        return "done"

    async def parent() -> list[str]:
        async with TaskGroup(concurrency_limit=limit) as tg:
            tasks = [tg.create_task(function, context=context) for _ in range(3)]
        return [task.result() for task in tasks]

    async def main() -> list[str]:
        return await asyncio.create_task(parent(), context=context)

    assert run_plain(main) == ["done"] * 3


def wrapping(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
    """Make a task of a coroutine around another one, as the factories of tracing libraries do."""

    async def traced() -> Any:
        return await coro

    return asyncio.Task(traced(), loop=loop, **options)


@pytest.mark.parametrize("is_function", [True, False])
def test_child_in_a_wrapper_that_never_starts(run: Run, is_function: bool) -> None:
    """C6: A child that is cancelled before its first step leaves no "never awaited" behind, also if
    a task factory has put its coroutine into another one."""

    def child() -> Any:
        return forever if is_function else forever()

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(wrapping)
        async with TaskGroup() as tg:
            tg.create_background_task(child())
        async with TaskGroup() as tg:
            tg.create_task(child())
            tg.create_task(child(), name="named", context=contextvars.copy_context())
            tg.cancel()
        async with TaskGroup() as tg:
            assert await tg.create_task(asyncio.sleep(0, "done")) == "done"

    run(main)


class Compiled(Coroutine[Any, Any, None]):
    """A coroutine that is none of Python's own, as those that Cython makes."""

    def send(self, value: Any) -> Any:
        raise AssertionError

    def throw(self, typ: Any, val: Any = None, tb: Any = None) -> Any:
        raise typ

    def __await__(self) -> Any:
        raise AssertionError

    def close(self) -> None:
        pass


def test_compiled_child_in_a_wrapper_that_never_starts(run: Run) -> None:
    """C6: So it is of a coroutine that does not tell whether it has started."""

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(wrapping)
        async with TaskGroup() as tg:
            task = tg.create_task(Compiled())
            tg.cancel()
        assert task.cancelled()

    run(main)


@pytest.mark.parametrize("method", ["create_task", "create_background_task"])
def test_arguments_of_a_function(run: Run, method: str) -> None:
    """C7: Arguments that are given as to a thread are a TypeError that shows how to give them; a
    coroutine is closed."""

    def plain(number: int) -> None: ...

    async def main() -> None:
        coro = forever()
        async with TaskGroup() as tg:
            create: Any = getattr(tg, method)
            for child, way_out in (
                (forever, rf"call the function, as in {method}\(forever\(3, 'a'\)\)$"),
                (plain, r"call run_in_thread\(plain, 3, 'a'\)$"),
                (coro, "3, 'a' is no argument of it; a name is given as name="),
            ):
                with pytest.raises(TypeError, match=f"^{method} takes one coroutine: .*{way_out}"):
                    create(child, 3, "a")
            assert tg.tasks == ()
        assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED

    run(main)
