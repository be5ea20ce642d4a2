"""The loops that the core is tested on, and what must hold after every run."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.support.clock import DeadlockError, VirtualClockLoop

try:
    import uvloop
except ImportError:
    uvloop = None  # type: ignore[assignment]

T = TypeVar("T")
LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def eager_loop() -> asyncio.AbstractEventLoop:
    """Return a loop whose tasks run their first step at once (Python 3.12 and newer)."""
    loop = VirtualClockLoop()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
    return loop


def stretched_uvloop() -> asyncio.AbstractEventLoop:
    """Return a uvloop, which has no virtual clock, whose waits are long enough to keep their order.

    What a test has happen a millisecond apart is ten apart: more than a busy machine is late.
    """

    base: Any = uvloop.Loop  # its stubs differ from one version to the next

    class StretchedLoop(base):  # type: ignore[misc]
        def call_later(self, delay: float, *args: Any, **kwargs: Any) -> Any:
            return super().call_later(delay * 10, *args, **kwargs)

        def call_at(self, when: float, *args: Any, **kwargs: Any) -> Any:
            return self.call_later(when - self.time(), *args, **kwargs)

    loop: asyncio.AbstractEventLoop = StretchedLoop()
    return loop


LOOPS: dict[str, LoopFactory] = {"plain": VirtualClockLoop}
if sys.version_info >= (3, 12):
    LOOPS["eager"] = eager_loop
if uvloop is not None:
    LOOPS["uvloop"] = stretched_uvloop


async def turns() -> None:
    """Let everything run that can run now, however busy the machine is."""
    for _ in range(20):
        await asyncio.sleep(0)


class Run:
    """Runs an async function on a loop of its own, in debug mode, and holds it to account.

    After it, no task is alive, nothing was given to the loop's exception handler but what the test
    took from `reports`, and no coroutine was left without being awaited (a warning is an error).
    """

    def __init__(self, factory: LoopFactory) -> None:
        self.factory = factory
        self.reports: list[dict[str, Any]] = []
        self.left: list[str] = []

    def __call__(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        with asyncio.Runner(debug=True, loop_factory=self.factory) as runner:
            runner.get_loop().set_exception_handler(lambda _, report: self.reports.append(report))
            try:
                return runner.run(self._watch(main))
            except DeadlockError:
                runner.get_loop().run_until_complete(_kill_all())
                raise
            finally:
                gc.collect()

    async def _watch(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        try:
            return await main()
        finally:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            self.left = [repr(task) for task in others if not task.done()]


async def _kill_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    while others:
        for task in others:
            task.cancel()
        _, others = await asyncio.wait(others, timeout=1)


@pytest.fixture(scope="session", autouse=True)
def quick_collections() -> Iterable[None]:
    """Spare the garbage collection after each run what was there before all tests."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def _runs(factory: LoopFactory) -> Iterable[Run]:
    run = Run(factory)
    yield run
    assert not run.left, "tasks were left alive"
    assert not run.reports, "the event loop's exception handler was called"


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Iterable[Run]:
    """Run an async function, on each kind of loop in turn."""
    yield from _runs(LOOPS[request.param])


@pytest.fixture
def run_plain() -> Iterable[Run]:
    """Run an async function on the plain loop alone, where the kind of loop makes no difference."""
    yield from _runs(VirtualClockLoop)


@pytest.fixture
def run_eager() -> Iterable[Run]:
    """Run an async function with the eager task factory; skips the test before Python 3.12."""
    if sys.version_info < (3, 12):
        pytest.skip("eager tasks came with Python 3.12")
    yield from _runs(eager_loop)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Turn warnings into errors, whatever the configuration of the project says."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("error"))
