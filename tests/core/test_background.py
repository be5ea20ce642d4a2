"""Background tasks, and the order of things at the exit."""

from __future__ import annotations

import asyncio

import pytest

from quattro_core import TaskGroup
from tests.core.conftest import Run


async def forever() -> None:
    """Wait for what never comes."""
    await asyncio.Event().wait()


def test_cancelled_at_exit(run: Run) -> None:
    """C2: a background task is cancelled when the group exits, not awaited to its end."""

    async def main() -> None:
        async with TaskGroup() as tg:
            task = tg.create_background_task(forever())
        assert task.cancelled()

    run(main)


def test_cleanup_is_awaited(run: Run) -> None:
    """C2: the clean-up of a background task is awaited: no task is alive after the group."""
    log = []

    async def pump() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0.002)
            log.append("pump closed")

    async def main() -> None:
        async with TaskGroup() as tg:
            tg.create_background_task(pump())
            await asyncio.sleep(0)
        log.append("group closed")

    run(main)
    assert log == ["pump closed", "group closed"]


def test_may_end_by_itself(run: Run) -> None:
    """C2: a background task that ends before the group is no concern of the exit."""

    async def main() -> None:
        async with TaskGroup() as tg:
            task = tg.create_background_task(asyncio.sleep(0, "done"))
            await asyncio.wait([task])
        assert task.result() == "done"

    run(main)


def test_ends_by_itself_while_a_child_is_awaited(run: Run) -> None:
    """C3: the exit goes on waiting for foreground children when the last background task ends."""

    async def main() -> None:
        async with TaskGroup() as tg:
            short = tg.create_background_task(asyncio.sleep(0.001, "short"))
            long = tg.create_task(asyncio.sleep(0.003, "long"))
        assert (short.result(), long.result()) == ("short", "long")

    run(main)


def test_child_relies_on_its_pump(run: Run) -> None:
    """C3: at exit, foreground children are awaited while background tasks still run (trap: pump
    cancelled before its users)."""

    async def main() -> None:
        requests: asyncio.Queue[asyncio.Future[str]] = asyncio.Queue()
        last: list[str] = []

        async def pump() -> None:
            while True:
                answer = await requests.get()
                await asyncio.sleep(0.001)
                answer.set_result("answer")

        async def ask() -> str:
            answer = asyncio.get_running_loop().create_future()
            requests.put_nowait(answer)
            return str(await answer)

        async def child() -> None:
            await asyncio.sleep(0.001)  # the body has ended by now
            for _ in range(3):
                last.append(await ask())

        async with TaskGroup() as tg:
            tg.create_background_task(pump())
            tg.create_task(child())
        assert last == ["answer"] * 3

    run(main)


def test_order_of_the_exit(run: Run) -> None:
    """C3: the body ends, then the last child, and only then background tasks are cancelled."""
    log = []

    async def pump() -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            log.append("pump cancelled")
            raise

    async def child(delay: float) -> None:
        await asyncio.sleep(delay)
        log.append(f"child {delay}")

    async def main() -> None:
        async with TaskGroup() as tg:
            tg.create_background_task(pump())
            tg.create_task(child(0.002))
            tg.create_task(child(0.004))
            await asyncio.sleep(0)
            log.append("body")
        log.append("after")

    run(main)
    assert log == ["body", "child 0.002", "child 0.004", "pump cancelled", "after"]


@pytest.mark.parametrize("pumps", [2, 5])
def test_pumps_are_cancelled_together(run: Run, pumps: int) -> None:
    """C2: background tasks are cancelled at once, not one after the other."""
    alive = 0

    async def pump() -> None:
        nonlocal alive
        try:
            await forever()
        finally:
            alive += 1
            await asyncio.sleep(0.001)
            assert alive == pumps, "the others were not cancelled yet"

    async def main() -> None:
        async with TaskGroup() as tg:
            for _ in range(pumps):
                tg.create_background_task(pump())
            await asyncio.sleep(0)

    run(main)
    assert alive == pumps


def test_swallowed_cancellation(run: Run) -> None:
    """C2: a background task that swallows its cancellation is awaited to its end all the same."""

    async def pump() -> str:
        try:
            await forever()
        except asyncio.CancelledError:
            await asyncio.sleep(0.002)
        return "stopped in its own time"

    async def main() -> None:
        async with TaskGroup() as tg:
            task = tg.create_background_task(pump())
            await asyncio.sleep(0)
        assert task.result() == "stopped in its own time"

    run(main)


def test_never_started(run_plain: Run) -> None:
    """C2: a background task that had no time to start is cancelled without a warning."""

    async def main() -> None:
        async with TaskGroup() as tg:
            task = tg.create_background_task(forever())
        assert task.cancelled()

    run_plain(main)


def test_cancelled_by_the_user(run: Run) -> None:
    """C2: cancelling a background task by hand ends it, and nothing else."""

    async def main() -> None:
        async with TaskGroup() as tg:
            pump = tg.create_background_task(forever())
            child = tg.create_task(asyncio.sleep(0.002, "unharmed"))
            await asyncio.sleep(0)
            pump.cancel()
        assert pump.cancelled()
        assert child.result() == "unharmed"

    run(main)
