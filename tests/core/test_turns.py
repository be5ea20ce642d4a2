"""When the turn of a child comes that waits for a slot, and what may go wrong then."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from quattro_core import SharedLimit, TaskGroup
from tests.core.conftest import Run
from tests.core.test_background import forever
from tests.support.clock import VirtualClockLoop

Options = dict[str, Any]
OWN: Callable[[], Options] = lambda: {"concurrency_limit": 2}  # noqa: E731  # typed
SHARED: Callable[[], Options] = lambda: {"shared_limit": SharedLimit(2)}  # noqa: E731  # typed
LIMITS = pytest.mark.parametrize("options", [OWN, SHARED], ids=["own", "shared"])


@LIMITS
def test_nobody_is_overtaken(run: Run, options: Callable[[], Options]) -> None:
    """C6: First come, first served: a child that is made when the turn of another one has just come
    does not start before it, also where tasks start at once."""
    started: list[int] = []

    async def child(key: int) -> None:
        started.append(key)
        await asyncio.sleep(1e-3 * key)

    async def main() -> None:
        async with TaskGroup(**options()) as tg:
            first, second = [tg.create_task(child(0)) for _ in range(2)]
            tg.create_task(child(3))
            # Both slots are given back in one turn of the loop; this runs behind that.
            done = asyncio.get_running_loop().create_future()
            second.add_done_callback(lambda _: tg.create_task(child(4)))
            second.add_done_callback(done.set_result)
            await done
            assert first.done()

    run(main)
    assert started == [0, 0, 3, 4]


@LIMITS
def test_child_is_the_current_task(run: Run, options: Callable[[], Options]) -> None:
    """C6: What `create_task` has returned is the child's `asyncio.current_task`."""

    async def child() -> asyncio.Task[Any] | None:
        await asyncio.sleep(0)
        return asyncio.current_task()

    async def main() -> None:
        async with TaskGroup(**options()) as tg:
            tasks = [tg.create_task(child) for _ in range(4)]
            tasks += [tg.create_task(child()) for _ in range(4)]
        assert [task.result() for task in tasks] == tasks

    run(main)


@LIMITS
def test_context_that_is_entered(run: Run, options: Callable[[], Options]) -> None:
    """C6: A child can wait in the context that its creator runs in."""
    variable = contextvars.ContextVar("variable", default="unset")

    async def write(value: str) -> None:
        variable.set(value)

    async def main() -> None:
        context = contextvars.copy_context()

        async def spawn() -> None:
            async with TaskGroup(**options()) as tg:
                for _ in range(2):
                    tg.create_task(asyncio.sleep(0.001))
                tg.create_task(write("written"), context=context)

        await asyncio.create_task(spawn(), context=context)
        assert context[variable] == "written"

    run(main)


@LIMITS
def test_cancelled_when_its_turn_has_come(run: Run, options: Callable[[], Options]) -> None:
    """C6: A child that is cancelled after its turn has come, and before it began, never starts; its
    slot is handed on."""
    started: list[int] = []

    async def child(key: int) -> None:
        started.append(key)

    async def main() -> None:
        async with TaskGroup(**options()) as tg:
            first, _ = [tg.create_task(forever()) for _ in range(2)]
            waiting = tg.create_task(child(3))
            last = tg.create_task(child(4))
            # Behind the group's own callback, which gives the turn to the one that waits.
            first.add_done_callback(lambda _: waiting.cancel())
            await asyncio.sleep(0)
            first.cancel()
            await last
            assert waiting.cancelled()
            tg.cancel()

    run(main)
    assert started == [4]


@LIMITS
def test_those_that_were_cancelled_are_forgotten(
    run_plain: Run, options: Callable[[], Options]
) -> None:
    """C6: Children that were cancelled while they waited are not kept until their turn."""

    async def main() -> None:
        async with TaskGroup(**options()) as tg:
            running = [tg.create_task(forever()) for _ in range(2)]
            children = [forever() for _ in range(100)]
            references = [weakref.ref(child) for child in children]
            waiting = [tg.create_task(child) for child in children]
            await asyncio.sleep(0)
            for task in waiting:
                task.cancel()
            await asyncio.sleep(0.001)
            children.clear()
            waiting.clear()
            del task
            gc.collect()
            left = [reference for reference in references if reference() is not None]
            assert len(left) < 50
            for task in running:
                task.cancel()

    run_plain(main)


