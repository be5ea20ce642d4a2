"""A child that waits for children of the same limit lends its slot, and gets one again."""

from __future__ import annotations

import asyncio
import random
from typing import Any, cast

import pytest

from quattro_core import SharedLimit, TaskGroup
from tests.core.conftest import Run
from tests.core.test_background import forever

MOMENT = 0.001


class Gauge:
    """Counts who runs code of its own, and not in a wait that lends its slot."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.log: list[Any] = []

    def begin(self, key: object = None) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        if key is not None:
            self.log.append(key)

    def end(self) -> None:
        self.now -= 1

    async def leaf(self, key: object = None, seconds: float = MOMENT) -> Any:
        """Run for a while."""
        self.begin(key)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.end()
        return key

    async def waits(self, awaitable: Any) -> Any:
        """Wait for others, in a child that has begun."""
        self.end()
        try:
            return await awaitable
        finally:
            self.begin()


def at_rest(limit: SharedLimit) -> bool:
    """Whether nobody has anything of the limit any more."""
    left = [(inner.holders, inner.lenders, inner.returning) for inner in limit._limits.values()]
    return (limit.running, limit.waiting) == (0, 0) and not any(map(any, left))


async def settle() -> None:
    """Let everything happen that needs no time."""
    for _ in range(30):
        await asyncio.sleep(0)


# Nobody hangs


@pytest.mark.parametrize("limit", [1, 2, 3])
@pytest.mark.parametrize("depth", [2, 4])
def test_nested_gathers(run: Run, limit: int, depth: int) -> None:
    """C4, C6: Children that gather children that gather children end under any limit, and never
    more than that run code of their own at once."""
    gauge = Gauge()

    async def child(tg: TaskGroup, level: int) -> int:
        gauge.begin()
        try:
            await asyncio.sleep(0)
            if not level:
                return 1
            return sum(await gauge.waits(tg.gather(child(tg, level - 1), child(tg, level - 1))))
        finally:
            gauge.end()

    async def main() -> None:
        shared = SharedLimit(limit)
        both: list[dict[str, Any]] = [{"concurrency_limit": limit}, {"shared_limit": shared}]
        for options in both:
            async with TaskGroup(**options) as tg:
                assert await tg.gather(child(tg, depth), child(tg, depth)) == (2**depth,) * 2
        assert at_rest(shared)

    run(main)
    assert gauge.most == limit


def test_limits_of_both_kinds(run: Run) -> None:
    """C4, C6: A child lends the slots of the limit of its group and of the shared one."""
    gauge = Gauge()

    async def child(tg: TaskGroup, level: int) -> None:
        gauge.begin()
        if level:
            await gauge.waits(tg.gather(*[child(tg, level - 1) for _ in range(2)]))
        else:
            await settle()
        gauge.end()

    async def main() -> None:
        shared = SharedLimit(2)
        async with (
            TaskGroup(concurrency_limit=1, shared_limit=shared) as one,
            TaskGroup(concurrency_limit=2, shared_limit=shared) as other,
        ):
            for tg in (one, other, one, other):
                tg.create_task(child(tg, 3))
        assert at_rest(shared)

    run(main)
    assert gauge.most == 2


def test_gather_in_another_group(run: Run) -> None:
    """C4: A child may gather children of another group with the same `SharedLimit`."""

    async def main() -> None:
        limit, gauge = SharedLimit(1), Gauge()

        async def child(other: TaskGroup) -> Any:
            return await other.gather(gauge.leaf(1), gauge.leaf(2))

        async with TaskGroup(shared_limit=limit) as other, TaskGroup(shared_limit=limit) as tg:
            tasks = [tg.create_task(child(other)) for _ in range(3)]
        assert [task.result() for task in tasks] == [(1, 2)] * 3
        assert gauge.most == 1
        assert at_rest(limit)

    run(main)


def test_inner_group(run: Run) -> None:
    """C4: A child may open a group with the `SharedLimit` that it has a slot of."""

    async def main() -> None:
        limit, gauge = SharedLimit(1), Gauge()

        async def child(level: int) -> None:
            gauge.begin()
            async with TaskGroup(shared_limit=limit) as inner:
                for _ in range(2):
                    inner.create_task(child(level - 1) if level else gauge.leaf())
                gauge.end()
            gauge.begin()
            gauge.end()

        async with TaskGroup(shared_limit=limit) as tg:
            tg.create_task(child(2))
            tg.create_task(child(2))
        assert gauge.most == 1
        assert at_rest(limit)

    run(main)


@pytest.mark.parametrize("is_parent", [True, False])
def test_finish_of_an_inner_group(run: Run, is_parent: bool) -> None:
    """C4: A child lends its slot while it waits in `finish`, whoever has opened the group."""

    async def main() -> None:
        limit, gauge = SharedLimit(1), Gauge()

        async def child(inner: TaskGroup) -> None:
            if is_parent:
                inner.enter()
            task = inner.create_task(gauge.leaf("grandchild"))
            await inner.finish()
            gauge.log.append("child")
            assert task.done()
            assert limit.running == 1
            if is_parent:
                await inner.__aexit__(None, None, None)

        inner = TaskGroup(shared_limit=limit)
        if not is_parent:
            inner.enter()
        async with TaskGroup(shared_limit=limit) as tg:
            tg.create_task(child(inner))
        if not is_parent:
            await inner.__aexit__(None, None, None)
        assert gauge.log == ["grandchild", "child"]
        assert at_rest(limit)

    run(main)


@pytest.mark.parametrize("is_parent", [True, False])
def test_slot_after_finish(run: Run, is_parent: bool) -> None:
    """C6: A child that has waited in `finish` goes on when it has a slot again."""

    async def main() -> None:
        limit, gauge = SharedLimit(1), Gauge()

        async def child(inner: TaskGroup, tg: TaskGroup) -> None:
            gauge.begin()
            if is_parent:
                inner.enter()
            inner.create_task(gauge.leaf("grandchild"))
            tg.create_task(gauge.leaf("next"))
            await gauge.waits(inner.finish())
            gauge.log.append("child")
            gauge.end()
            if is_parent:
                await inner.__aexit__(None, None, None)

        inner = TaskGroup(shared_limit=limit)
        if not is_parent:
            inner.enter()
        async with TaskGroup(shared_limit=limit) as tg:
            tg.create_task(child(inner, tg))
        if not is_parent:
            await inner.__aexit__(None, None, None)
        assert gauge.log == ["grandchild", "next", "child"]
        assert gauge.most == 1
        assert at_rest(limit)

    run(main)


@pytest.mark.parametrize("limit", [1, 2])
@pytest.mark.parametrize("ordered", [True, False])
def test_map_in_a_child(run: Run, limit: int, ordered: bool) -> None:
    """C4: A child may wait for a map whose calls gather children of the same group."""

    async def main() -> None:
        gauge, shared = Gauge(), SharedLimit(limit)

        async def child(tg: TaskGroup) -> int:
            async def call(number: int) -> int:
                return sum(await tg.gather(gauge.leaf(number), gauge.leaf(number)))

            return sum([each async for each in tg.map(call, range(5), limit=2, ordered=ordered)])

        async with TaskGroup(shared_limit=shared) as tg:
            tasks = [tg.create_task(child(tg)) for _ in range(3)]
        assert [task.result() for task in tasks] == [20, 20, 20]
        assert gauge.most == limit
        assert at_rest(shared)

    run(main)


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("slow", [0, 1, 3])
def test_map_with_several_consumers(run: Run, ordered: bool, slow: int) -> None:
    """C4: Children that share the results of a map get each result once, though each waits for its
    slot when there is one, and though some results take longer."""

    async def main() -> None:
        shared = SharedLimit(1)

        async def call(number: int) -> int:
            await asyncio.sleep(MOMENT if slow and number % slow == 0 else 0)
            return number

        async with TaskGroup(shared_limit=shared) as tg:
            results = tg.map(call, range(20), limit=4, ordered=ordered)

            async def child() -> list[int]:
                return [each async for each in results]

            tasks = [tg.create_task(child()) for _ in range(3)]
            tasks.append(asyncio.create_task(child()))
            await asyncio.wait(tasks)
        assert sorted(each for task in tasks for each in task.result()) == list(range(20))
        assert at_rest(shared)

    run(main)


@pytest.mark.parametrize("ordered", [True, False])
def test_result_that_another_one_takes(run: Run, ordered: bool) -> None:
    """C4: A child whose result somebody else takes, while it waits for its slot, lends that again
    until there is another result."""

    async def main() -> None:
        shared, held = SharedLimit(1), asyncio.Event()
        go = [asyncio.Event(), asyncio.Event()]

        async def call(number: int) -> int:
            await go[number].wait()
            if number == 1:
                await tg.gather(asyncio.sleep(MOMENT))
            return number

        async def child() -> int:
            return await anext(results)

        async def hold() -> None:
            await held.wait()

        async with TaskGroup(shared_limit=shared) as tg:
            results = tg.map(call, range(2), limit=2, ordered=ordered)
            first = tg.create_task(child())
            await settle()
            tg.create_task(hold())
            await settle()
            go[0].set()
            await settle()
            assert await anext(results) == 0
            held.set()
            await settle()
            go[1].set()
            assert await first == 1
        assert at_rest(shared)

    run(main)


def test_results_that_are_there(run: Run) -> None:
    """C6: A child lends its slot while it waits for a result, not to take one that is there."""

    async def main() -> None:
        shared, gauge = SharedLimit(1), Gauge()

        async def call(number: int) -> int:
            return number

        async def child(tg: TaskGroup) -> None:
            results = tg.map(call, range(3), limit=3, ordered=True)
            assert await anext(results) == 0
            await settle()
            tg.create_task(gauge.leaf("next"))
            await settle()
            gauge.log += [await anext(results), await anext(results)]
            await asyncio.sleep(0)
            gauge.log.append("child")

        async with TaskGroup(shared_limit=shared) as tg:
            tg.create_task(child(tg))
        assert gauge.log == [1, 2, "child", "next"]
        assert at_rest(shared)

    run(main)


def test_result_of_a_cancelled_consumer(run_plain: Run) -> None:
    """C4: The result for a child that is cancelled while it waits for its slot goes to another."""

    async def main() -> None:
        shared, go = SharedLimit(1), asyncio.Event()

        async def call(number: int) -> int:
            await go.wait()
            return number

        async with TaskGroup(shared_limit=shared) as tg:
            results = tg.map(call, [7], limit=1)

            async def child() -> list[int]:
                return [each async for each in results]

            first = tg.create_task(child())
            await settle()
            second = asyncio.create_task(child())
            tg.create_task(asyncio.sleep(1))
            await settle()
            go.set()
            await settle()
            assert not first.done()
            first.cancel()
            assert await second == [7]
        assert at_rest(shared)

    run_plain(main)


def test_gather_after_a_cancelled_one(run: Run) -> None:
    """C4: A child that goes on without a slot, since its gather was cancelled and another child has
    got the slot, lends what it is owed when it gathers again."""

    async def main() -> None:
        shared, gauge = SharedLimit(1), Gauge()

        async def parent(tg: TaskGroup) -> Any:
            with pytest.raises(asyncio.CancelledError):
                await tg.gather(forever())
            cast("asyncio.Task[Any]", asyncio.current_task()).uncancel()
            return await tg.gather(gauge.leaf("child"))

        async with TaskGroup(shared_limit=shared) as tg:
            task = tg.create_task(parent(tg))
            await settle()  # the child that it waits for has the slot
            tg.create_task(gauge.leaf("next"))
            await settle()
            task.cancel()
        assert task.result() == ("child",)
        assert gauge.log == ["next", "child"]
        assert at_rest(shared)

    run(main)


# Who is next


def test_the_lent_slot_goes_to_the_first_in_the_queue(run: Run) -> None:
    """C6: A lent slot goes first come, first served: to those that came before the children of who
    lends it."""

    async def main() -> None:
        gauge = Gauge()

        async def parent(tg: TaskGroup) -> None:
            gauge.log.append("parent")
            await tg.gather(gauge.leaf("child"), gauge.leaf("child"))
            gauge.log.append("parent goes on")

        async with TaskGroup(concurrency_limit=1) as tg:
            tg.create_task(gauge.leaf(0))
            tg.create_task(parent(tg))
            tg.create_task(gauge.leaf(1))
            tg.create_task(gauge.leaf(2))
        expected = [0, "parent", 1, 2, "child", "child", "parent goes on"]
        assert gauge.log == expected

    run(main)


def test_who_has_lent_its_slot_goes_first(run: Run) -> None:
    """C6: A child that goes on is before all that have not begun, and waits for a slot for it."""

    async def main() -> None:
        gauge, done = Gauge(), asyncio.Event()

        async def parent(tg: TaskGroup) -> None:
            await tg.gather(done.wait())
            gauge.log.append("parent goes on")

        async with TaskGroup(concurrency_limit=1) as tg:
            tg.create_task(parent(tg))
            await settle()  # its child has the slot
            for key in range(3):
                tg.create_task(gauge.leaf(key))
            done.set()
        assert gauge.log[0] in (0, "parent goes on")
        assert gauge.log.index("parent goes on") <= 1
        assert [key for key in gauge.log if key != "parent goes on"] == [0, 1, 2]

    run(main)


def test_an_eager_child_overtakes_nobody(run_eager: Run) -> None:
    """C6: A child that could take its first step at once waits behind who wants its slot again."""

    async def main() -> None:
        gauge, shared, blocked = Gauge(), SharedLimit(1), asyncio.Event()

        async def parent(tg: TaskGroup) -> None:
            await tg.gather(blocked.wait())
            gauge.log.append("parent goes on")

        async def last(tg: TaskGroup) -> None:
            await settle()
            tg.create_task(gauge.leaf("eager"))

        async with TaskGroup(shared_limit=shared) as tg:
            tg.create_task(parent(tg))
            tg.create_task(last(tg))
            blocked.set()
        assert gauge.log == ["parent goes on", "eager"]
        assert at_rest(shared)

    run_eager(main)


def test_first_step_of_an_eager_child(run_eager: Run) -> None:
    """C4, C6: A child whose first step runs inside of `create_task` lends its slot in that step."""

    async def main() -> None:
        shared, gauge = SharedLimit(1), Gauge()

        async def child(tg: TaskGroup) -> None:
            gauge.begin()
            await gauge.waits(tg.gather(gauge.leaf(), gauge.leaf()))
            gauge.end()

        async with TaskGroup(shared_limit=shared) as tg:
            tg.create_task(child(tg))
            assert shared.running == 1  # its child
            tg.create_task(child(tg))
        assert gauge.most == 1
        assert at_rest(shared)

    run_eager(main)


def test_who_has_no_slot_lends_none(run: Run) -> None:
    """C6: The body of a group, its background tasks and tasks of others lend nothing."""

    async def main() -> None:
        shared, gauge = SharedLimit(2), Gauge()

        async def gather(tg: TaskGroup) -> None:
            await tg.gather(*[gauge.leaf() for _ in range(4)])

        async with TaskGroup(shared_limit=shared) as tg:
            other = asyncio.create_task(gather(tg))
            tg.create_background_task(gather(tg))
            await gather(tg)
            await other
        assert gauge.most == 2
        assert at_rest(shared)

    run(main)


def test_lent_slots_count_as_free(run_plain: Run) -> None:
    """C6: A child that has lent its slot is not counted as running, nor as waiting."""

    async def main() -> None:
        shared = SharedLimit(2, max_waiting=0)

        async def child(tg: TaskGroup) -> None:
            await tg.gather(forever())

        async with TaskGroup(shared_limit=shared) as tg:
            tg.create_task(child(tg))
            await settle()
            assert (shared.running, shared.waiting) == (1, 0)
            tg.create_task(forever())
            assert len(tg.tasks) == 3
            tg.cancel()
        assert at_rest(shared)

    run_plain(main)


# Cancelled, failed


@pytest.mark.parametrize("how", ["gather", "exit", "finish"])
def test_cancelled_while_its_slot_is_lent(run: Run, how: str) -> None:
    """C4, C10: A child that is cancelled while it waits for others goes on with its clean-up at
    once, though all slots are taken, and gives none back that it does not have."""

    async def main() -> None:
        shared, gauge = SharedLimit(1), Gauge()
        other = TaskGroup(shared_limit=shared).enter()

        async def wait(tg: TaskGroup) -> None:
            if how == "gather":
                await tg.gather(gauge.leaf("never"))
            elif how == "exit":
                async with TaskGroup(shared_limit=shared) as inner:
                    inner.create_task(gauge.leaf("never"))
            else:
                other.create_task(gauge.leaf("never"))
                await other.finish()

        async def child(tg: TaskGroup) -> None:
            await asyncio.sleep(0)
            try:
                await wait(tg)
            finally:
                gauge.log.append("clean-up")
                assert shared.running == 1  # the long one
                await asyncio.sleep(0)

        async with TaskGroup(shared_limit=shared) as tg:
            task = tg.create_task(child(tg))
            long = tg.create_task(forever())
            last = tg.create_task(gauge.leaf("last"))
            await settle()
            task.cancel()
            await asyncio.wait((task,))
            assert task.cancelled()
            assert not last.done()
            assert shared.running == 1
            long.cancel()
        await other.__aexit__(None, None, None)
        assert gauge.log == ["clean-up", "last"]
        assert at_rest(shared)

    run(main)


def test_cancelled_while_it_waits_to_go_on(run: Run) -> None:
    """C4, C10: A child that is cancelled while it waits for its slot goes on at once."""

    async def main() -> None:
        shared, gate, log = SharedLimit(1), asyncio.Event(), list[str]()

        async def child(tg: TaskGroup) -> None:
            try:
                await tg.gather(gate.wait())
            finally:
                log.append("clean-up")

        async with TaskGroup(shared_limit=shared) as tg:
            task = tg.create_task(child(tg))
            await settle()
            long = tg.create_task(forever())
            gate.set()
            await settle()
            if not long.done() and shared.running and not log:
                task.cancel()
                await asyncio.wait((task,))
            assert log == ["clean-up"]
            long.cancel()
        assert at_rest(shared)

    run(main)


def test_who_has_timed_out_is_counted_again(run: Run) -> None:
    """C6: A child that goes on after a timeout gets the next slot that is free: before it ends, no
    other child begins beyond the limit."""

    async def main() -> None:
        shared, gauge = SharedLimit(1), Gauge()
        stop = asyncio.Event()

        async def child(tg: TaskGroup) -> None:
            try:
                async with asyncio.timeout(5 * MOMENT):
                    await tg.gather(forever())
            except TimeoutError:
                gauge.log.append("timed out")
            await stop.wait()
            gauge.log.append("ended")

        async with TaskGroup(shared_limit=shared) as tg:
            tg.create_task(child(tg))
            await settle()
            other = tg.create_task(gauge.leaf("other", 10 * MOMENT))
            tg.create_task(gauge.leaf("last"))
            await other
            await settle()
            assert (shared.running, shared.waiting) == (1, 1)
            stop.set()
        assert sorted(gauge.log[:2]) == ["other", "timed out"]
        assert gauge.log[2:] == ["ended", "last"]
        assert at_rest(shared)

    run(main)


def test_who_has_timed_out_waits_again(run: Run) -> None:
    """C6: A child that goes on after a timeout, and then waits for another child, needs a slot
    again after that."""

    async def main() -> None:
        shared, gauge = SharedLimit(1), Gauge()

        has_left = asyncio.Event()

        async def leaves() -> None:
            try:
                await forever()
            finally:
                has_left.set()

        async def first() -> None:
            gauge.begin("first")
            await has_left.wait()
            await settle()
            gauge.end()

        async def last() -> None:
            await gauge.leaf("last", 10 * MOMENT)
            gauge.log.append("last has ended")

        async def child(tg: TaskGroup) -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(5 * MOMENT):
                    await tg.gather(leaves())
            second = tg.gather(gauge.leaf("second"))
            asyncio.get_running_loop().call_soon(lambda: tg.create_task(last()))
            await second
            gauge.log.append("goes on")

        async with TaskGroup(shared_limit=shared) as tg:
            tg.create_task(child(tg))
            await settle()
            tg.create_task(first())
        assert gauge.log == ["first", "second", "last", "last has ended", "goes on"]
        assert at_rest(shared)

    run(main)


@pytest.mark.parametrize("how", ["cancel", "outer", "child", "body"])
def test_end_of_the_group_while_slots_are_lent(run: Run, how: str) -> None:
    """C5, C6: A group that is cancelled, or fails, while slots of its children are lent leaves none
    of them taken, and nothing starts."""

    async def main() -> None:
        shared, gauge = SharedLimit(2), Gauge()
        ready, go = asyncio.Event(), asyncio.Event()

        async def fail() -> None:
            await go.wait()
            raise ZeroDivisionError

        async def child(tg: TaskGroup, level: int) -> None:
            try:
                await tg.gather(*[child(tg, level - 1) if level else fail() for _ in range(2)])
            finally:
                await asyncio.sleep(0)

        async def group() -> None:
            async with TaskGroup(shared_limit=shared) as tg:
                for _ in range(3):
                    tg.create_task(child(tg, 2))
                await settle()
                for key in range(3):
                    tg.create_task(gauge.leaf(key))
                ready.set()
                if how == "cancel":
                    tg.cancel()
                elif how == "body":
                    raise ZeroDivisionError
                elif how == "child":
                    go.set()
                await forever()

        task = asyncio.create_task(group())
        await ready.wait()
        if how == "outer":
            task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled() == (how == "outer")
        if how in ("child", "body"):
            assert isinstance(task.exception(), ExceptionGroup)
        assert gauge.log == []
        assert at_rest(shared)

    run(main)


def test_failure_in_another_group(run: Run) -> None:
    """C5, C6: A child that gets an error from its `gather` goes on with a slot."""

    async def main() -> None:
        shared, gauge = SharedLimit(1), Gauge()

        async def fail() -> None:
            raise ZeroDivisionError

        async def child(other: TaskGroup) -> None:
            with pytest.raises(ZeroDivisionError):
                await other.gather(fail())
            gauge.begin("caught")
            assert shared.running == 1
            await settle()
            gauge.end()

        async def failing(tg: TaskGroup) -> None:
            with pytest.raises(ExceptionGroup):
                async with TaskGroup(shared_limit=shared) as other:
                    tg.create_task(child(other))
                    tg.create_task(gauge.leaf("last"))
                    await forever()

        async with TaskGroup(shared_limit=shared) as tg:
            await failing(tg)
        assert gauge.most == 1
        assert gauge.log in (["last", "caught"], ["caught", "last"])
        assert at_rest(shared)

    run(main)


def test_child_that_catches_the_failure_of_an_inner_group(run: Run) -> None:
    """C5, C6: A child that catches what comes out of an inner group has a slot when it goes on."""

    async def main() -> None:
        shared, gauge = SharedLimit(1), Gauge()

        async def fail() -> None:
            await settle()
            raise ZeroDivisionError

        async def child(key: str) -> None:
            gauge.begin()
            with pytest.raises(ExceptionGroup):
                async with TaskGroup(shared_limit=shared) as inner:
                    inner.create_task(fail())
                    gauge.end()
            assert shared.running == 1
            gauge.begin(key)
            await settle()
            gauge.end()

        async with TaskGroup(shared_limit=shared) as tg:
            for key in "abc":
                tg.create_task(child(key))
            for _ in range(3):
                tg.create_task(gauge.leaf())
        assert sorted(gauge.log) == ["a", "b", "c"]
        assert gauge.most == 1
        assert at_rest(shared)

    run(main)


@pytest.mark.parametrize("end", ["quiet", "failure", "cancel"])
@pytest.mark.parametrize("how", ["task", "group", "outer"])
def test_cancelled_at_the_end_of_an_inner_group(run: Run, how: str, end: str) -> None:
    """C9, C10: A child that is cancelled while it waits for its slot at the end of an inner group
    ends as with any other group, and its cancel count is as it was."""
    is_failing = end == "failure"

    async def main() -> None:
        shared, gate, results = SharedLimit(1), asyncio.Event(), list[Any]()
        groups: list[TaskGroup] = []

        async def grandchild() -> None:
            await gate.wait()
            if is_failing:
                raise ZeroDivisionError
            if end == "cancel":
                groups[0].cancel()

        async def child() -> None:
            task = asyncio.current_task()
            assert task is not None
            try:
                async with TaskGroup(shared_limit=shared) as inner:
                    groups.append(inner)
                    inner.create_task(grandchild())
            except BaseException as exc:
                results.append((type(exc), task.cancelling()))
                raise
            results.append((None, task.cancelling()))

        async def group() -> None:
            async with TaskGroup(shared_limit=shared) as tg:
                task = tg.create_task(child())
                await settle()
                long = tg.create_task(forever())
                gate.set()
                await settle()
                assert "finished" in repr(groups[0])
                assert not results
                if how == "task":
                    task.cancel()
                elif how == "group":
                    groups[0].cancel()
                    if end != "quiet":  # it is being cancelled already: that does nothing
                        long.cancel()
                else:
                    outer.cancel()
                await asyncio.wait((task,))
                long.cancel()

        outer = asyncio.create_task(group())
        await asyncio.wait((outer,))
        assert outer.cancelled() or (outer.exception() is not None) == is_failing
        if how == "group":
            assert results == [(ExceptionGroup if is_failing else None, 0)]
        else:
            assert results == [(ExceptionGroup if is_failing else asyncio.CancelledError, 1)]
        assert at_rest(shared)

    run(main)


# All at random


class Storm:
    """Children that do all of this at random, and how many run code of their own meanwhile."""

    def __init__(self, seed: int, own: int | None, shared: int) -> None:
        self.random = random.Random(seed)
        self.own = own
        self.limit = SharedLimit(shared)
        self.gauge = Gauge()

    async def pause(self) -> None:
        await asyncio.sleep(self.random.choice([0, 0, MOMENT / 10, MOMENT / 5]))

    async def child(self, tg: TaskGroup, level: int) -> int:
        gauge = self.gauge
        gauge.begin()
        counted = True
        try:
            await self.pause()
            for _ in range(self.random.randint(0, 2) if level else 0):
                act = self.random.choice([self.gathers, self.opens, self.maps, self.times_out])
                gauge.end()
                counted = False
                if await act(tg, level - 1):
                    gauge.begin()
                    counted = True
                else:
                    return 0  # it was cancelled, and is not counted in its clean-up
                await self.pause()
            return 1
        finally:
            if counted:
                gauge.end()

    async def gathers(self, tg: TaskGroup, level: int) -> bool:
        number = self.random.randint(0, 3)
        assert len(await tg.gather(*[self.child(tg, level) for _ in range(number)])) == number
        return True

    async def opens(self, tg: TaskGroup, level: int) -> bool:
        own = self.random.choice([None, self.own])
        try:
            async with TaskGroup(concurrency_limit=own, shared_limit=self.limit) as inner:
                for _ in range(self.random.randint(0, 3)):
                    inner.create_task(self.child(inner, level))
                if self.random.random() < 0.2:
                    inner.create_task(self.fails())
        except* ZeroDivisionError:
            pass
        return True

    async def fails(self) -> None:
        self.gauge.begin()
        try:
            await self.pause()
        finally:
            self.gauge.end()
        raise ZeroDivisionError

    async def maps(self, tg: TaskGroup, level: int) -> bool:
        async def call(_: int) -> int:
            return sum(await tg.gather(self.child(tg, level)))

        async with tg.map(call, range(self.random.randint(0, 3)), limit=2) as results:
            async for _ in results:
                pass
        return True

    async def times_out(self, tg: TaskGroup, level: int) -> bool:
        try:
            async with asyncio.timeout(self.random.choice([0, MOMENT / 10, MOMENT])):
                await self.gathers(tg, level)
        except TimeoutError:
            return False
        return True

    async def main(self) -> None:
        async with TaskGroup(concurrency_limit=self.own, shared_limit=self.limit) as tg:
            for _ in range(4):
                tg.create_task(self.child(tg, 3))


@pytest.mark.parametrize("seed", range(12))
def test_storm(run: Run, seed: int) -> None:
    """C4, C6: Whatever children do that wait for each other in groups of one limit, all of them
    end, never more than the limit run code of their own, and no slot is lost."""
    storm = Storm(seed, own=[None, 1, 2][seed % 3], shared=[1, 2, 3, 5][seed % 4])

    async def main() -> None:
        await asyncio.gather(storm.main(), storm.main())
        assert at_rest(storm.limit)

    run(main)
    assert storm.gauge.most <= storm.limit.total
    assert storm.gauge.now == 0
