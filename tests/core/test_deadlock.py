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
from quattro_core._deadlock import MOST_VISITED, Search, Watch
from tests.core.conftest import Run
from tests.core.test_background import forever
from tests.core.test_lending import MOMENT, at_rest, settle
from tests.support import clock
from tests.support.clock import DeadlockError, VirtualClockLoop

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


async def by_a_background_task(tg: TaskGroup) -> None:
    async def pump() -> None:
        try:
            await forever()
        finally:
            await by_await(tg)

    async with TaskGroup() as inner:
        inner.create_background_task(pump())
        await asyncio.sleep(0)


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
        await inner.gather(by_await(tg), leaf(), forever())


async def later(tg: TaskGroup) -> None:
    await asyncio.sleep(20 * MOMENT)
    await by_await(tg)


async def much_later(tg: TaskGroup) -> None:
    await asyncio.sleep(10)  # until nobody looks at what does not change
    await by_await(tg)


class Duck:
    """A future that is none of asyncio's."""

    def __init__(self) -> None:
        self.future = asyncio.get_running_loop().create_future()
        self._asyncio_future_blocking = False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.future, name)

    def __await__(self) -> Any:
        self._asyncio_future_blocking = True
        yield self


async def much_later_beside_another(tg: TaskGroup) -> None:
    async def after_a_duck() -> None:
        await duck(tg)
        await by_await(tg)

    await asyncio.gather(forever(), after_a_duck())


async def by_gather_with_one_that_never_ends(tg: TaskGroup) -> None:
    await asyncio.gather(by_await(tg), forever())


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
    by_a_background_task,
    by_a_group_of_anyio,
    by_a_map,
    by_a_gather_of_another_group,
    later,
    by_gather_with_one_that_never_ends,
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


def test_that_is_no_partial_result(run_plain: Run) -> None:
    """C4, C12: Where children whose errors are results wait by hand, the group fails as well: the
    error tells of a bug, and not of one call."""

    async def main() -> None:
        with pytest.raises(ExceptionGroup) as caught:
            async with TaskGroup(concurrency_limit=1) as tg:
                await tg.gather(by_await(tg), by_await(tg), return_exceptions=True)
        assert deadlocks(caught.value)

    run_plain(main)


def test_children_that_wait_for_the_same(run_plain: Run) -> None:
    """C4: So it is where all of them wait for the same task, which waits for one without a slot."""

    async def main() -> None:
        with pytest.raises(ExceptionGroup) as caught:
            async with TaskGroup(concurrency_limit=3) as tg:
                task = asyncio.create_task(by_await(tg))

                async def wait() -> None:
                    await asyncio.sleep(MOMENT)
                    await task

                for _ in range(3):
                    tg.create_task(wait())
        assert deadlocks(caught.value)

    run_plain(main)


@pytest.mark.parametrize("way", [much_later, much_later_beside_another])
def test_much_later(run_plain: Run, way: Child) -> None:
    """C4: It is found as well where children have waited for something else for long before, of
    which some can't be heard of."""

    async def main() -> None:
        with pytest.raises(ExceptionGroup) as caught:
            async with TaskGroup(concurrency_limit=2) as tg:
                for _ in range(2):
                    tg.create_task(way(tg))
                tg.create_task(leaf())
        assert deadlocks(caught.value)

    run_plain(main)


@pytest.mark.parametrize("first", ["ended", "cancelled", "alone"])
def test_limit_that_somebody_waited_for_before(run_plain: Run, first: str) -> None:
    """C4: It is found within a tenth of a second, too, where the limit was at rest meanwhile."""

    async def main() -> None:
        clock = asyncio.get_running_loop().time
        with pytest.raises(ExceptionGroup) as caught:
            async with TaskGroup(concurrency_limit=1) as tg:
                tasks = [tg.create_task(leaf(10))]
                if first != "alone":
                    tasks.append(tg.create_task(leaf()))
                await asyncio.sleep(5)
                if first == "cancelled":
                    tasks.pop().cancel()
                await asyncio.wait(tasks)
                await asyncio.sleep(20)
                started = clock()
                tg.create_task(by_await(tg))
        assert deadlocks(caught.value)
        assert clock() - started <= 0.1 + MOMENT

    run_plain(main)


def test_limit_that_another_event_loop_has_left() -> None:
    """C4: It is found, too, where another event loop has ended while somebody waited in it."""

    async def main(child: Child) -> None:
        async with TaskGroup(concurrency_limit=1) as tg:
            tg.create_task(child(tg))
            tg.create_task(leaf(0))

    async def ends_soon(_: TaskGroup) -> None:
        await asyncio.sleep(0)

    for child, error in ((ends_soon, False), (by_await, True)):
        with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
            if error:
                with pytest.raises(ExceptionGroup) as caught:
                    runner.run(main(child))
                assert deadlocks(caught.value)
            else:
                runner.run(main(child))