@LIMITS
def test_free_slots_are_taken_at_once(run_eager: Run, options: Callable[[], Options]) -> None:
    """C6: When those whose turn had come have begun, a child of an eager task factory takes a free
    slot, and its first step, at once."""
    started: list[int] = []

    async def child(key: int) -> None:
        started.append(key)

    async def main() -> None:
        async with TaskGroup(**options()) as tg:
            for _ in range(2):
                tg.create_task(asyncio.sleep(0.001))
            await asyncio.wait([tg.create_task(child(1)), tg.create_task(child(2))])
            await asyncio.sleep(0.001)
            tg.create_task(child(3))
            started.append(4)

    run_eager(main)
    assert started == [1, 2, 3, 4]


@pytest.mark.parametrize("turns", [0, 1])
def test_waiting_room_of_a_cancelled_child(run: Run, turns: int) -> None:
    """C6: A child that is cancelled while it waits, before or after its task has run for the first
    time, makes room for another one that may wait."""

    async def main() -> None:
        limit = SharedLimit(1, max_waiting=1)
        async with TaskGroup(shared_limit=limit) as tg:
            tg.create_task(forever())
            for context in (None, contextvars.copy_context()):
                waiting = tg.create_task(forever(), context=context)
                for _ in range(turns):
                    await asyncio.sleep(0)
                assert limit.waiting == 1
                waiting.cancel()
                await asyncio.wait((waiting,))
                assert limit.waiting == 0
            tg.cancel()

    run(main)


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_child_that_waited_is_no_cycle(run_plain: Run, is_cancelled: bool) -> None:
    """C5: The task of a child that has waited for its turn goes when nobody holds it."""

    async def main() -> None:
        gc.disable()
        try:
            async with TaskGroup(concurrency_limit=1) as tg:
                tg.create_task(asyncio.sleep(0.001))
                task = tg.create_task(asyncio.sleep(0))
                await asyncio.sleep(0)
                if is_cancelled:
                    task.cancel()
                await asyncio.wait((task,))
                await asyncio.sleep(0)
                left = weakref.ref(task)
                del task
                assert left() is None
        finally:
            gc.enable()

    run_plain(main)


def test_tasks_that_run(run: Run) -> None:
    """C6: A child that waits, for either limit, is not among the `tasks` of its group."""

    async def main() -> None:
        limit, gate = SharedLimit(3), asyncio.Event()
        async with TaskGroup(shared_limit=limit) as other:
            other.create_task(forever())
            async with TaskGroup(concurrency_limit=3, shared_limit=limit) as tg:
                tasks: list[asyncio.Task[Any]] = [tg.create_task(gate.wait()) for _ in range(2)]
                tasks += [tg.create_task(forever()) for _ in range(3)]
                assert set(tg.tasks) == set(tasks[:2])
                gate.set()
                await asyncio.wait(tasks[:2])
                await asyncio.sleep(0)
                assert set(tg.tasks) == set(tasks[2:4])
                tg.cancel()
            other.cancel()

    run(main)


class DefectiveError(Exception):
    """What a loop raises that can't schedule a callback."""


class DefectiveLoop(VirtualClockLoop):
    """A loop that can't schedule the next callback that belongs to a turn."""

    is_defective = False

    def call_soon(  # type: ignore[override,unused-ignore]
        self, callback: Any, *args: Any, **options: Any
    ) -> Any:
        if self.is_defective and "Turn" in repr(args):
            self.is_defective = False
            raise DefectiveError
        return super().call_soon(callback, *args, **options)


@LIMITS
def test_error_at_a_turn_is_the_groups(run_plain: Run, options: Callable[[], Options]) -> None:
    """C4: Whatever goes wrong when a child that waits is to start aborts its group, and comes out
    of it; nothing hangs, and no child is left."""
    run_plain.factory = DefectiveLoop

    async def main() -> None:
        with pytest.raises(ExceptionGroup) as caught:
            async with TaskGroup(**options()) as tg:
                first = tg.create_task(asyncio.sleep(0.001))
                tasks = [tg.create_task(forever()) for _ in range(4)]
                await asyncio.sleep(0)
                asyncio.get_running_loop().is_defective = True  # type: ignore[attr-defined]
                await forever()
        assert [type(error) for error in caught.value.exceptions] == [DefectiveError]
        assert not first.cancelled()
        assert all(task.cancelled() for task in tasks)

    run_plain(main)


