"""A limit on concurrency that groups share."""

import asyncio
import gc
from typing import Any

import pytest

from quattro_core import SharedLimit, TaskGroup, TooManyWaitingError
from tests.support.clock import VirtualClockLoop


def run(main: Any) -> Any:
    with asyncio.Runner(debug=True, loop_factory=VirtualClockLoop) as runner:
        return runner.run(main)


class Gauge:
    """Counts how many of its children run at once, and in which order they start."""

    def __init__(self) -> None:
        self.running = self.most = 0
        self.order: list[Any] = []

    async def child(self, name: Any, seconds: float = 1) -> Any:
        self.running += 1
        self.most = max(self.most, self.running)
        self.order.append(name)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.running -= 1
        return name


def test_groups_share_the_slots() -> None:
    """C6: At most as many children of all groups together run as the shared limit says, in turn."""

    async def main() -> None:
        limit, gauge = SharedLimit(3), Gauge()
        async with TaskGroup(shared_limit=limit) as one, TaskGroup(shared_limit=limit) as other:
            for number in range(5):
                one.create_task(gauge.child(("one", number)))
                other.create_task(gauge.child(("other", number)))
            assert (limit.running, limit.waiting) == (3, 7)
        assert gauge.most == 3
        assert gauge.order == [(g, n) for n in range(5) for g in ("one", "other")]
        assert (limit.running, limit.waiting) == (0, 0)

    run(main())


def test_own_limit_goes_with_the_shared_one() -> None:
    """C6: A group with a limit of its own, too, keeps both."""

    async def main() -> None:
        limit, gauges = SharedLimit(3), [Gauge(), Gauge()]
        async with (
            TaskGroup(concurrency_limit=2, shared_limit=limit) as one,
            TaskGroup(concurrency_limit=2, shared_limit=limit) as other,
        ):
            tasks = [
                group.create_task(gauge.child(number))
                for number in range(6)
                for group, gauge in zip((one, other), gauges, strict=True)
            ]
            most = 0
            while not all(task.done() for task in tasks):
                most = max(most, sum(gauge.running for gauge in gauges))
                await asyncio.sleep(0.1)
        assert most == 3
        assert [gauge.most for gauge in gauges] == [2, 2]
        assert [gauge.order for gauge in gauges] == [list(range(6))] * 2
        assert (limit.running, limit.waiting) == (0, 0)

    run(main())


def test_group_waits_for_children_that_wait() -> None:
    """C2, C6: A group none of whose children runs yet is not over: it waits for their turn."""

    async def main() -> None:
        limit, gauge = SharedLimit(1), Gauge()

        async def occupy() -> None:
            async with TaskGroup(shared_limit=limit) as tg:
                tg.create_task(gauge.child("first", 10))

        first = asyncio.create_task(occupy())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        async with TaskGroup(shared_limit=limit) as tg:
            task = tg.create_task(gauge.child("second"))
        assert task.result() == "second"
        assert asyncio.get_running_loop().time() == 11
        await first

    run(main())


@pytest.mark.parametrize("own", [None, 1])
def test_aborted_group_leaves_the_queue(own: int | None) -> None:
    """C6: The children of a group that has failed leave the queue, and none of them starts."""

    async def main() -> None:
        limit, gauge = SharedLimit(2), Gauge()

        async def fail() -> None:
            await asyncio.sleep(1)
            raise ZeroDivisionError

        async def failing() -> None:
            with pytest.raises(ExceptionGroup):
                async with TaskGroup(concurrency_limit=own, shared_limit=limit) as tg:
                    tg.create_task(fail())
                    for number in range(5):
                        tg.create_task(gauge.child(number, 10))

        async with TaskGroup(shared_limit=limit) as tg:
            tg.create_task(gauge.child("long", 5))
            other = asyncio.create_task(failing())
            await asyncio.sleep(0.5)
            last = tg.create_task(gauge.child("last"))
            await other
            assert limit.running <= 2
        assert last.result() == "last"
        assert gauge.order == ["long", "last"]
        assert (limit.running, limit.waiting) == (0, 0)

    run(main())


def test_cancelled_child_gives_its_place_up() -> None:
    """C6: A child that is cancelled while it waits never starts, and is not counted as waiting."""

    async def main() -> None:
        limit, gauge = SharedLimit(1, max_waiting=1), Gauge()
        async with TaskGroup(shared_limit=limit) as tg:
            tg.create_task(gauge.child("first"))
            second = tg.create_task(gauge.child("second"))
            second.cancel()
            await asyncio.sleep(0)
            assert limit.waiting == 0
            tg.create_task(gauge.child("third"))
        assert gauge.order == ["first", "third"]
        assert (limit.running, limit.waiting) == (0, 0)

    run(main())


