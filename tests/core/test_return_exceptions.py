"""`gather` and `map` with `return_exceptions=True`: partial results."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from quattro_core import SharedLimit, TaskGroup, TooManyWaitingError
from tests.core.conftest import Run
from tests.core.items import LIMITS, ORDERS
from tests.core.test_background import forever
from tests.core.test_errors import errors_of, fail
from tests.core.test_gather import give
from tests.core.test_gather_failures import fail_at_once, slow_to_end


def shown(results: Any) -> list[str]:
    """What each result is: itself, or what the error says."""
    return [result if isinstance(result, str) else repr(result) for result in results]


async def give_or_fail(number: int) -> str:
    """Fail for the number three, after a while."""
    await asyncio.sleep(0.001)
    if number == 3:
        raise ValueError(number)
    return str(number)


def cleanup_fails(begun: asyncio.Event) -> Any:
    async def child() -> None:
        begun.set()
        try:
            await forever()
        finally:
            raise ValueError("clean-up")

    return child()


@pytest.mark.parametrize("failing", [fail, fail_at_once])
@pytest.mark.parametrize("limit", [None, 1, 2])
def test_partial_results(run: Run, failing: Any, limit: int | None) -> None:
    """C12: A child that fails has its error for a result: the others go on, and so does the
    group."""

    async def main() -> None:
        async with TaskGroup(concurrency_limit=limit) as tg:
            results = await tg.gather(
                give("a", 0.002),
                failing(ValueError("b")),
                lambda: failing(KeyError("c")),
                tg.create_task(give("d")),
                tg.create_task(failing(OSError("e"))),
                return_exceptions=True,
            )
            assert shown(results) == [
                "a",
                "ValueError('b')",
                "KeyError('c')",
                "d",
                "OSError('e')",
            ]
            assert tg.exceptions == ()
            assert await tg.gather(give("f")) == ("f",)

    run(main)


def test_nothing(run: Run) -> None:
    """C12: Of nothing, there are no results."""

    async def main() -> None:
        async with TaskGroup() as tg:
            assert await tg.gather(return_exceptions=True) == ()

    run(main)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_program_is_no_result(run_plain: Run, error: type[BaseException]) -> None:
    """C12, C5: `KeyboardInterrupt` and `SystemExit` abort the group, and leave it as themselves."""
    ended: list[str] = []

    async def call() -> None:
        async with TaskGroup() as tg:

            async def child() -> None:
                await asyncio.sleep(0.001)
                raise error

            await tg.gather(slow_to_end(ended, "a"), child(), return_exceptions=True)

    async def main() -> None:
        # asyncio lets these out of the event loop as well.
        task = asyncio.ensure_future(call())
        await asyncio.wait([task])
        assert isinstance(task.exception(), error)

    with pytest.raises(error):
        run_plain(main)
    run_plain.left.clear()


def test_odd_base_errors_are_no_results(run: Run) -> None:
    """C12, C5: an error that is no `Exception` is a failure, and aborts the group."""

    class OddError(BaseException):
        pass

    async def main() -> None:
        with pytest.raises(BaseExceptionGroup) as caught:
            async with TaskGroup() as tg:
                await tg.gather(fail(OddError()), forever(), return_exceptions=True)
        assert [type(error) for error in caught.value.exceptions] == [OddError]

    run(main)


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("how", ["raises", "awaits", "cancels itself", "is cancelled"])
def test_a_child_that_is_cancelled_by_itself(run: Run, how: str, given: bool) -> None:
    """C12: A child that is cancelled while nobody cancels its caller or its group has a
    `RuntimeError` for a result, which says so, with the cancellation as its cause."""

    async def child() -> None:
        task = asyncio.current_task()
        assert task is not None
        await asyncio.sleep(0.001)
        if how == "raises":
            raise asyncio.CancelledError("why")
        if how == "awaits":
            future = asyncio.get_running_loop().create_future()
            future.cancel("why")
            await future
        elif how == "cancels itself":
            task.cancel("why")
        else:
            asyncio.get_running_loop().call_soon(task.cancel, "why")
        await forever()

    async def main() -> None:
        async with TaskGroup() as tg:
            one, other = await tg.gather(
                tg.create_task(child()) if given else child(),
                give("b", 0.003),
                return_exceptions=True,
            )
        assert other == "b"
        assert isinstance(one, RuntimeError)
        assert "child was cancelled" in str(one)
        assert isinstance(one.__cause__, asyncio.CancelledError)

    run(main)


def test_a_child_that_is_cancelled_before_its_first_step(run_plain: Run) -> None:
    """C12, C6: A child that is cancelled before it begins leaves no coroutine behind that was
    never awaited."""

    async def main() -> None:
        async with TaskGroup() as tg:
            asyncio.get_running_loop().call_soon(lambda: [task.cancel() for task in tg.tasks])
            await tg.gather(forever(), return_exceptions=True)
            asyncio.current_task().cancel()  # type: ignore[union-attr]
            with pytest.raises(asyncio.CancelledError):
                await tg.gather(forever(), forever(), return_exceptions=True)
            asyncio.current_task().uncancel()  # type: ignore[union-attr]

    run_plain(main)


def test_a_cancellation_from_outside(run: Run) -> None:
    """C12, C10: A cancelled caller is cancelled, when its children have been and have ended."""
    ended: list[str] = []

    async def main() -> None:
        async with TaskGroup(concurrency_limit=2) as tg:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(None) as timeout:

                    async def begin() -> None:
                        timeout.reschedule(0)  # now that it has begun
                        await slow_to_end(ended, "b")

                    first, last = slow_to_end(ended, "a"), slow_to_end(ended, "c")
                    await tg.gather(first, begin(), last, return_exceptions=True)
            assert sorted(ended) == ["a", "b"]
            assert all(task.done() for task in tg.tasks)

    run(main)


def test_the_group_fails(run: Run) -> None:
    """C12, C5: Where another child of the group fails, the caller and its children are cancelled:
    no partial results."""
    ended: list[str] = []

    async def main() -> None:
        async with TaskGroup() as tg:
            tg.create_task(fail(ValueError("another")))
            await tg.gather(slow_to_end(ended, "a"), fail(KeyError()), return_exceptions=True)
            ended.append("never")

    assert errors_of(run, main) == ["another"]
    assert ended == ["a"]


def test_the_group_is_cancelled(run: Run) -> None:
    """C12, C9: A group that is cancelled cancels the caller, also one that it does not know of."""

    async def main() -> None:
        async with TaskGroup() as tg:
            call = tg.gather(forever(), give("b"), return_exceptions=True)
            outsider = asyncio.create_task(call)
            await asyncio.sleep(0.002)
            tg.cancel()
        await asyncio.wait([outsider])
        assert outsider.cancelled()

    run(main)


@pytest.mark.parametrize("how", ["caller", "group"])
@pytest.mark.parametrize("kind", ["gather", "given", "awaited", "map"])
def test_a_clean_up_that_fails(run: Run, kind: str, how: str) -> None:
    """C12, C5: What a child raises because its caller or its group is cancelled is a failure of
    the group: nobody would see it otherwise."""

    async def main() -> None:
        async with TaskGroup() as tg:
            begun = asyncio.Event()

            async def awaits(child: Any) -> None:
                await tg.create_task(child)

            async def call() -> None:
                if kind == "gather":
                    await tg.gather(cleanup_fails(begun), return_exceptions=True)
                elif kind == "given":
                    await tg.gather(tg.create_task(cleanup_fails(begun)), return_exceptions=True)
                elif kind == "awaited":
                    await tg.gather(awaits(cleanup_fails(begun)), return_exceptions=True)
                else:
                    await tg.map(cleanup_fails, [begun], limit=1, return_exceptions=True)

            task = tg.create_task(call())
            await begun.wait()
            if how == "caller":
                task.cancel()
            else:
                tg.cancel()

    assert set(errors_of(run, main)) == {"clean-up"}  # who awaits it raises it as well


def test_refusals(run: Run) -> None:
    """C12, C6: A child that a limit refuses, or an argument that is none, is an error at once."""
    ended: list[str] = []

    async def main() -> None:
        async with TaskGroup(shared_limit=SharedLimit(1, max_waiting=1)) as tg:
            with pytest.raises(TooManyWaitingError):
                children = [slow_to_end(ended, name) for name in "abcd"]
                await tg.gather(*children, return_exceptions=True)
            odd: Any = 3
            with pytest.raises(TypeError, match="a coroutine was expected"):
                await tg.gather(forever(), odd, return_exceptions=True)
            assert all(task.done() for task in tg.tasks)

    run(main)


def test_no_reference_cycles(run_plain: Run) -> None:
    """C12: An error that was a result goes when nobody holds it."""
    left: list[weakref.ref[BaseException]] = []

    class OwnError(ValueError):
        def __init__(self, _: object = None) -> None:
            left.append(weakref.ref(self))

    async def fails(_: object = None) -> None:
        raise OwnError

    async def main() -> None:
        gc.disable()
        try:
            async with TaskGroup() as tg:
                await tg.gather(fails(), return_exceptions=True)
                await tg.map(fails, [1], limit=1, return_exceptions=True)
                await asyncio.sleep(0)
                assert [reference() for reference in left] == [None, None]
        finally:
            gc.enable()

    run_plain(main)


@ORDERS
@LIMITS
def test_partial_results_of_a_map(run: Run, limit: int, ordered: bool) -> None:
    """C12: A call of a map that fails has its error for a result, and the others are made."""

    async def main() -> None:
        async with TaskGroup() as tg:
            results = tg.map(
                give_or_fail, range(7), limit=limit, ordered=ordered, return_exceptions=True
            )
            found = shown([result async for result in results])
            expected = ["0", "1", "2", "ValueError(3)", "4", "5", "6"]
            assert (found if ordered else sorted(found)) == (
                expected if ordered else sorted(expected)
            )
            assert tg.exceptions == ()

    run(main)


def test_an_odd_call_of_a_map(run: Run) -> None:
    """C12: A call that raises before it has a coroutine, one that is cancelled by what it awaits,
    and one that raises what ends an iteration have failed like any other."""

    def call(number: int) -> Any:
        async def inner() -> None:
            if number == 1:
                raise StopAsyncIteration
            raise asyncio.CancelledError

        if number == 0:
            raise StopIteration
        return inner()

    async def main() -> None:
        async with TaskGroup() as tg:
            found = await tg.map(call, range(3), limit=2, return_exceptions=True)
        assert [type(error) for error in found] == [StopIteration, StopAsyncIteration, RuntimeError]
        assert "was cancelled by something that it awaited" in str(found[2])

    run(main)


@pytest.mark.parametrize("is_async", [False, True])
def test_an_iterable_that_fails(run: Run, is_async: bool) -> None:
    """C12, C5: An error of the iterable aborts the group all the same."""

    def items() -> Iterator[int]:
        yield 1
        raise ValueError("iterable")

    async def later() -> AsyncIterator[int]:
        for item in items():
            yield item

    async def main() -> None:
        async with TaskGroup() as tg:
            source = later() if is_async else items()
            await tg.map(give_or_fail, source, limit=2, return_exceptions=True)

    assert errors_of(run, main) == ["iterable"]