def test_error_at_a_turn_is_not_anothers(run_plain: Run) -> None:
    """C4: Where groups share a limit, the group of the child that can't start is aborted, and not
    that of the child whose slot it got; the slot is not lost."""
    run_plain.factory = DefectiveLoop

    async def main() -> None:
        limit = SharedLimit(1)

        async def unlucky() -> None:
            async with TaskGroup(shared_limit=limit) as tg:
                tg.create_task(forever())

        async with TaskGroup(shared_limit=limit) as tg:
            tg.create_task(asyncio.sleep(0.001))
            other = asyncio.create_task(unlucky())
            await asyncio.sleep(0)
            last = tg.create_task(asyncio.sleep(0, "last"))
            asyncio.get_running_loop().is_defective = True  # type: ignore[attr-defined]
            await asyncio.wait((other,))
        error = other.exception()
        assert isinstance(error, ExceptionGroup)
        assert isinstance(error.exceptions[0], DefectiveError)
        assert last.result() == "last"
        assert (limit.running, limit.waiting) == (0, 0)

    run_plain(main)


def test_error_at_a_turn_after_the_parent(run_plain: Run) -> None:
    """C4: Where the parent of the group has gone, it is logged, without a task to blame."""
    run_plain.factory = DefectiveLoop

    async def main() -> None:
        parent = asyncio.create_task(asyncio.sleep(0))
        group = TaskGroup(concurrency_limit=1).enter(parent)
        group.create_task(asyncio.sleep(0.001))
        waiting = group.create_task(forever())
        await parent
        asyncio.get_running_loop().is_defective = True  # type: ignore[attr-defined]
        await group.finish()
        assert waiting.cancelled()

    run_plain(main)
    (report,) = run_plain.reports
    run_plain.reports.clear()
    assert isinstance(report["exception"], DefectiveError)
    assert report["message"].startswith("a child has failed after <Task ")
    assert "task" not in report


@pytest.mark.parametrize("has_context", [False, True])
def test_many_that_are_cancelled_at_once(run: Run, has_context: bool) -> None:
    """C6: Children that are cancelled before their tasks have run leave no mark in a shared limit,
    however many they are."""

    async def main() -> None:
        limit = SharedLimit(2, max_waiting=60)
        for _ in range(3):
            with pytest.raises(ExceptionGroup):
                async with TaskGroup(shared_limit=limit) as tg:
                    for _ in range(60):
                        context = contextvars.copy_context() if has_context else None
                        tg.create_task(forever(), context=context)
                    raise ValueError
            assert (limit.running, limit.waiting) == (0, 0)

    run(main)


@LIMITS
@pytest.mark.parametrize("has_context", [False, True])
@pytest.mark.parametrize("turns", range(4))
def test_task_that_has_not_run_yet_waits_for_its_turn(
    run: Run, options: Callable[[], Options], has_context: bool, turns: int
) -> None:
    """C6: First come, first served, also where a child comes in the turn of the event loop in which
    others end, and its task has not run yet."""
    started: list[int] = []

    async def child(key: int) -> None:
        started.append(key)

    async def main() -> None:
        gate = asyncio.Event()
        async with TaskGroup(**options()) as tg:
            for _ in range(2):
                tg.create_task(gate.wait())
            tg.create_task(child(1))
            await asyncio.sleep(0.001)
            gate.set()
            for _ in range(turns):
                await asyncio.sleep(0)
            tg.create_task(child(2), context=contextvars.copy_context() if has_context else None)
            tg.create_task(child(3))

    run(main)
    assert started == [1, 2, 3]


def test_context_that_somebody_else_enters(run_plain: Run) -> None:
    """C4: The end of a child that has waited reaches its group, though another thread is in the
    child's context at that moment."""

    async def main() -> None:
        context = contextvars.copy_context()
        inside, leave = threading.Event(), threading.Event()

        def stay() -> None:
            inside.set()
            leave.wait(20)

        def enter() -> None:
            thread.start()
            inside.wait(20)

        async def child() -> None:
            asyncio.get_running_loop().call_soon(enter)  # between its end and the callbacks

        thread = threading.Thread(target=context.run, args=(stay,))
        async with TaskGroup(concurrency_limit=1) as tg:
            tg.create_task(asyncio.sleep(0.001))
            task = tg.create_task(child(), context=context)
            await asyncio.wait((task,))
            leave.set()
            thread.join()

    run_plain(main)


