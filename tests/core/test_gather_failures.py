"""`TaskGroup.gather`: what a failure does, and what a cancellation does."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, cast

import pytest

from quattro_core import TaskGroup
from tests.core.conftest import Run
from tests.core.test_background import forever
from tests.core.test_errors import errors_of, fail, fail_when_cancelled
from tests.core.test_gather import give


async def slow_to_end(ended: list[str], name: str, delay: float = 0.002) -> None:
    """Wait for ever, and take a while to clean up."""
    try:
        await forever()
    finally:
        await asyncio.sleep(delay)
        ended.append(name)


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


@pytest.mark.parametrize("failing", [fail, fail_at_once])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_failure_wherever_it_stands(run: Run, failing: Any, at: int) -> None:
    """C5: The caller is cancelled, whichever of them has failed, though the others end at once."""
    seen: list[type[BaseException]] = []

    async def main() -> None:
        async with TaskGroup() as tg:
            children = [forever(), forever()]
            children.insert(at, failing(ValueError("b")))
            try:
                await tg.gather(*children)
            except BaseException as error:
                seen.append(type(error))
                raise

    assert (errors_of(run, main), seen) == (["b"], [asyncio.CancelledError])


def test_failure_of_one_that_is_alone(run: Run) -> None:
    """C5, C10: an eager child that fails at once, when no other is waited for, fails once, and
    cancels the caller, too."""

    async def main() -> None:
        async with TaskGroup() as tg:
            with pytest.raises(asyncio.CancelledError):
                await tg.gather(fail_at_once(ValueError("alone")))
            await asyncio.sleep(0)  # the cancellation has come

    assert errors_of(run, main) == ["alone"]


def test_failure_is_there_once(run: Run) -> None:
    """C5: An error of a child that the body raises as well, out of `gather`, is one error."""

    async def main() -> None:
        async with TaskGroup() as tg:
            await tg.gather(fail(ValueError("first")), forever())

    assert errors_of(run, main) == ["first"]


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


def test_first_failure_seen_by_an_outsider(run: Run) -> None:
    """C5: Of several failures such a caller gets the one that came first, whatever their order."""

    async def outsider(tg: TaskGroup) -> None:
        clean_up = fail_when_cancelled(ValueError("second"))
        with pytest.raises(ValueError, match="first"):
            await tg.gather(clean_up, fail(ValueError("first")))

    async def main() -> None:
        async with TaskGroup() as tg:
            task = asyncio.create_task(outsider(tg))
            try:
                await forever()
            finally:
                await task

    assert errors_of(run, main) == ["first", "second"]


@pytest.mark.parametrize("how", ["task", "group"])
def test_cancelled_child_seen_by_an_outsider(run: Run, how: str) -> None:
    """C9: where a child is cancelled, a caller that the group does not know of is, too: no hang."""

    begun: list[asyncio.Task[Any]] = []

    async def last() -> None:
        begun.append(cast("asyncio.Task[Any]", asyncio.current_task()))
        await forever()

    async def main() -> None:
        async with TaskGroup() as tg:
            outsider = asyncio.create_task(tg.gather(last(), give("b")))
            while not begun:
                await asyncio.sleep(0)
            if how == "group":
                tg.cancel()
            else:
                begun[0].cancel()
        await asyncio.wait([outsider])
        assert outsider.cancelled()

    run(main)


def test_cancelled_caller(run: Run) -> None:
    """C10: a timeout around it cancels the children, which have ended before it is over."""
    ended: list[str] = []
    is_over = asyncio.Event()

    async def main() -> None:
        async with TaskGroup(concurrency_limit=2) as tg:
            other = tg.create_task(is_over.wait())
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(None) as timeout:

                    async def begin() -> None:
                        timeout.reschedule(0)  # now that it has begun
                        await slow_to_end(ended, "a")

                    await tg.gather(begin(), slow_to_end(ended, "never started"))
            assert ended == ["a"]
            assert tg.tasks == (other,)
            is_over.set()
        assert other.result()

    run(main)


def test_cancelled_twice(run: Run) -> None:
    """C5: a second cancellation of the caller does not cut the clean-up of the children short."""
    ended: list[str] = []
    begun = asyncio.Event()

    async def call() -> None:
        async def tell() -> None:
            begun.set()

        async with TaskGroup() as tg:
            await tg.gather(slow_to_end(ended, "a"), slow_to_end(ended, "b", 0.003), tell())

    async def main() -> None:
        task = asyncio.create_task(call())
        await begun.wait()
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

            async def cancel() -> None:
                tg.cancel()

            await tg.gather(slow_to_end(ended, "a"), slow_to_end(ended, "b"), cancel())
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


def test_child_that_a_gather_has_cancelled_is_not_cancelled_again(run: Run) -> None:
    """C5: A child that a gather has cancelled, since its caller was, has its clean-up cut by no
    second cancellation when the group fails meanwhile."""
    log: list[str] = []

    async def cleans_up() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.2)
            log.append("cleaned up")

    async def main() -> None:
        async def child() -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await group.gather(cleans_up())

        with pytest.raises(ExceptionGroup):
            async with TaskGroup() as group:
                group.create_task(child())
                await asyncio.sleep(0.2)
                raise ZeroDivisionError

    run(main)
    assert log == ["cleaned up"]


def test_a_child_that_is_gathered_several_times(run: Run) -> None:
    """C5: A child that was given to `gather` twice, or to two of them, has one result; it is
    cancelled once, so that its clean-up is not cut."""
    ended: list[str] = []

    async def main() -> None:
        async with TaskGroup() as tg:
            task = tg.create_task(give("a"))
            assert await tg.gather(task, task) == ("a", "a")
            assert await tg.gather(task, return_exceptions=True) == ("a",)
            task = tg.create_task(slow_to_end(ended, "b"))  # type: ignore[arg-type]
            await asyncio.sleep(0)
            callers = [tg.create_task(tg.gather(task, task)) for _ in range(2)]
            await asyncio.sleep(0)
            for caller in callers:
                caller.cancel()
            await asyncio.wait(callers)
            assert task.cancelling() == 1

    run(main)
    assert ended == ["b"]
