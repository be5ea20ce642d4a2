"""The clean-up of a child for which others wait, who hand a cancellation of theirs on to it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio.from_thread
import anyio.to_thread
import pytest

from quattro_core import TaskGroup
from tests.core.conftest import Run, turns
from tests.core.test_background import forever

Wait = Callable[[asyncio.Task[None]], Awaitable[Any]]


async def await_(task: asyncio.Task[None]) -> None:
    await task


async def group_of_asyncio(task: asyncio.Task[None]) -> None:
    async with asyncio.TaskGroup() as inner:
        inner.create_task(await_(task))


async def group_of_ours(task: asyncio.Task[None]) -> None:
    async with TaskGroup() as inner:
        inner.create_background_task(asyncio.sleep(3600))
        inner.create_task(await_(task))


async def background_task(task: asyncio.Task[None]) -> None:
    async with TaskGroup() as inner:
        inner.create_background_task(await_(task))
        inner.create_task(asyncio.sleep(3600))


async def group_of_anyio(task: asyncio.Task[None]) -> None:
    async with anyio.create_task_group() as inner:
        inner.start_soon(await_, task)


async def group_in_a_group(task: asyncio.Task[None]) -> None:
    async with asyncio.TaskGroup() as inner:
        inner.create_task(group_of_ours(task))


async def gather(task: asyncio.Task[None]) -> None:
    async with TaskGroup() as inner:
        await inner.gather(await_(task), asyncio.sleep(3600))


async def gather_of_asyncio(task: asyncio.Task[None]) -> None:
    await asyncio.gather(task, group_of_asyncio(task))


async def wait_for(task: asyncio.Task[None]) -> None:
    await asyncio.wait_for(task, 7200)


WAYS = [
    await_,
    group_of_asyncio,
    group_of_ours,
    background_task,
    group_of_anyio,
    group_in_a_group,
    gather,
    gather_of_asyncio,
    wait_for,
]


@pytest.mark.parametrize("why", ["failure", "cancel"])
@pytest.mark.parametrize("who", ["body", "child", "child of a child", "background task"])
@pytest.mark.parametrize("wait", WAYS)
def test_no_clean_up_is_cut_by_those_who_wait(run: Run, wait: Wait, who: str, why: str) -> None:
    """C5, C9: The clean-up of a child for which the body or another child waits is not cut, by
    whatever they wait; nor is theirs."""
    log: list[str] = []

    async def cleans_up() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.001)
            await asyncio.sleep(0.001)
            log.append("child")

    async def waits(task: asyncio.Task[None]) -> None:
        try:
            await wait(task)
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.001)
            log.append("waiter")

    async def main() -> None:
        async with TaskGroup() as tg:
            task = tg.create_task(cleans_up())
            tg.create_task(fail(tg))
            if who == "body":
                await waits(task)
            elif who == "child":
                tg.create_task(waits(task))
            elif who == "background task":
                tg.create_background_task(waits(task))
            else:
                await tg.create_task(waits(task))

    async def fail(tg: TaskGroup) -> None:
        await turns()
        if why == "failure":
            raise ZeroDivisionError
        tg.cancel()

    if why == "failure":
        with pytest.RaisesGroup(ZeroDivisionError):
            run(main)
    else:
        run(main)
    assert log == ["child", "waiter"]


Tasks = list[asyncio.Task[None]]


async def tasks_of_a_group(tasks: Tasks) -> None:
    async with asyncio.TaskGroup() as inner:
        for task in tasks:
            inner.create_task(await_(task))


async def gather_of_groups(tasks: Tasks) -> None:
    await asyncio.gather(*map(group_of_ours, tasks))


async def gather_in_a_group(tasks: Tasks) -> None:
    async def gather_them() -> None:
        await asyncio.gather(*tasks)

    async with TaskGroup() as inner:
        inner.create_task(gather_them())


async def beside_one_that_runs(tasks: Tasks) -> None:
    async def runs() -> None:
        while True:
            await asyncio.sleep(0)

    await asyncio.gather(tasks_of_a_group(tasks), runs())


WAYS_FOR_TWO = [tasks_of_a_group, gather_of_groups, gather_in_a_group, beside_one_that_runs]


class Scene:
    """Children that take their time to clean up, and those that wait for them."""

    def __init__(self) -> None:
        self.log: list[str] = []

    async def cleans_up(self, time: int) -> None:
        try:
            await forever()
        finally:
            for _ in range(time):
                await turns()
            self.log.append(f"child {time}")

    async def waits(self, awaitable: Awaitable[Any]) -> None:
        try:
            await awaitable
            await forever()
        finally:
            await turns()
            self.log.append("waiter")

    async def cancels(self, tg: TaskGroup) -> None:
        await turns()
        tg.cancel()

    def assert_nothing_was_cut(self) -> None:
        assert self.log in (["child 1", "child 2", "waiter"], ["child 1", "waiter", "child 2"])


@pytest.mark.parametrize("who", ["body", "child", "background task"])
@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
@pytest.mark.parametrize("wait", WAYS_FOR_TWO)
def test_who_waits_for_two(
    run: Run, wait: Callable[[Tasks], Awaitable[Any]], order: tuple[int, int], who: str
) -> None:
    """C5: Where the body or a child waits for two others, no clean-up is cut, whichever of them is
    the first to end: neither theirs nor its own."""
    scene = Scene()

    async def main() -> None:
        async with TaskGroup() as tg:
            tasks = [tg.create_task(scene.cleans_up(time)) for time in order]
            tg.create_task(scene.cancels(tg))
            if who == "body":
                await scene.waits(wait(tasks))
            elif who == "child":
                tg.create_task(scene.waits(wait(tasks)))
            else:
                tg.create_background_task(scene.waits(wait(tasks)))

    run(main)
    scene.assert_nothing_was_cut()


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
@pytest.mark.parametrize("wait", WAYS_FOR_TWO)
def test_background_tasks_that_wait_for_each_other(
    run: Run, wait: Callable[[Tasks], Awaitable[Any]], order: tuple[int, int]
) -> None:
    """C2, C5: So it is where the group ends, and background tasks are cancelled."""
    scene = Scene()

    async def main() -> None:
        async with TaskGroup() as tg:
            tasks = [tg.create_background_task(scene.cleans_up(time)) for time in order]
            tg.create_background_task(scene.waits(wait(tasks)))
            await turns()

    run(main)
    scene.assert_nothing_was_cut()


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
@pytest.mark.parametrize("wait", WAYS_FOR_TWO)
def test_calls_of_a_gather_that_wait_for_each_other(
    run: Run, wait: Callable[[Tasks], Awaitable[Any]], order: tuple[int, int]
) -> None:
    """C5: So it is where whoever gathers them is cancelled."""
    scene = Scene()

    async def main() -> None:
        async with TaskGroup() as tg:

            async def waits() -> None:
                await asyncio.sleep(0)
                await scene.waits(wait([task for task in tg.tasks if "cleans" in repr(task)]))

            calls = [scene.cleans_up(time) for time in order]
            caller = asyncio.create_task(tg.gather(*calls, waits()))
            await turns()
            caller.cancel()
            await asyncio.wait([caller])

    run(main)
    scene.assert_nothing_was_cut()


@pytest.mark.parametrize("who", ["body", "child"])
def test_who_waits_for_a_thread_and_a_child(run: Run, who: str) -> None:
    """C5: Who is cancelled when a thread has ended cuts no clean-up either, and is cancelled, also
    if it gets the end of the child as a result."""
    scene = Scene()

    async def main() -> None:
        has_begun = asyncio.Event()

        async def outlast() -> None:
            has_begun.set()
            await turns()

        def work() -> None:
            anyio.from_thread.run(outlast)

        async def thread_and(child: asyncio.Task[None]) -> None:
            thread = anyio.to_thread.run_sync(work)
            await asyncio.gather(thread, child, return_exceptions=True)

        async def fail() -> None:
            await has_begun.wait()
            raise ZeroDivisionError

        with pytest.RaisesGroup(ZeroDivisionError):
            async with TaskGroup() as tg:
                child = tg.create_task(scene.cleans_up(2))
                tg.create_task(fail())
                if who == "body":
                    await scene.waits(thread_and(child))
                else:
                    tg.create_task(scene.waits(thread_and(child)))

    run(main)
    assert scene.log == ["child 2", "waiter"]


def test_children_that_wait_for_each_other_in_a_circle(run: Run) -> None:
    """C9: Children that wait for each other, so that none of them is the first to end, are
    cancelled as `asyncio.TaskGroup` cancels them; so is who waits for one of them."""

    async def main() -> None:
        async with TaskGroup() as tg:
            tasks: Tasks = []

            async def waits(number: int) -> None:
                await asyncio.sleep(0)
                async with asyncio.TaskGroup() as inner:
                    inner.create_task(gather_with(tasks[number]))

            tasks += [tg.create_task(waits(number)) for number in (1, 2, 0)]
            tg.create_task(group_of_asyncio(tasks[0]))
            await turns()
            tg.cancel()

    async def gather_with(task: asyncio.Task[None]) -> None:
        await asyncio.gather(task, forever())

    run(main)


@pytest.mark.parametrize("who", ["body", "child"])
def test_who_waits_for_one_that_goes_on(run: Run, who: str) -> None:
    """C9: Who waits for a child that swallows its cancellation is cancelled when that has ended."""
    scene = Scene()

    async def swallows(task: asyncio.Task[None]) -> None:
        try:
            await group_of_asyncio(task)
        except asyncio.CancelledError:
            await turns()

    async def main() -> None:
        async with TaskGroup() as tg:
            child = tg.create_task(scene.cleans_up(1))
            waited_for = tg.create_task(swallows(child))
            tg.create_task(scene.cancels(tg))
            if who == "body":
                await scene.waits(waited_for)
            else:
                tg.create_task(scene.waits(waited_for))

    run(main)
    assert scene.log == ["child 1", "waiter"]


@pytest.mark.parametrize("is_background", [True, False])
def test_call_of_a_gather_that_waits_for_another_child(run_plain: Run, is_background: bool) -> None:
    """C10: It is cancelled at once with whoever gathers it: that child was not cancelled before."""

    async def main() -> None:
        async with TaskGroup() as tg:
            create = tg.create_background_task if is_background else tg.create_task
            child = create(asyncio.sleep(3600))
            caller = asyncio.create_task(tg.gather(group_of_asyncio(child)))
            await turns()
            caller.cancel()
            await asyncio.wait([caller])
            assert asyncio.get_running_loop().time() == 0

    run_plain(main)


def test_child_that_has_just_ended(run: Run) -> None:
    """C5: A child that ends as another one fails is not taken for one that still cleans up."""
    scene = Scene()

    async def main() -> None:
        event = asyncio.Event()

        async def fails() -> None:
            await event.wait()
            raise ZeroDivisionError

        async with TaskGroup() as tg:
            tg.create_task(fails())
            tasks = [tg.create_task(scene.cleans_up(2)), tg.create_task(await_event(event))]
            tg.create_task(scene.waits(gather_in_a_group(tasks)))
            await turns()
            event.set()

    async def await_event(event: asyncio.Event) -> None:
        await event.wait()

    with pytest.RaisesGroup(ZeroDivisionError):
        run(main)
    assert scene.log == ["child 2", "waiter"]


def test_body_that_is_cancelled_by_somebody_else_as_well(run: Run) -> None:
    """C10: A cancellation from outside is not taken for that of the group, though the body has been
    told by the end of a child."""

    async def cleans_up() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.002)

    async def body() -> None:
        async with TaskGroup() as tg:
            task = tg.create_task(cleans_up())
            asyncio.get_running_loop().call_later(0.001, tg.cancel)
            try:
                await wait_for(task)
            finally:
                is_told.set()
                await asyncio.sleep(3600)

    is_told = asyncio.Event()

    async def main() -> None:
        task = asyncio.create_task(body())
        await is_told.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main)


async def cancel_soon(tg: TaskGroup) -> None:
    await turns()
    tg.cancel()


@pytest.mark.parametrize("how", ["cleans up for long", "ends at once"])
@pytest.mark.parametrize("who", ["body", "child", "background task"])
def test_who_waits_for_several_children(run: Run, who: str, how: str) -> None:
    """C5: Whoever waits for several children is cancelled when the last of them has cleaned up, and
    not at all where the end of one of them has told it."""
    log: list[str] = []
    is_quick = how == "ends at once"

    async def cleans_up(name: str, seconds: float) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(seconds)
            log.append(name)

    async def waits(*tasks: asyncio.Task[None]) -> None:
        try:
            await asyncio.gather(*tasks)
        finally:
            await asyncio.sleep(0.02)
            log.append("waiter")

    async def main() -> None:
        async with TaskGroup() as tg:
            short = tg.create_task(cleans_up("short", 0.005))
            behind = tg.create_task(group_of_asyncio(short))
            other = tg.create_task(cleans_up("other", 0 if is_quick else 0.01))
            tg.create_task(cancel_soon(tg))
            if who == "body":
                await waits(behind, other)
            elif who == "child":
                tg.create_task(waits(behind, other))
            else:
                tg.create_background_task(waits(behind, other))
                await asyncio.sleep(3600)

    run(main)
    assert log == (["other", "short", "waiter"] if is_quick else ["short", "other", "waiter"])


def test_wait_for_a_child_that_is_about_to_begin(run: Run) -> None:
    """C6, C9: A group is cancelled also while its body waits in `asyncio.wait_for` for a child that
    has just got its slot, in a program that has used threads of anyio's."""

    async def main() -> None:
        async with TaskGroup(concurrency_limit=1) as tg:
            await asyncio.sleep(0)
            first = tg.create_task(asyncio.sleep(0.001))
            second = tg.create_task(asyncio.sleep(3600))
            first.add_done_callback(lambda _: tg.cancel())
            await asyncio.wait_for(second, 7200)

    run(main)