@pytest.mark.parametrize("how", ["child", "group", "body"])
def test_cancelled_children_leave_no_cycles(run_plain: Run, how: str) -> None:
    """C5: Nothing is left to the garbage collector of children that were cancelled while they
    waited."""

    async def group() -> None:
        async with TaskGroup(concurrency_limit=1) as tg:
            tg.create_task(forever())
            waiting = [tg.create_task(forever()) for _ in range(20)]
            await asyncio.sleep(0)
            if how == "child":
                for task in waiting:
                    task.cancel()
                await asyncio.wait(waiting)
                del task
            del waiting
            if how == "body":
                raise ValueError
            tg.cancel()

    async def main() -> None:
        gc.collect()
        gc.disable()
        try:
            try:
                await group()
            except* ValueError:
                assert how == "body"
            await asyncio.sleep(0)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            left = [each for each in gc.garbage if type(each).__name__ in ("_Begun", "Turn")]
            assert left == []
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()

    run_plain(main)


def test_nobody_else_runs_a_waiting_child(run_plain: Run) -> None:
    """C6: A child that waits for its turn begins with that, and not as somebody awaits what its
    task runs: that is an error, which says what to await."""

    async def main() -> None:
        async with TaskGroup(concurrency_limit=1) as tg:
            tg.create_task(asyncio.sleep(0.001))
            task: Any = tg.create_task(asyncio.sleep(0.001, "done"))
            with pytest.raises(RuntimeError, match="is run by its task: await that"):
                await task.get_coro()
            assert await task == "done"

    run_plain(main)


def test_anyio_looks_at_what_tasks_wait_for() -> None:
    """C10: anyio's `wait_all_tasks_blocked` takes a child that waits for blocked."""
    anyio = pytest.importorskip("anyio")

    async def main() -> None:
        async with TaskGroup(concurrency_limit=1) as tg:
            tg.create_task(forever())
            tg.create_task(forever())
            await asyncio.sleep(0)
            await anyio.wait_all_tasks_blocked()
            tg.cancel()

    asyncio.run(main())


@pytest.mark.skipif(sys.version_info < (3, 14), reason="eager_start came with Python 3.14")
@pytest.mark.parametrize("limit", [None, 1])
def test_child_that_starts_at_once_cannot_finish_its_group(
    run_plain: Run, limit: int | None
) -> None:
    """C4: A child that was started at once by `eager_start` can't wait for its own end."""

    async def main() -> None:
        async with TaskGroup(concurrency_limit=limit) as tg:

            async def child() -> None:
                with pytest.raises(RuntimeError, match="can't wait for the end"):
                    await tg.finish()

            tg.create_task(child(), eager_start=True)

    run_plain(main)


@pytest.mark.parametrize("meanwhile", ["nothing", "cancel", "another"])
def test_slot_that_is_free_before_a_task_has_run(run: Run, meanwhile: str) -> None:
    """C4, C6: Where a slot becomes free before the task of the first in the queue has run, that one
    gets it; if it is cancelled, the next one does, and who comes meanwhile is behind them."""
    started: list[int] = []

    async def child(key: int) -> None:
        started.append(key)

    async def main() -> None:
        async with TaskGroup(concurrency_limit=1) as tg:
            first = tg.create_task(forever())
            await asyncio.sleep(0)
            waiting: list[asyncio.Task[None]] = []

            def act(_: object) -> None:
                if meanwhile == "cancel":
                    waiting[0].cancel()
                elif meanwhile == "another":
                    tg.create_task(child(3))

            first.add_done_callback(act)  # behind the group's own, which gives the slot back
            first.cancel()
            await asyncio.sleep(0)
            waiting.append(tg.create_task(child(1), context=contextvars.copy_context()))
            if meanwhile == "cancel":
                waiting.append(tg.create_task(child(2)))

    run(main)
    assert started == {"nothing": [1], "cancel": [2], "another": [1, 3]}[meanwhile]
