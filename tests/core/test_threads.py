"""Calls from threads that are not the event loop's."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from typing import Any

import anyio.from_thread
import anyio.to_thread
import pytest

from quattro_core import TaskGroup
from tests.core.conftest import Run, turns
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
            assert "such as that of a def endpoint" in str(error)
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


async def beside_one_twice(call: Coroutine[Any, Any, None]) -> None:
    other = asyncio.ensure_future(forever())
    await asyncio.gather(call, other, other)


async def beside_one_that_has_ended(call: Coroutine[Any, Any, None]) -> None:
    await asyncio.gather(call, asyncio.sleep(0))


async def beside_one_that_runs(call: Coroutine[Any, Any, None]) -> None:
    async def runs() -> None:
        while True:
            await asyncio.sleep(0)

    await asyncio.gather(call, runs())


async def behind_one_that_waits(call: Coroutine[Any, Any, None]) -> None:
    await asyncio.gather(asyncio.gather(call), asyncio.gather(forever()))


async def in_a_group(call: Coroutine[Any, Any, None]) -> None:
    async with asyncio.TaskGroup() as inner:
        inner.create_task(forever())
        inner.create_task(call)


async def in_an_async_generator(call: Coroutine[Any, Any, None]) -> None:
    async def results() -> AsyncIterator[None]:
        await call
        yield

    async for _ in results():
        pass


class Awaitable:
    """Awaits what it is made of, as a generator."""

    def __init__(self, coro: Coroutine[Any, Any, None]) -> None:
        self._coro = coro

    def __await__(self) -> Generator[Any, None, None]:
        return (yield from self._coro.__await__())


async def in_a_generator(call: Coroutine[Any, Any, None]) -> None:
    await Awaitable(call)


@pytest.mark.parametrize(
    "wait",
    [
        beside_one_twice,
        beside_one_that_has_ended,
        beside_one_that_runs,
        behind_one_that_waits,
        in_a_group,
        in_an_async_generator,
        in_a_generator,
    ],
)
@pytest.mark.parametrize("who", ["body", "child"])
def test_thread_beside_others(
    run: Run, wait: Callable[[Coroutine[Any, Any, None]], Coroutine[Any, Any, None]], who: str
) -> None:
    """C5: The thread is found that the body or a child waits for, whatever else it waits for."""
    log: list[str] = []

    async def main() -> None:
        async def outlast() -> None:
            tg.cancel()
            await turns()

        def work() -> None:
            anyio.from_thread.run(outlast)
            log.append("thread ended")

        async def waits() -> None:
            try:
                await wait(anyio.to_thread.run_sync(work))
                await forever()
            finally:
                log.append("waiter")

        async with TaskGroup() as tg:
            await (waits() if who == "body" else tg.create_task(waits()))

    run(main)
    assert log == ["thread ended", "waiter"]


def test_many_ways_to_one_task(run_plain: Run) -> None:
    """C9: `cancel()` comes at once to who waits for tasks that wait for others, two ways to each,
    however many ways there are to the last one."""
    log: list[str] = []

    async def wait(levels: int) -> None:
        if not levels:
            await forever()

        async def wait_for_next() -> None:
            await following

        following = asyncio.create_task(wait(levels - 1))
        async with asyncio.TaskGroup() as inner:
            for _ in range(2):
                inner.create_task(wait_for_next())

    async def main() -> None:
        async with TaskGroup() as tg:
            tg.create_task(wait(40))
            await asyncio.sleep(1)
            tg.cancel()
        log.append("ended")

    run_plain(main)
    assert log == ["ended"]


def test_thread_that_ends_with_a_cancellation(run: Run) -> None:
    """C5: The clean-up of who has seen a cancellation in its thread is not cut by that of the
    group."""
    log: list[str] = []

    async def main() -> None:
        def work() -> None:
            anyio.from_thread.run_sync(tg.cancel)
            raise asyncio.CancelledError

        async def child() -> None:
            try:
                await anyio.to_thread.run_sync(work)
            finally:
                await turns()
                log.append("cleaned up")

        async with TaskGroup() as tg:
            tg.create_task(child())

    run(main)
    assert log == ["cleaned up"]


def test_function_that_has_the_name_of_anyios(run_plain: Run) -> None:
    """C9: Who waits for no thread is cancelled at once, whatever its function is called."""

    async def run_sync() -> None:
        await asyncio.sleep(3600)

    async def main() -> None:
        async with TaskGroup() as tg:
            tg.create_task(run_sync())
            await turns()
            tg.cancel()
        assert asyncio.get_running_loop().time() == 0

    run_plain(main)


@pytest.mark.parametrize("late", range(8))
@pytest.mark.parametrize("awaits", ["a task", "a gather", "a gather that goes on", "a future"])
def test_wait_for_whose_awaited_has_just_ended(run_plain: Run, awaits: str, late: int) -> None:
    """C6: A failure that meets the end of what the body awaits in `asyncio.wait_for` cancels the
    body there, or at its next await: before 3.12, that would lose a cancellation."""
    seen: list[str] = []

    async def until(event: asyncio.Event) -> None:
        await event.wait()

    async def fails(event: asyncio.Event) -> None:
        await event.wait()
        for _ in range(late):
            await asyncio.sleep(0)
        raise ZeroDivisionError

    async def main() -> None:
        event = asyncio.Event()
        async with TaskGroup() as tg:
            tg.create_task(fails(event))
            first, second = (asyncio.create_task(until(event)) for _ in range(2))
            awaited: asyncio.Future[Any] = first
            if awaits == "a gather":
                awaited = asyncio.gather(first, second)
            elif awaits == "a gather that goes on":
                awaited = asyncio.gather(first, forever())
            elif awaits == "a future":
                awaited = asyncio.get_running_loop().create_future()
                asyncio.get_running_loop().call_soon(awaited.set_result, None)
            asyncio.get_running_loop().call_soon(event.set)
            try:
                await asyncio.wait_for(awaited, 10)
                await asyncio.sleep(60)
                seen.append("was not cancelled")
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

    with pytest.raises(ExceptionGroup) as caught:
        run_plain(main)
    assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError]
    assert seen == ["cancelled"]


def test_wait_for_whose_awaited_is_about_to_end(run_plain: Run) -> None:
    """C9: `cancel()` in the turn in which a task is woken, for which the body waits in
    `asyncio.wait_for`, cancels the body there, or at its next await."""
    seen: list[str] = []

    async def main() -> None:
        event = asyncio.Event()

        def set_and_cancel() -> None:
            event.set()
            tg.cancel()

        async with TaskGroup() as tg:
            asyncio.get_running_loop().call_later(1, set_and_cancel)
            try:
                await asyncio.wait_for(asyncio.create_task(event.wait()), 10)
                await asyncio.sleep(60)
                seen.append("was not cancelled")
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

    run_plain(main)
    assert seen == ["cancelled"]
