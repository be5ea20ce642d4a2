"""`create_task` in a worker thread, and the future that it returns there."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, cast

import anyio.to_thread
import pytest

from quattro_core import SharedLimit, TaskFuture, TaskGroup, TooManyWaitingError
from tests.core.conftest import Run
from tests.core.test_background import forever
from tests.core.test_errors import errors_of, fail
from tests.core.test_gather import give
from tests.core.test_gather_failures import slow_to_end
from tests.core.test_threads import METHODS, in_thread

variable: ContextVar[str] = ContextVar("variable")


async def by_anyio(tg: TaskGroup, function: Callable[[], Any]) -> Any:
    del tg
    return await anyio.to_thread.run_sync(function)


async def by_group(tg: TaskGroup, function: Callable[[], Any]) -> Any:
    return await tg.run_in_thread(function)


WORKERS = pytest.mark.parametrize("worker", [by_anyio, by_group])


def future_of(task: asyncio.Task[Any]) -> TaskFuture[Any]:
    assert isinstance(task, TaskFuture)
    return cast("TaskFuture[Any]", task)


@WORKERS
@METHODS
def test_in_a_worker_thread(run: Run, worker: Any, method: str) -> None:
    """C8: In a thread that a task waits for, a child is started in the event loop, and a future of
    it is returned, to wait for there. The child sees the context variables of the thread."""

    async def child() -> str:
        await asyncio.sleep(0.001)
        return f"{variable.get()} {threading.current_thread().name}"

    async def main() -> None:
        async with TaskGroup() as tg:

            def work() -> None:
                variable.set("own")
                future = future_of(getattr(tg, method)(child(), name="one"))
                assert future.result(5) == f"own {threading.main_thread().name}"
                assert future.exception() is None
                assert (future.done(), future.running(), future.cancelled()) == (True, False, False)
                assert future.cancel() is False
                futures = [getattr(tg, method)(lambda: give("a")), getattr(tg, method)(give("b"))]
                done, _ = concurrent.futures.wait(futures, 5)
                assert {future.result() for future in done} == {"a", "b"}

            await worker(tg, work)

    run(main)


@WORKERS
def test_the_exit_waits(run: Run, worker: Any) -> None:
    """C8, C4: The exit of the group waits for a child that was started in a thread."""
    log: list[str] = []

    async def main() -> None:
        released = asyncio.Event()

        async def child() -> None:
            await released.wait()
            await asyncio.sleep(0.002)
            log.append("child")

        async with TaskGroup() as tg:

            def work() -> None:
                future = future_of(tg.create_task(child()))
                future.add_done_callback(lambda future: log.append(f"done {future.done()}"))

            await worker(tg, work)
            released.set()
        assert log == ["child", "done True"]

    run(main)


@WORKERS
def test_timeout(run_plain: Run, worker: Any) -> None:
    """C8: A wait may have a timeout, after which the child goes on."""

    async def main() -> None:
        async with TaskGroup() as tg:
            released = asyncio.Event()

            def work() -> None:
                future = future_of(tg.create_task(released.wait()))
                for wait in (future.result, future.exception):
                    with pytest.raises(TimeoutError):
                        wait(timeout=0)
                assert future.running()
                assert future.cancelled() is False
                loop.call_soon_threadsafe(released.set)
                assert future.result() is True

            loop = asyncio.get_running_loop()
            await worker(tg, work)

    run_plain(main)


@WORKERS
def test_cancel_the_child(run: Run, worker: Any) -> None:
    """C8: `cancel` asks for the end of the child, which cleans up before the future is done; then
    waiting for it is a cancellation."""
    ended: list[str] = []

    async def main() -> None:
        async with TaskGroup() as tg:

            def work() -> None:
                begun = threading.Event()

                async def child() -> None:
                    begun.set()
                    await slow_to_end(ended, "child")

                future = future_of(tg.create_task(child()))
                begun.wait(5)
                assert future.cancel() is True
                for wait in (future.result, future.exception):
                    with pytest.raises(asyncio.CancelledError):
                        wait()
                assert ended == ["child"]
                assert future.cancelled()
                assert concurrent.futures.wait([future], 5).done == {future}

            await worker(tg, work)

    run(main)


@WORKERS
def test_failure(run: Run, worker: Any) -> None:
    """C8, C5: A child that fails aborts the group, once; who waits for it in a thread has its
    error, and who waits for another child is cancelled."""
    seen: list[str] = []

    async def main() -> None:
        async with TaskGroup() as tg:

            def work() -> None:
                other = future_of(tg.create_task(forever()))
                future = future_of(tg.create_task(fail(ValueError("child"))))
                assert str(future.exception()) == "child"
                with pytest.raises(ValueError, match="child"):
                    future.result()
                try:
                    other.result()
                except asyncio.CancelledError:
                    seen.append("cancelled")
                    raise

            await worker(tg, work)
            seen.append("never")

    assert errors_of(run, main) == ["child"]
    assert seen == ["cancelled"]


@WORKERS
@METHODS
@pytest.mark.parametrize("how", ["fails", "cancelled"])
def test_a_group_that_is_ending(run: Run, worker: Any, method: str, how: str) -> None:
    """C8, C9: In a group that has failed or was cancelled, the thread is cancelled where it would
    start a child, as who waits for it is; the coroutine is closed."""
    coro = forever()

    async def main() -> None:
        async with TaskGroup() as tg:
            loop = asyncio.get_running_loop()

            def work() -> None:
                ended = threading.Event()

                def end() -> None:
                    if how == "cancelled":
                        tg.cancel()
                        ended.set()
                    else:
                        child = tg.create_task(fail(ValueError("child")))
                        child.add_done_callback(lambda _: ended.set())

                loop.call_soon_threadsafe(end)
                assert ended.wait(5)
                with pytest.raises(asyncio.CancelledError):
                    getattr(tg, method)(coro)
                getattr(tg, method)(forever())

            await worker(tg, work)

    if how == "fails":
        assert errors_of(run, main) == ["child"]
    else:
        run(main)
    assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED


@WORKERS
@METHODS
def test_a_group_that_has_ended(run_plain: Run, worker: Any, method: str) -> None:
    """C8: In a group that has finished it is a `RuntimeError` in the thread, too."""

    async def main() -> None:
        async with TaskGroup() as tg:
            pass

        def work() -> None:
            coro = forever()
            with pytest.raises(RuntimeError, match="is finished"):
                getattr(tg, method)(coro)
            assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED

        async with TaskGroup() as other:
            await worker(other, work)

    run_plain(main)


@WORKERS
def test_refusals(run_plain: Run, worker: Any) -> None:
    """C8, C6, C7: What the loop would refuse is refused in the thread, and the coroutine closed."""

    async def main() -> None:
        async with TaskGroup(shared_limit=SharedLimit(2, max_waiting=1)) as tg:
            released = asyncio.Event()
            loop = asyncio.get_running_loop()

            def work() -> None:
                odd: Any = 3
                with pytest.raises(TypeError, match="a coroutine was expected"):
                    tg.create_task(odd)
                coro = forever()
                with pytest.raises(TypeError, match="unexpected"):
                    tg.create_task(coro, odd=1)
                assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED
                futures = []
                with pytest.raises(TooManyWaitingError):
                    while True:
                        futures.append(tg.create_task(released.wait()))
                loop.call_soon_threadsafe(released.set)
                assert [future.result() for future in futures] == [True] * len(futures)

            await worker(tg, work)

    run_plain(main)


@WORKERS
def test_gather_and_map(run_plain: Run, worker: Any) -> None:
    """C8: `gather` and `map` in a thread are errors that say how."""

    async def main() -> None:
        async with TaskGroup() as tg:

            def work() -> None:
                coro = forever()
                way_out = r"async def, or call create_task\(\.\.\.\) of the group for each"
                with pytest.raises(RuntimeError, match=way_out):
                    tg.gather(coro)  # type: ignore[unused-coroutine]
                assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED
                with pytest.raises(RuntimeError, match=way_out):
                    tg.map(give, "ab", limit=1)

            await worker(tg, work)

    run_plain(main)


def test_a_thread_that_nobody_waits_for(run: Run) -> None:
    """C8: A thread of somebody else's gets the error, also if it is one of another event loop's."""

    async def main() -> None:
        async with TaskGroup() as tg:

            async def elsewhere() -> None:
                async with TaskGroup() as other:
                    for worker in (by_anyio, by_group):
                        coro = forever()
                        with pytest.raises(RuntimeError, match="was called in thread"):
                            await worker(other, lambda: tg.create_task(coro))  # noqa: B023
                        assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED

            error = in_thread(lambda: asyncio.run(elsewhere()))
            assert isinstance(error, BaseExceptionGroup), error

    run(main)


def test_a_future_in_the_loop(run_plain: Run) -> None:
    """C8: In the thread of the event loop such a future waits for nothing: that is an error."""

    async def main() -> None:
        async with TaskGroup() as tg:
            futures: list[TaskFuture[Any]] = []
            released = asyncio.Event()
            await by_group(tg, lambda: futures.append(future_of(tg.create_task(released.wait()))))
            for wait in (futures[0].result, futures[0].exception):
                with pytest.raises(RuntimeError, match="is for threads"):
                    wait()
            released.set()
            while not futures[0].done():
                await asyncio.sleep(0)
            assert futures[0].result() is True

    run_plain(main)


def test_a_future_after_its_loop() -> None:
    """C8: When the event loop is closed, there is nothing to cancel."""
    futures: list[TaskFuture[Any]] = []

    async def main() -> None:
        async def child() -> None:
            task = asyncio.create_task(forever())
            futures.append(TaskFuture(task))
            task.cancel()

        await child()

    asyncio.run(main())
    assert futures[0].cancel() is False