def test_full_waiting_room() -> None:
    """C6: One child more than may wait is an error, and its coroutine is closed."""

    async def main() -> None:
        limit, gauge = SharedLimit(1, max_waiting=1), Gauge()
        async with TaskGroup(shared_limit=limit) as tg:
            tg.create_task(gauge.child("first"))
            tg.create_task(gauge.child("second"))
            with pytest.raises(TooManyWaitingError, match="1 children are running and 1 are wait"):
                tg.create_task(gauge.child("third"))
            tg.create_background_task(gauge.child("helpers don't count"))
        assert gauge.order == ["first", "helpers don't count", "second"]

    run(main())


def test_bad_arguments_are_named() -> None:
    """C6: A bad limit is an error that names the argument and the value."""
    for bad in ("1", 1.5, True):
        with pytest.raises(TypeError, match=f"total must be an int, got {bad!r}"):
            SharedLimit(bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="total must be >= 1, got 0"):
        SharedLimit(0)
    with pytest.raises(ValueError, match="max_waiting must be >= 0, got -1"):
        SharedLimit(1, max_waiting=-1)
    with pytest.raises(TypeError, match="shared_limit must be a SharedLimit or None, got 3"):
        TaskGroup(shared_limit=3)  # type: ignore[arg-type]


def test_each_event_loop_counts_for_itself() -> None:
    """C6: A limit that groups of several event loops share belongs to each of them: a child of one
    loop takes no place of another's, and none waits for a place that only another loop gives."""
    limit, gauge = SharedLimit(1), Gauge()

    async def fill() -> None:
        async with TaskGroup(shared_limit=limit) as tg:
            tg.create_task(gauge.child("runs", 1))
            tg.create_task(gauge.child("waits", 1))

    async def other() -> None:
        assert (limit.running, limit.waiting) == (0, 0)
        async with asyncio.timeout(10), TaskGroup(shared_limit=limit) as tg:
            tg.create_task(gauge.child("in another loop"))
            assert repr(limit) == "<SharedLimit 1 of 1 running, 0 waiting>"

    with asyncio.Runner(debug=True, loop_factory=VirtualClockLoop) as runner:
        filling = runner.get_loop().create_task(fill())
        runner.run(asyncio.sleep(0.5))
        run(other())
        assert (limit.running, limit.waiting) == (1, 1)  # of all, where no event loop runs
        runner.run(asyncio.wait_for(filling, 10))
    assert gauge.order == ["runs", "in another loop", "waits"]


def test_count_goes_with_its_event_loop() -> None:
    """C6: A limit keeps nothing of an event loop that is gone, such as that of an earlier test."""
    limit, gauge = SharedLimit(1), Gauge()

    async def main() -> None:
        async with TaskGroup(shared_limit=limit) as tg:
            tg.create_task(gauge.child("one"))

    for number in range(1, 4):
        run(main())
        assert len(gauge.order) == number
    gc.collect()
    assert not limit._limits


def test_repr_tells_the_numbers() -> None:
    """C6: The repr of a shared limit says how many run and how many wait."""

    async def main() -> None:
        limit = SharedLimit(1)
        async with TaskGroup(shared_limit=limit) as tg:
            tg.create_task(asyncio.sleep(0))
            tg.create_task(asyncio.sleep(0))
            assert repr(limit) == "<SharedLimit 1 of 1 running, 1 waiting>"

    run(main())


def test_what_a_shared_limit_offers() -> None:
    """C6: What only groups call does not look as if it were for users."""
    offered = {name for name in dir(SharedLimit) if not name.startswith("_")}
    assert offered == {"max_waiting", "running", "total", "waiting"}


def test_total_is_not_optional() -> None:
    """C6: A shared limit that is none is an error that does not offer None."""
    with pytest.raises(TypeError, match="total must be an int, got None"):
        SharedLimit(None)  # type: ignore[arg-type]


def test_wait_for_the_own_limit_while_nobody_may_wait_for_the_shared_one() -> None:
    """C6: A child that waits for the limit of its group needs no room to wait for the shared one,
    though that is reached as well."""

    async def main() -> None:
        limit = SharedLimit(1, max_waiting=0)
        async with TaskGroup(concurrency_limit=1, shared_limit=limit) as tg:
            tg.create_task(asyncio.sleep(0.001))
            last = tg.create_task(asyncio.sleep(0, "last"))
        assert last.result() == "last"

    run(main())
