"""Limits that can never give a slot again, since children wait by hand for others without one."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import anyio
import pytest

from quattro_core import LimitDeadlockError, SharedLimit, TaskGroup
from quattro_core._deadlock import Search
from quattro_core._limits import Limit
from tests.core.conftest import Run
from tests.core.test_background import forever
from tests.core.test_lending import MOMENT, at_rest
from tests.support.clock import DeadlockError

Child = Callable[[TaskGroup], Coroutine[Any, Any, Any]]


async def leaf(seconds: float = MOMENT) -> None:
    await asyncio.sleep(seconds)


async def by_await(tg: TaskGroup) -> None:
    await asyncio.sleep(0)
    await tg.create_task(leaf())


async def by_gather(tg: TaskGroup) -> None:
    await asyncio.sleep(0)
    await asyncio.gather(tg.create_task(leaf()), tg.create_task(leaf()))


async def by_nested_gathers(tg: TaskGroup) -> None:
    await asyncio.gather(asyncio.gather(leaf()), asyncio.gather(by_await(tg), leaf()))


async def by_wait(tg: TaskGroup) -> None:
    await asyncio.sleep(0)
    await asyncio.wait([tg.create_task(leaf()), asyncio.create_task(leaf())])


async def by_wait_for_the_first(tg: TaskGroup) -> None:
    await asyncio.sleep(0)
    tasks = [tg.create_task(leaf()), tg.create_task(leaf())]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)


async def by_shield(tg: TaskGroup) -> None:
    await asyncio.sleep(0)
    await asyncio.shield(tg.create_task(leaf()))


async def by_as_completed(tg: TaskGroup) -> None:
    await asyncio.sleep(0)
    for ended in asyncio.as_completed([tg.create_task(leaf()), tg.create_task(leaf())]):
        await ended


async def by_a_task(tg: TaskGroup) -> None:
    await asyncio.create_task(by_await(tg))


async def by_a_group(tg: TaskGroup) -> None:
    async with asyncio.TaskGroup() as inner:
        inner.create_task(by_await(tg))
        inner.create_task(leaf())


async def by_a_group_of_ours(tg: TaskGroup) -> None:
    async with TaskGroup() as inner:
        inner.create_task(by_await(tg))
        inner.create_background_task(forever())


async def by_a_group_of_anyio(tg: TaskGroup) -> None:
    async with anyio.create_task_group() as inner:
        inner.start_soon(by_await, tg)


async def by_a_map(tg: TaskGroup) -> None:
    async def call(_: int) -> None:
        await by_await(tg)

    async with TaskGroup() as inner:
        async for _ in inner.map(call, range(2), limit=2):
            pass


async def by_a_gather_of_another_group(tg: TaskGroup) -> None:
    async with TaskGroup() as inner:
        await inner.gather(by_await(tg), leaf())


async def later(tg: TaskGroup) -> None:
    await asyncio.sleep(20 * MOMENT)
    await by_await(tg)


async def in_a_generator(tg: TaskGroup) -> None:
    async def items() -> AsyncIterator[None]:
        await by_await(tg)
        yield

    async for _ in items():
        pass


WAYS: list[Child] = [
    by_await,
    by_gather,
    by_nested_gathers,
    by_wait,
    by_wait_for_the_first,
    by_shield,
    by_as_completed,
    by_a_task,
    by_a_group,
    by_a_group_of_ours,
    by_a_group_of_anyio,
    by_a_map,
    by_a_gather_of_another_group,
    later,
    in_a_generator,
]


def deadlocks(error: BaseException | None) -> list[LimitDeadlockError]:
    """Return the errors of this kind in a group of errors."""
    if isinstance(error, LimitDeadlockError):
        return [error]
    assert isinstance(error, BaseExceptionGroup), error
    return [found for each in error.exceptions for found in deadlocks(each)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("limit", [1, 2])
def test_children_that_wait_by_hand(run: Run, way: Child, limit: int) -> None:
    """C4: Where all slots are taken by children that wait for those without one, in whichever way,
    an error of the group names the limit, and who waits for whom."""

    async def main() -> None:
        with pytest.raises(ExceptionGroup) as caught:
            async with TaskGroup(concurrency_limit=limit) as tg:
                for number in range(limit):
                    tg.create_task(way(tg), name=f"parent {number}")
        message = str(deadlocks(caught.value)[0])
        assert message.startswith(f"every slot of concurrency_limit={limit} is taken by a child")
        for number in range(limit):
            assert re.search(rf"'parent {number}' \({way.__name__}\) waits for .*\(leaf\)", message)
        assert "gather() or map()" in message

    run(main)


def test_soon_and_for_good(run_plain: Run) -> None:
    """C4: The error comes within a tenth of a second where the limit has just been reached, and
    within 10 seconds else."""

    async def main() -> None:
        clock = asyncio.get_running_loop().time
        for busy, latest in ((0, 0.1), (1000, 10)):
            started = clock()
            with pytest.raises(ExceptionGroup):
                async with TaskGroup(concurrency_limit=1) as tg:
                    for _ in range(busy):
                        tg.create_task(leaf(0.5))
                    tg.create_task(by_await(tg))
            assert busy * 0.5 <= clock() - started <= busy * 0.5 + latest + MOMENT

    run_plain(main)


def test_long_names_are_cut(run_plain: Run) -> None:
    """O3: Of a child whose name has no end, and no good characters, it shows the beginning."""

    async def main() -> None:
        with pytest.raises(ExceptionGroup) as caught:
            async with TaskGroup(concurrency_limit=1) as tg:
                tg.create_task(by_await(tg), name="\n" + "x" * 65536)
        message = str(deadlocks(caught.value)[0])
        assert rf"'\n{'x' * 199}... (65537 characters)' (by_await) waits for" in message
        assert len(message) < 1000

    run_plain(main)


def test_many_are_counted(run_plain: Run) -> None:
    """C4: The error names some of the children, and tells how many more there are."""

    async def main() -> None:
        with pytest.raises(ExceptionGroup) as caught:
            async with TaskGroup(concurrency_limit=40) as tg:
                for _ in range(40):
                    tg.create_task(by_await(tg))
        message = str(deadlocks(caught.value)[0])
        assert message.count(" waits for 'Task") == 5
        assert "; and 35 more. " in message

    run_plain(main)


def test_groups_that_share_a_limit(run: Run) -> None:
    """C4: Of groups that share a limit one is aborted, and the others go on."""

    async def main() -> None:
        limit = SharedLimit(2)

        async def group() -> None:
            async with TaskGroup(shared_limit=limit) as tg:
                tg.create_task(by_await(tg))

        tasks = [asyncio.create_task(group()) for _ in range(2)]
        await asyncio.wait(tasks)
        errors = [task.exception() for task in tasks]
        assert errors[0] is None
        assert "SharedLimit(2)" in str(deadlocks(errors[1])[0])
        assert at_rest(limit)

    run(main)


def test_limits_that_wait_for_each_other(run: Run) -> None:
    """C4: It is found as well where the children of two limits wait for each other."""

    async def main() -> None:
        with pytest.raises(ExceptionGroup) as caught:
            async with TaskGroup(concurrency_limit=1) as one, TaskGroup(concurrency_limit=1) as two:

                async def wait(other: TaskGroup) -> None:
                    await asyncio.sleep(MOMENT)
                    await other.create_task(leaf())

                one.create_task(wait(two))
                two.create_task(wait(one))
        assert deadlocks(caught.value)

    run(main)


def test_limits_of_a_group_with_two(run: Run) -> None:
    """C4: A child that has a slot of its group and waits for the shared one is waited for too."""

    async def main() -> None:
        limit = SharedLimit(1)
        with pytest.raises(ExceptionGroup) as caught:
            async with (
                TaskGroup(concurrency_limit=1, shared_limit=limit) as inner,
                TaskGroup(shared_limit=limit) as tg,
            ):
                tg.create_task(by_await(inner))
        assert deadlocks(caught.value)
        assert at_rest(limit)

    run(main)


@pytest.mark.parametrize("begins", [True, False])
def test_child_that_waits_for_who_lends(run: Run, begins: bool) -> None:
    """C4: A child that waits by hand for the one whose slot it has is found too, whether that waits
    for another one or for its slot."""

    async def main() -> None:
        limit, tasks = SharedLimit(1), list[asyncio.Task[Any]]()

        async def grandchild() -> None:
            await asyncio.sleep(0)

        async def thief() -> None:
            await asyncio.sleep(0)
            await tasks[0]

        async def child(tg: TaskGroup) -> None:
            await asyncio.sleep(0)
            await tg.gather(grandchild())

        with pytest.raises(ExceptionGroup) as caught:
            async with TaskGroup(shared_limit=limit) as tg:
                tasks.append(tg.create_task(child(tg)))
                if begins:
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                tg.create_task(thief())
                tg.create_task(thief())
        assert deadlocks(caught.value)
        assert at_rest(limit)

    run(main)


def test_who_comes_back_to_who_waits_for_it(run_plain: Run) -> None:
    """C4: Where nobody waits for a slot but one that has lent its own, and whoever has got that
    waits for it by hand, that is found as well."""
    got: list[BaseException] = []

    async def lends(tg: TaskGroup) -> None:
        this = asyncio.current_task()
        assert this is not None

        async def takes_the_slot() -> None:
            await asyncio.wait([this])

        async def short() -> None:
            own = asyncio.current_task()
            assert own is not None
            # After the group's own: the slot is free, and who has lent it not awake yet.
            own.add_done_callback(lambda _: tg.create_task(takes_the_slot()))
            await asyncio.sleep(10)  # until nobody looks for deadlocks any more

        await tg.gather(short())

    async def main() -> None:
        try:
            async with TaskGroup(concurrency_limit=1) as tg:
                tg.create_task(lends(tg))
        except BaseExceptionGroup as error:
            got.append(error)

    run_plain(main)
    assert deadlocks(got[0])


# What is no deadlock


async def with_timeout(tg: TaskGroup) -> None:
    async with asyncio.timeout(15):
        await by_await(tg)


async def with_wait_timeout(tg: TaskGroup) -> None:
    await asyncio.sleep(0)
    _, pending = await asyncio.wait([tg.create_task(leaf())], timeout=15)
    assert pending
    raise TimeoutError


async def with_wait_for(tg: TaskGroup) -> None:
    await asyncio.wait_for(by_await(tg), 15)


async def with_as_completed(tg: TaskGroup) -> None:
    await asyncio.sleep(0)
    for ended in asyncio.as_completed([tg.create_task(leaf())], timeout=15):
        await ended


async def with_fail_after(tg: TaskGroup) -> None:
    with anyio.fail_after(15):
        await by_await(tg)


async def with_move_on_after(tg: TaskGroup) -> None:
    with anyio.move_on_after(15):
        await by_await(tg)
    raise TimeoutError


async def with_a_manager_of_ones_own(tg: TaskGroup) -> None:
    @contextlib.asynccontextmanager
    async def manager() -> AsyncIterator[None]:
        async with asyncio.timeout(15):
            yield

    async with manager():
        await by_await(tg)


@pytest.mark.parametrize(
    "way",
    [
        with_timeout,
        with_wait_timeout,
        with_wait_for,
        with_as_completed,
        with_fail_after,
        with_move_on_after,
        with_a_manager_of_ones_own,
    ],
)
def test_timeout(run_plain: Run, way: Child) -> None:
    """C4: A child that waits with a timeout gets that, and not the error."""

    async def main() -> None:
        with pytest.raises(ExceptionGroup) as caught:
            async with TaskGroup(concurrency_limit=1) as tg:
                tg.create_task(way(tg))
        assert [type(error) for error in caught.value.exceptions] == [TimeoutError]
        assert 15 <= asyncio.get_running_loop().time() < 16

    run_plain(main)


async def first_of_two(tg: TaskGroup) -> None:
    await asyncio.sleep(0)
    tasks = [tg.create_task(leaf()), asyncio.create_task(leaf(60))]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)


async def busy(tg: TaskGroup) -> None:
    task = tg.create_task(leaf())
    for _ in range(60):
        await asyncio.sleep(1)
    assert not task.done()


async def many(tg: TaskGroup) -> None:
    await asyncio.sleep(0)
    tg.create_task(leaf())
    await asyncio.gather(*[leaf(60) for _ in range(3000)])


async def deep(tg: TaskGroup, level: int = 200) -> None:
    if level:
        await asyncio.create_task(deep(tg, level - 1))
    else:
        await asyncio.sleep(60)


async def circle(tg: TaskGroup) -> None:
    await asyncio.sleep(0)
    this = asyncio.current_task()
    assert this is not None

    async def other() -> None:
        await asyncio.wait([this])

    task = asyncio.create_task(other())
    asyncio.get_running_loop().call_later(60, task.cancel)
    await asyncio.wait([task])


class Duck:
    """A future that is none of asyncio's."""

    def __init__(self) -> None:
        self.future = asyncio.get_running_loop().create_future()
        self._asyncio_future_blocking = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.future, name)

    def __await__(self) -> Any:
        self._asyncio_future_blocking = True
        yield self


