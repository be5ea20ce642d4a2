"""Children that end in the first step of an eager task: asking one for its coroutine may crash."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PROGRAM = """
import asyncio

from quattro_core import TaskGroup


class Group(TaskGroup):
    def _cancel_child(self, task):
        task.get_coro()  # as a group of a request does
        super()._cancel_child(task)


async def fail():
    raise ValueError


async def fail_with(item):
    raise ValueError


async def main(create):
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    try:
        async with Group(concurrency_limit=3) as group:
            create(group)
            repr(group.tasks)
            await asyncio.sleep(1)
    except ExceptionGroup:
        print("failed")


def foreground(group):
    group.create_task(fail())
    group.create_task(fail())


def background(group):
    group.create_background_task(fail())
    group.create_background_task(fail())


asyncio.run(main(foreground))
asyncio.run(main(background))
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_children_that_fail_at_once() -> None:
    """C10: Children that fail in the first step of an eager task are failures like any other; on
    Python 3.12.1 the process was ended by signal 11 (cpython 122332)."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "failed\nfailed\n"), ended.stderr
