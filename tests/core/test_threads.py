"""Calls from threads that are not the event loop's."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable
from typing import Any

import anyio.from_thread
import anyio.to_thread
import pytest

from quattro_core import TaskGroup
from tests.core.conftest import Run
from tests.core.test_background import forever

METHODS = pytest.mark.parametrize("method", ["create_task", "create_background_task"])


def in_thread(function: Callable[[], object]) -> BaseException | None:
    """Call the function in a thread and wait for it; return what it raised."""
    errors: list[BaseException | None] = []

    def target() -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)
        else:
            errors.append(None)

    thread = threading.Thread(target=target, name="elsewhere")
    thread.start()
    thread.join()
    return errors[0]


@METHODS
@pytest.mark.parametrize("limit", [None, 1])
def test_another_thread(run: Run, method: str, limit: int | None) -> None:
    """C8: in another thread a RuntimeError says what to do instead, and the coroutine is closed."""

    async def main() -> None:
        async with TaskGroup(concurrency_limit=limit) as tg:
            coro = forever()
            error = in_thread(lambda: getattr(tg, method)(coro))
            assert isinstance(error, RuntimeError)
            assert "thread 'elsewhere'" in str(error)
            assert f"TaskGroup.{method} was called" in str(error)
            assert f"anyio.from_thread.run_sync(group.{method}, ...)" in str(error)
            assert f"loop.call_soon_threadsafe(group.{method}, ...)" in str(error)
            assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED
            assert isinstance(in_thread(lambda: getattr(tg, method)(forever)), RuntimeError)
            assert "tasks=" not in repr(tg)

    run(main)


@METHODS
def test_another_loop(run_plain: Run, method: str) -> None:
    """C8: a thread with an event loop of its own is another thread all the same."""

    async def main() -> None:
        async with TaskGroup() as tg:

            async def elsewhere() -> None:
                getattr(tg, method)(forever())

            error = in_thread(lambda: asyncio.run(elsewhere()))
            assert isinstance(error, RuntimeError)
            assert "thread 'elsewhere'" in str(error)

    run_plain(main)


@METHODS
def test_another_thread_after_the_end(run_plain: Run, method: str) -> None:
    """C8: the coroutine is closed, too, where the group has finished in the meantime."""

    async def main() -> None:
        async with TaskGroup() as tg:
            pass
        coro = forever()
        assert isinstance(in_thread(lambda: getattr(tg, method)(coro)), RuntimeError)
        assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED

    run_plain(main)


@METHODS
def test_the_way_out(run: Run, method: str) -> None:
    """C8: what the message proposes works: `call_soon_threadsafe` with a function."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        called = asyncio.Event()

        async def child() -> None:
            called.set()

        async with TaskGroup() as tg:
            assert in_thread(lambda: loop.call_soon_threadsafe(getattr(tg, method), child)) is None
            await called.wait()

    run(main)


def test_cancel_from_another_thread(run: Run) -> None:
    """C9: cancel from another thread is a RuntimeError that says what to do."""

    async def main() -> None:
        async with TaskGroup() as tg:
            child: asyncio.Task[Any] = tg.create_task(asyncio.sleep(0.001, "unharmed"))
            error = in_thread(tg.cancel)
            assert isinstance(error, RuntimeError)
            assert "loop.call_soon_threadsafe(group.cancel, ...)" in str(error)
        assert child.result() == "unharmed"

    run(main)


@pytest.mark.parametrize("waits", ["body", "child"])
def test_what_waits_for_a_thread_of_anyio(run: Run, waits: str) -> None:
    """C5: Nothing can cancel a thread: the group waits for the call under way, which returns what
    it returns, and no call follows."""
    log: list[str] = []

    async def main() -> None:
        has_begun = asyncio.Event()

        async def outlast() -> None:
            has_begun.set()
            for _ in range(50):
                await asyncio.sleep(0)

        def work() -> str:
            anyio.from_thread.run(outlast)
            log.append("thread ended")
            return "returned"

        async def calls() -> None:
            for _ in range(9):
                log.append(await anyio.to_thread.run_sync(work))

        async def fail() -> None:
            await has_begun.wait()
            raise LookupError

        with pytest.raises(ExceptionGroup) as failed:
            async with TaskGroup() as tg:
                tg.create_task(fail())
                await (calls() if waits == "body" else tg.create_task(calls()))
        assert [type(error) for error in failed.value.exceptions] == [LookupError]
        assert log == ["thread ended", "returned"]

    run(main)


def test_thread_that_may_be_left(run: Run) -> None:
    """C5: A thread that was started to be abandoned is given up at once, also by a body that waits
    for it twice."""
    log: list[str] = []

    async def main() -> None:
        released = threading.Event()

        def work() -> None:
            anyio.from_thread.run_sync(tg.cancel)
            released.wait(10)
            log.append("thread ended")

        async with TaskGroup() as tg:
            call = tg.create_task(anyio.to_thread.run_sync(work, abandon_on_cancel=True))
            await asyncio.gather(call, call)
        log.append("group ended")
        released.set()

    run(main)
    assert log[0] == "group ended"