async def duck(_: TaskGroup) -> None:
    await asyncio.sleep(0)
    future = Duck()
    asyncio.get_running_loop().call_later(60, future.set_result, None)
    await future


@pytest.mark.parametrize("way", [first_of_two, busy, many, deep, circle, duck])
def test_children_that_go_on(run_plain: Run, way: Child) -> None:
    """C4: Children that wait for something else are left alone, however many they are."""

    async def main() -> None:
        async with TaskGroup(concurrency_limit=1) as tg:
            tg.create_task(way(tg))
            for _ in range(3):
                tg.create_task(leaf())
        assert asyncio.get_running_loop().time() >= 60

    run_plain(main)


def test_child_that_runs_just_now(run_plain: Run) -> None:
    """C4: A child that is about to go on is left alone, and looked at again."""

    async def child(tg: TaskGroup) -> None:
        await asyncio.sleep(0.1)
        await by_await(tg)

    async def main() -> None:
        with pytest.raises(ExceptionGroup) as caught:
            async with TaskGroup(concurrency_limit=1) as tg:
                tg.create_task(child(tg))
                await asyncio.sleep(0)
                tg.create_task(leaf())
        assert deadlocks(caught.value)
        assert asyncio.get_running_loop().time() == pytest.approx(0.2)

    run_plain(main)