@pytest.mark.parametrize("wait", [await_, asyncio.gather])
@pytest.mark.parametrize("who", ["body", "child"])
def test_timeout_of_who_waits_for_a_clean_up(run: Run, who: str, wait: Wait) -> None:
    """C9: Whoever waits for a child that cleans up, and has a timeout for that, is cancelled when
    it goes on after the timeout, or with that."""
    log: list[str] = []

    async def cleans_up(seconds: float, first: Awaitable[Any]) -> None:
        try:
            await first
        finally:
            await asyncio.sleep(seconds)

    async def waits(task: asyncio.Task[None]) -> None:
        try:
            async with asyncio.timeout(0.02):
                await wait(task)
        except TimeoutError:
            log.append("timeout")
        await forever()

    async def main() -> None:
        async with TaskGroup() as tg:
            short = tg.create_task(cleans_up(0.005, asyncio.sleep(3600)))
            behind = tg.create_task(cleans_up(3600, group_of_asyncio(short)))
            tg.create_task(cancel_soon(tg))
            if who == "body":
                await waits(behind)
            else:
                tg.create_task(waits(behind))

    run(main)
    assert log == (["timeout"] if wait is await_ else [])


def test_message_of_who_is_cancelled_later(run: Run) -> None:
    """C9: A child that is cancelled when what it waits for has cleaned up gets the message of the
    first `cancel`, though there was another one meanwhile."""
    log: list[object] = []

    async def cleans_up() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0.001)

    async def waits(task: asyncio.Task[None]) -> None:
        try:
            await group_of_asyncio(task)
        except asyncio.CancelledError as error:
            log.append(error.args)
            raise

    async def main() -> None:
        async with TaskGroup() as tg:
            task = tg.create_task(cleans_up())
            tg.create_task(waits(task))
            await turns()
            tg.cancel("first")
            tg.cancel("second")

    run(main)
    assert log == [("first",)]


