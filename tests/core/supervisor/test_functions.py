"""What can be supervised, and what is refused at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import Any

import pytest

from quattro_core import Supervisor, TaskStatus
from tests.core.conftest import Run
from tests.core.supervisor.flaky import Flaky, live


async def needs(one: int, two: int) -> None: ...


async def by_position(task_status: TaskStatus, /) -> None: ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (5, "a Supervisor takes an async function, got 5"),
        (needs, "needs takes one, two: bind them with functools.partial"),
        (partial(needs, 1), "needs takes two: bind"),
        (by_position, "by_position takes task_status by position only"),
    ],
)
def test_what_is_no_function(function: Any, message: str) -> None:
    """A3: What can't be called is an error at once, that names it and the way out."""
    with pytest.raises(TypeError, match=message):
        Supervisor(function)


def test_coroutine_is_no_function() -> None:
    """A3: A coroutine instead of a function is an error; it is closed."""
    with pytest.raises(TypeError, match="leave out the call"):
        Supervisor(needs(1, 2))  # type: ignore[arg-type]


def test_function_that_is_not_async(run: Run) -> None:
    """A3: A function that returns nothing to be awaited has failed, with an error that says so."""

    async def main() -> None:
        with pytest.raises(TypeError, match="is not an async function: it returned None"):
            await Supervisor(lambda: None).run()  # type: ignore[arg-type, return-value]

    run(main)


@pytest.mark.parametrize("function", [partial(Flaky()), Flaky(), Flaky().__call__])
def test_any_callable(run: Run, function: Callable[[], Awaitable[None]]) -> None:
    """A3: Partial functions, objects and methods are functions, too."""

    async def main() -> None:
        supervisor = Supervisor(function)
        await live(supervisor, 1)
        assert supervisor.name

    run(main)


def test_function_that_yields() -> None:
    """A3: An async generator function never runs by being awaited: that is an error now."""

    async def pump() -> Any:
        yield

    with pytest.raises(TypeError, match=r"pump is an async generator: .*leave out the yield"):
        Supervisor(pump)


def blocks() -> None: ...


@pytest.mark.parametrize("function", [blocks, partial(blocks)])
def test_function_that_blocks(function: Any) -> None:
    """A3: A def function is refused at once: it would block the event loop when it is called."""
    with pytest.raises(TypeError, match=r"blocks is a def function.*asyncio\.to_thread"):
        Supervisor(function)


def test_def_function_that_returns_an_awaitable() -> None:
    """A3: What returns an awaitable, and says so, can be supervised."""

    def later() -> Awaitable[None]:
        return asyncio.sleep(0)

    async def main() -> None:
        for function in (later, lambda: asyncio.sleep(0)):
            await Supervisor(function, on_return="ok").run()

    asyncio.run(main())


def test_function_in_a_wrapper() -> None:
    """A3: A def function that says that it wraps an async one can be supervised; one that wraps a
    def function can't."""

    def call_of(function: Callable[[], Any]) -> Callable[[], Any]:
        @wraps(function)
        def wrapper() -> Any:
            return function()

        return wrapper

    async def main() -> None:
        await Supervisor(call_of(later), on_return="ok").run()

    async def later() -> None: ...

    asyncio.run(main())
    with pytest.raises(TypeError, match="blocks is a def function"):
        Supervisor(call_of(blocks))


async def with_default(number: int = 1) -> None: ...


async def with_any(*numbers: int, **options: int) -> None: ...


@pytest.mark.parametrize("function", [with_default, with_any, partial(needs, 1, two=2)])
def test_function_that_needs_no_arguments(run: Run, function: Any) -> None:
    """A3: A function that can be called without arguments may take some."""

    async def main() -> None:
        await Supervisor(function, on_return="ok").run()

    run(main)


def test_builtin_that_tells_no_arguments(run: Run) -> None:
    """A3: What does not tell its arguments is called with none."""

    async def main() -> None:
        work = asyncio.get_running_loop().create_future()
        work.set_result(None)
        function = partial({"work": work}.pop, "work")
        await Supervisor(function, name="builtin", on_return="ok").run()

    run(main)