def test_limit_with_a_free_slot() -> None:
    """C4: A limit with a slot for the first in the queue, who is not ready yet, is no deadlock."""
    search = Search()
    assert search.paths_of_holders(Limit(1)) == []
    assert search.needs_clock


@pytest.mark.parametrize("how", ["timeout", "scope"])
def test_no_timeout_at_all(run_plain: Run, how: str) -> None:
    """C4: A timeout of None, and a scope without a deadline, are none."""

    async def child(tg: TaskGroup) -> None:
        if how == "timeout":
            async with asyncio.timeout(None):
                await by_await(tg)
        else:
            with anyio.CancelScope():
                await by_await(tg)

    async def main() -> None:
        with pytest.raises(ExceptionGroup) as caught:
            async with TaskGroup(concurrency_limit=1) as tg:
                tg.create_task(child(tg))
        assert deadlocks(caught.value)

    run_plain(main)


@pytest.mark.parametrize("count", [1, 300])
def test_nothing_is_left_to_the_clock(run_plain: Run, count: int) -> None:
    """C4: A limit is not looked at again as long as who has a slot waits for the same: where
    nothing else can ever happen, a virtual clock tells that."""

    async def main() -> None:
        async with TaskGroup(concurrency_limit=1) as tg:
            futures = [forever() for _ in range(count)]
            tg.create_task(asyncio.wait_for(asyncio.gather(*futures), None))
            tg.create_task(leaf())

    with pytest.raises(DeadlockError):
        run_plain(main)
    run_plain.left.clear()
    run_plain.reports.clear()