@pytest.mark.parametrize("why", ["body", "gather", "failure", "cancel"])
def test_who_awaits_a_child_that_cleans_up_since_before(run: Run, why: str) -> None:
    """C5: A child that cleans up is not cancelled again by who awaits it and is cancelled later: in
    a gather, with the group, or as the body of one that has failed before."""
    log: list[str] = []

    async def cleans_up(first: Awaitable[Any]) -> None:
        try:
            await first
        finally:
            await asyncio.sleep(0.02)
            log.append("cleaned up")

    async def fail_in(seconds: float) -> None:
        await asyncio.sleep(seconds)
        raise ZeroDivisionError

    async def gathers_for(seconds: float, tg: TaskGroup, child: asyncio.Task[None]) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await tg.gather(child)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with TaskGroup() as tg:
            if why == "body":
                loop.call_later(0.02, tg.cancel)
                tg.create_task(fail_in(0.01))
                await tg.create_task(cleans_up(tg.gather(forever())))
            child = tg.create_task(cleans_up(forever()))
            tg.create_task(gathers_for(0.01, tg, child))
            awaits = tg.create_task(await_(child))
            if why == "gather":
                tg.create_task(gathers_for(0.02, tg, awaits))
            elif why == "failure":
                tg.create_task(fail_in(0.02))
            else:
                loop.call_later(0.02, tg.cancel)

    with suppress(ExceptionGroup):
        run(main)
    assert log == ["cleaned up"]
