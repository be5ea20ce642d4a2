"""`TaskGroup.cancel()`: its message, and a child that is just being made."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from quattro_core import TaskGroup
from tests.core.conftest import Run
from tests.core.test_background import forever
from tests.core.test_cancel import assert_clean


@pytest.mark.parametrize("method", ["create_task", "create_background_task"])
@pytest.mark.parametrize("limit", [None, 1])
def test_cancel_while_a_child_is_made(run_plain: Run, method: str, limit: int | None) -> None:
    """C9: a task factory that cancels the group has its task cancelled; eager starts do that."""

    def factory(loop: Any, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
        for group in groups:
            group.cancel()
        return asyncio.Task(coro, loop=loop, **kwargs)

    groups: list[TaskGroup] = []

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(factory)
        async with TaskGroup(concurrency_limit=limit) as tg:
            groups.append(tg)
            task = getattr(tg, method)(forever())
            groups.clear()
        assert task.cancelled()
        await assert_clean()

    run_plain(main)


def test_message(run: Run) -> None:
    """C9: the message of cancel is in the CancelledError of children, body and waiting children."""
    seen = []

    async def child() -> None:
        try:
            await forever()
        except asyncio.CancelledError as error:
            seen.append(error.args)
            raise

    async def main() -> None:
        for entered in (True, False):
            group = TaskGroup(concurrency_limit=1)
            if not entered:
                group.cancel("why")
            async with group as tg:
                if entered:
                    tg.create_task(child())
                    waiting = tg.create_task(forever())
                    tg.create_background_task(child())
                    await asyncio.sleep(0)
                    assert len(tg.tasks) == 2
                    tg.cancel("why")
                await child()
        with pytest.raises(asyncio.CancelledError, match="why"):
            waiting.result()
        assert tg.tasks == ()

    run(main)
    assert seen == [("why",)] * 4