def test_watch_is_no_cycle(run_plain: Run) -> None:
    """C5: A limit that was looked at is freed with its group."""

    async def main() -> None:
        gc.collect()
        gc.disable()
        try:
            async with TaskGroup(concurrency_limit=1) as tg:
                tg.create_task(leaf(1))
                tg.create_task(leaf(1))
            del tg
            await asyncio.sleep(20)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            left = [each for each in gc.garbage if type(each).__module__.startswith("quattro_core")]
            assert left == []
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()

    run_plain(main)


def test_deadlock_over_two_limits(run: Run) -> None:
    """C4: Groups that wait for each other under a limit of their own and a shared one, in a circle,
    are told so as well."""

    async def main() -> None:
        shared = SharedLimit(2)
        failures: list[BaseException] = []

        async def one() -> None:
            try:
                async with TaskGroup(concurrency_limit=2, shared_limit=shared) as group:

                    async def waits() -> None:
                        await asyncio.sleep(0.05)
                        await group.create_task(asyncio.sleep(0))

                    group.create_task(waits())
                    await asyncio.sleep(0.01)
                    group.create_task(asyncio.sleep(0))
            except ExceptionGroup as group_of_errors:
                failures.append(group_of_errors)

        await asyncio.wait_for(asyncio.gather(one(), one()), 100)
        assert failures
        assert all(deadlocks(each) for each in failures)
        assert (shared.running, shared.waiting) == (0, 0)

    run(main)