def test_one_deadlock_after_the_other(run_plain: Run) -> None:
    """C4: When one group was told, and the next takes its slot to wait in it, that is told too."""
    failures: list[BaseException] = []

    async def main() -> None:
        limit = SharedLimit(2)

        async def wait(tg: TaskGroup) -> None:
            await asyncio.sleep(MOMENT)
            await by_await(tg)

        async def group() -> None:
            try:
                async with TaskGroup(shared_limit=limit) as tg:
                    tg.create_task(wait(tg))
            except ExceptionGroup as error:
                failures.append(error)

        await asyncio.gather(*[group() for _ in range(5)])
        assert at_rest(limit)

        assert asyncio.get_running_loop().time() < 0.1 + 3 * 0.3 + 0.1

    run_plain(main)
    assert len(failures) == 4
    assert all(map(deadlocks, failures))


def test_one_look_at_a_time(run_plain: Run) -> None:
    """C11: However many wait, and for however many things, nothing looks at a limit twice at the
    same time."""

    async def waits() -> None:
        await asyncio.gather(*[asyncio.sleep(10 * number) for number in range(1, 6)])

    async def main() -> None:
        async with TaskGroup(concurrency_limit=1) as tg:
            tg.create_task(waits())
            for _ in range(20):
                tg.create_task(leaf())
            for _ in range(45):
                await asyncio.sleep(1)
                gc.collect()
                assert len([each for each in gc.get_objects() if type(each) is Watch]) == 1
                timers = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
                looks = [timer for timer in timers if "Watch" in repr(timer)]
                assert len(looks) <= 1

    run_plain(main)


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


def test_name_that_is_just_short_enough(run_plain: Run) -> None:
    """C4: A name of 200 characters is shown whole."""

    async def main() -> None:
        with pytest.raises(ExceptionGroup) as caught:
            async with TaskGroup(concurrency_limit=1) as tg:
                tg.create_task(by_await(tg), name="x" * 200)
        assert f": '{'x' * 200}' (by_await) waits for" in str(deadlocks(caught.value)[0])

    run_plain(main)


def test_as_many_as_are_named(run_plain: Run) -> None:
    """C4: Where the error names all of the children, it counts no more of them."""

    async def main() -> None:
        with pytest.raises(ExceptionGroup) as caught:
            async with TaskGroup(concurrency_limit=5) as tg:
                for _ in range(5):
                    tg.create_task(by_await(tg))
        message = str(deadlocks(caught.value)[0])
        assert message.count(" waits for 'Task") == 5
        assert " more. " not in message

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


async def next_of_two(tg: TaskGroup) -> None:
    await asyncio.sleep(0)
    tasks = [tg.create_task(leaf()), asyncio.create_task(leaf(60))]
    for ended in asyncio.as_completed(tasks):
        await ended
        break


async def next_of_two_in_a_task(tg: TaskGroup) -> None:
    await asyncio.sleep(0)
    tasks = [tg.create_task(leaf()), asyncio.create_task(leaf(60))]
    ended: Any = next(iter(asyncio.as_completed(tasks)))
    await asyncio.create_task(ended)


async def under_another_limit(tg: TaskGroup) -> None:
    async with TaskGroup(concurrency_limit=1) as other:
        other.create_task(leaf(60))
        await other.create_task(leaf())


async def busy(tg: TaskGroup) -> None:
    task = tg.create_task(leaf())
    for _ in range(60):
        await asyncio.sleep(1)
    assert not task.done()


async def many(tg: TaskGroup) -> None:
    await asyncio.sleep(0)
    tg.create_task(leaf())
    await asyncio.gather(*[leaf(60) for _ in range(3000)])


async def deep(tg: TaskGroup, level: int = 400) -> None:
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


async def duck(_: TaskGroup) -> None:
    await asyncio.sleep(0)
    future = Duck()
    asyncio.get_running_loop().call_later(60, future.set_result, None)
    await future


@pytest.mark.parametrize(
    "way",
    [
        first_of_two,
        next_of_two,
        next_of_two_in_a_task,
        under_another_limit,
        busy,
        many,
        deep,
        circle,
        duck,
    ],
)
def test_children_that_go_on(run_plain: Run, way: Child) -> None:
    """C4: Children that wait for something else are left alone, however many they are."""

    async def main() -> None:
        async with TaskGroup(concurrency_limit=1) as tg:
            tg.create_task(way(tg))
            for _ in range(3):
                tg.create_task(leaf())
        assert asyncio.get_running_loop().time() >= 60

    run_plain(main)


@pytest.mark.parametrize("beside", [True, False])
def test_child_that_runs_just_now(run_plain: Run, beside: bool) -> None:
    """C4: A child that is about to go on is left alone, and looked at again, also if it waits for
    something else as well."""

    async def child(tg: TaskGroup) -> None:
        if beside:
            await asyncio.gather(forever(), goes_on(tg))
        await goes_on(tg)

    async def goes_on(tg: TaskGroup) -> None:
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


