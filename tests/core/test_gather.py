"""`TaskGroup.gather`: the results of several children, in one line."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
import weakref
from typing import Any

import pytest

from quattro_core import SharedLimit, TaskGroup, TooManyWaitingError
from tests.core.conftest import Run
from tests.core.test_background import forever
from tests.core.test_errors import errors_of, fail, fail_when_cancelled
from tests.core.test_limit import Meter


async def give(value: str, delay: float = 0.001) -> str:
    """Return the value after a while."""
    await asyncio.sleep(delay)
    return value


async def slow_to_end(ended: list[str], name: str, delay: float = 0.002) -> None:
    """Wait for ever, and take a while to clean up."""
    try:
        await forever()
    finally:
        await asyncio.sleep(delay)
        ended.append(name)


@pytest.mark.parametrize("limit", [None, 1, 2])
def test_results_in_order(run: Run, limit: int | None) -> None:
    """C6, C7: results come in the order of the arguments, which may be functions; limits hold."""

    async def main() -> None:
        async with TaskGroup(concurrency_limit=limit) as tg:
            results = await tg.gather(give("a", 0.003), lambda: give("b", 0.001), give("c", 0.002))
            assert results == ("a", "b", "c")

    run(main)


def test_many(run: Run) -> None:
    """C6: as many as there are, and no more at once than `concurrency_limit`."""
    meter = Meter()

    async def main() -> None:
        async with TaskGroup(concurrency_limit=3) as tg:
            results = await tg.gather(*[meter.child(key) for key in range(20)])
            assert results == tuple(range(20))

    run(main)
    assert meter.most == 3


def test_nothing(run: Run) -> None:
    """Of nothing, there are no results."""

    async def main() -> None:
        async with TaskGroup() as tg:
            assert await tg.gather() == ()

    run(main)


def test_results_that_are_there_at_once(run: Run) -> None:
    """C10: children that never wait are as good as others."""

    async def at_once(value: int) -> int:
        return value

    async def main() -> None:
        async with TaskGroup() as tg:
            assert await tg.gather(at_once(1), at_once(2)) == (1, 2)

    run(main)


def test_by_a_child(run: Run) -> None:
    """C4: a child may gather children of its group, during the exit too."""

    async def child(tg: TaskGroup) -> tuple[str, str]:
        return await tg.gather(give("a"), give("b"))

    async def main() -> tuple[str, str]:
        async with TaskGroup() as tg:
            task = tg.create_task(child(tg))
        return task.result()

    assert run(main) == ("a", "b")


# Failures


async def fail_at_once(error: BaseException) -> None:
    """Raise the error before anything is awaited."""
    raise error


@pytest.mark.parametrize("is_child", [False, True])
@pytest.mark.parametrize("failing", [fail, fail_at_once])
@pytest.mark.parametrize("limit", [None, 5])
def test_failure(run: Run, failing: Any, is_child: bool, limit: int | None) -> None:
    """C5: an error of one aborts the group: it cancels the others and the caller, once each."""
    ended: list[str] = []
    seen: list[BaseException] = []

    async def call(tg: TaskGroup) -> None:
        try:
            await tg.gather(slow_to_end(ended, "a"), failing(ValueError("b")), give("c"))
        except BaseException as error:
            seen.append(error)
            ended.append("caller")
            raise

    async def main() -> None:
        async with TaskGroup(concurrency_limit=limit) as tg:
            await (tg.create_task(call(tg)) if is_child else call(tg))

    assert errors_of(run, main) == ["b"]
    assert [type(error) for error in seen] == [asyncio.CancelledError]
    # An eager child that fails at once does so before the others have begun.
    assert ended in (["a", "caller"], ["caller"])


def test_failure_of_one_that_is_alone(run: Run) -> None:
    """C10: an eager child that fails at once, when no other is waited for, fails once, too."""

    async def main() -> None:
        async with TaskGroup() as tg:
            await tg.gather(fail_at_once(ValueError("alone")))

    assert errors_of(run, main) == ["alone"]


def test_failure_of_all(run: Run) -> None:
    """C5: no error is lost."""

    async def main() -> None:
        async with TaskGroup() as tg:
            clean_up = fail_when_cancelled(ValueError("b"))
            await tg.gather(clean_up, fail(ValueError("a")), forever())

    assert errors_of(run, main) == ["a", "b"]


@pytest.mark.parametrize("failing", [fail, fail_at_once])
def test_failure_seen_by_an_outsider(run: Run, failing: Any) -> None:
    """C5: a caller that the group does not know of gets the error, as it would from the task."""
    ended: list[str] = []

    async def outsider(tg: TaskGroup) -> None:
        with pytest.raises(ValueError, match="child"):
            await tg.gather(slow_to_end(ended, "a"), failing(ValueError("child")))
        ended.append("caller")

    async def main() -> None:
        async with TaskGroup() as tg:
            task = asyncio.create_task(outsider(tg))
            try:
                await forever()
            finally:
                await task

    assert errors_of(run, main) == ["child"]
    assert ended == ["a", "caller"]


@pytest.mark.parametrize("how", ["task", "group"])
def test_cancelled_child_seen_by_an_outsider(run: Run, how: str) -> None:
    """C9: where a child is cancelled, a caller that the group does not know of is, too: no hang."""

    async def main() -> None:
        async with TaskGroup() as tg:
            outsider = asyncio.create_task(tg.gather(forever(), give("b")))
            await asyncio.sleep(0.002)
            if how == "group":
                tg.cancel()
            else:
                tg.tasks[0].cancel()
        await asyncio.wait([outsider])
        assert outsider.cancelled()

    run(main)


# Cancellation


def test_cancelled_caller(run: Run) -> None:
    """C10: a timeout around it cancels the children, which have ended before it is over."""
    ended: list[str] = []

    async def main() -> None:
        async with TaskGroup(concurrency_limit=2) as tg:
            other = tg.create_task(give("other", 0.005))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await tg.gather(slow_to_end(ended, "a"), slow_to_end(ended, "never started"))
            assert ended == ["a"]
            assert tg.tasks == (other,)
        assert other.result() == "other"

    run(main)


def test_cancelled_twice(run: Run) -> None:
    """C5: a second cancellation of the caller does not cut the clean-up of the children short."""
    ended: list[str] = []

    async def call() -> None:
        async with TaskGroup() as tg:
            await tg.gather(slow_to_end(ended, "a"), slow_to_end(ended, "b", 0.003))

    async def main() -> None:
        task = asyncio.create_task(call())
        await asyncio.sleep(0.001)
        task.cancel("first")
        await asyncio.sleep(0.001)
        task.cancel("second")
        with pytest.raises(asyncio.CancelledError, match="first"):
            await task
        assert ended == ["a", "b"]

    run(main)


def test_group_is_cancelled(run: Run) -> None:
    """C9: the group is cancelled, and ends without an error when the children have ended."""
    ended: list[str] = []

    async def main() -> None:
        async with TaskGroup() as tg:
            asyncio.get_running_loop().call_later(0.001, tg.cancel)
            await tg.gather(slow_to_end(ended, "a"), slow_to_end(ended, "b"))
        assert sorted(ended) == ["a", "b"]

    run(main)


@pytest.mark.parametrize("others_run", [False, True])
def test_an_eager_child_cancels_the_group(run: Run, others_run: bool) -> None:
    """C9, C10: a child that cancels the group, an eager one at once, ends it without an error."""

    async def main() -> None:
        async with TaskGroup() as tg:

            async def cancel() -> None:
                tg.cancel()

            started = [give("a")] if others_run else []
            await tg.gather(*started, cancel(), give("never started"), forever())

    run(main)


# Refusals


def test_a_group_that_is_not_open(run: Run) -> None:
    """C4: in a group that is not entered, or finished, it raises, and closes the coroutines."""

    async def main() -> None:
        tg = TaskGroup()
        for _ in range(2):
            coros = [forever(), forever()]
            with pytest.raises(RuntimeError, match=r"has not been entered|is finished"):
                await tg.gather(*coros)
            assert {inspect.getcoroutinestate(coro) for coro in coros} == {inspect.CORO_CLOSED}
            if not tg._entered:
                async with tg:
                    pass

    run(main)


def test_something_else(run: Run) -> None:
    """C7: what is neither a coroutine nor a function is a TypeError, and none is started."""

    async def main() -> None:
        coros: list[Any] = [forever(), 3, forever()]
        async with TaskGroup() as tg:
            with pytest.raises(TypeError, match="a coroutine was expected"):
                await tg.gather(*coros)
            assert tg.tasks == ()

    run(main)


def test_some_are_refused(run: Run) -> None:
    """C6: where a limit refuses one, those before it are cancelled, and have ended."""
    ended: list[str] = []

    async def main() -> None:
        async with TaskGroup(shared_limit=SharedLimit(1, max_waiting=1)) as tg:
            with pytest.raises(TooManyWaitingError):
                await tg.gather(*[slow_to_end(ended, name) for name in "abcd"])
            assert tg.tasks == ()
            assert await tg.gather(give("next")) == ("next",)

    run(main)
    # A plain task that is cancelled before it starts never does.
    assert ended in ([], ["a"])


def test_another_thread(run: Run) -> None:
    """C8: in another thread it raises a RuntimeError, and closes the coroutines."""

    async def main() -> None:
        async with TaskGroup() as tg:
            coros = [forever(), forever()]

            def elsewhere() -> None:
                with pytest.raises(RuntimeError, match="which is not that of its event loop"):
                    asyncio.run(tg.gather(*coros))

            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join()
            assert {inspect.getcoroutinestate(coro) for coro in coros} == {inspect.CORO_CLOSED}

    run(main)


def test_no_reference_cycles(run_plain: Run) -> None:
    """C5: an error that a caller has seen goes when nobody holds it."""
    left: list[weakref.ref[BaseException]] = []

    class OwnError(ValueError):
        def __init__(self) -> None:
            left.append(weakref.ref(self))

    async def fail_by_itself() -> None:
        raise OwnError

    async def outsider(tg: TaskGroup) -> None:
        try:
            await tg.gather(fail_by_itself())
        except ValueError:
            pass

    async def call() -> None:
        try:
            async with TaskGroup() as tg:
                task = asyncio.create_task(outsider(tg))
                await forever()
        except* OwnError:
            await task

    async def main() -> None:
        gc.disable()
        try:
            await asyncio.create_task(call())
            await asyncio.sleep(0)
            assert [reference() for reference in left] == [None]
        finally:
            gc.enable()

    run_plain(main)