def test_looks_are_rare(run_plain: Run) -> None:
    """C11: A limit whose children can't be heard of is looked at again after a tenth of a second,
    and then twice as late each time, but every 5 seconds at least."""
    delays: list[float] = []

    class Loop(VirtualClockLoop):
        def call_later(  # type: ignore[override,unused-ignore]
            self, delay: float, callback: Any, *args: Any, **options: Any
        ) -> Any:
            if "Watch" in repr(callback):
                delays.append(delay)
            return super().call_later(delay, callback, *args, **options)

    async def main() -> None:
        async with TaskGroup(concurrency_limit=1) as tg:
            tg.create_task(duck(tg))
            tg.create_task(leaf())

    run_plain.factory = Loop
    run_plain(main)
    assert delays[:8] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5])


def test_no_look_while_slots_are_given_back(run_plain: Run) -> None:
    """C11: Nobody asks what children wait for as long as others of the same limit end."""

    async def main() -> None:
        future = asyncio.get_running_loop().create_future()

        async def waits() -> None:
            await future

        async with TaskGroup(concurrency_limit=2) as tg:
            tg.create_task(waits())
            for _ in range(100):
                tg.create_task(leaf(0.04))
            for _ in range(30):
                await asyncio.sleep(0.1)
                assert len(future._callbacks or ()) == 1  # that of its task
            future.set_result(None)

    run_plain(main)


def test_looks_are_short(run_plain: Run) -> None:
    """C11: However many tasks a child waits for, a look at its limit visits a thousand of them."""

    async def main() -> None:
        shared = SharedLimit(1)
        async with TaskGroup(shared_limit=shared) as tg:
            tg.create_task(many(tg))
            await settle()
            search = Search()
            assert search.paths_of_holders(shared._in_loop(asyncio.get_running_loop())) == []
            assert search.needs_clock
            assert len(search.heard) <= MOST_VISITED
            tg.cancel()

    run_plain(main)


def test_objects_of_a_child(run_plain: Run) -> None:
    """C4: Whoever looks at what a child waits for asks nothing of the objects in its frame."""
    asked: list[str] = []

    class Proxy:
        def __getattr__(self, name: str) -> Any:
            asked.append(name)
            raise AttributeError(name)

    async def child(tg: TaskGroup) -> None:
        proxy = Proxy()
        await by_await(tg)
        del proxy

    async def main() -> None:
        with pytest.raises(ExceptionGroup) as caught:
            async with TaskGroup(concurrency_limit=1) as tg:
                tg.create_task(child(tg))
        assert deadlocks(caught.value)
        assert asked == []

    run_plain(main)


def test_limit_with_a_free_slot(run_plain: Run) -> None:
    """C4: A limit with a slot for the first in the queue, who is not ready yet, is no deadlock."""

    async def main() -> None:
        shared = SharedLimit(1)
        async with TaskGroup(shared_limit=shared) as tg:
            tg.create_task(by_await(tg))
            await settle()
            limit = shared._in_loop(asyncio.get_running_loop())
            assert Search().paths_of_holders(limit)
            limit.free += 1
            limit.total += 1
            search = Search()
            assert search.paths_of_holders(limit) == []
            assert search.needs_clock
            limit.free -= 1
            search = Search()
            assert search.paths_of_holders(limit) == []
            assert search.needs_clock
            limit.total -= 1
            tg.cancel()

    run_plain(main)


def test_holder_that_runs(run_plain: Run) -> None:
    """C4: Nor is one whose slot is taken by a child that is about to run."""

    async def runs() -> None:
        while True:
            await asyncio.sleep(0)

    async def main() -> None:
        shared = SharedLimit(1)
        async with TaskGroup(shared_limit=shared) as tg:
            tg.create_task(runs())
            await settle()
            search = Search()
            assert search.paths_of_holders(shared._in_loop(asyncio.get_running_loop())) == []
            assert search.needs_clock
            tg.cancel()

    run_plain(main)


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
def test_nothing_is_left_to_the_clock(
    run_plain: Run, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C4: A limit is not looked at again as long as who has a slot waits for the same: where
    nothing else can ever happen, a virtual clock tells that, and at once."""
    monkeypatch.setattr(clock, "GRACE", 0.1)  # there is no thread
    clocks: list[Callable[[], float]] = []

    async def main() -> None:
        clocks.append(asyncio.get_running_loop().time)
        async with TaskGroup(concurrency_limit=1) as tg:
            futures = [forever() for _ in range(count)]
            tg.create_task(asyncio.wait_for(asyncio.gather(*futures), None))
            tg.create_task(leaf())

    with pytest.raises(DeadlockError):
        run_plain(main)
    assert clocks[0]() < 10
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
