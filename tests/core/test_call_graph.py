"""Who waits for whom, as Python 3.14 and newer show it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from quattro_core import TaskGroup
from tests.core.conftest import Run
from tests.core.test_background import forever

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 14), reason="the call graph came with Python 3.14"
)

PROGRAM = """
import asyncio, sys
from quattro_core import TaskGroup

async def child():
    await asyncio.sleep(60)

async def parent():
    async with TaskGroup(concurrency_limit=1) as tg:
        tg.create_task(child(), name="running")
        tg.create_task(child(), name="waiting")
        tg.create_background_task(child(), name="pump")

async def main():
    task = asyncio.create_task(parent(), name="parent")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    print("ready", flush=True)
    await task

asyncio.run(main())
"""


@pytest.mark.parametrize("limit", [None, 1])
def test_children_are_awaited_by_their_parent(run: Run, limit: int | None) -> None:
    """C1: `asyncio.print_call_graph` shows of each child, running, waiting or in the background,
    that its parent waits for it, and of none any more when it has ended."""

    def parent_of(task: asyncio.Task[None]) -> list[object]:
        graph = asyncio.capture_call_graph(task)  # type: ignore[attr-defined,unused-ignore]
        assert graph is not None
        return [awaiter.future for awaiter in graph.awaited_by]

    async def main() -> None:
        parent = asyncio.current_task()
        async with TaskGroup(concurrency_limit=limit) as tg:
            tasks = [tg.create_task(forever()) for _ in range(2)]
            tasks.append(tg.create_background_task(forever()))
            assert [parent_of(task) for task in tasks] == [[parent]] * 3
            await asyncio.sleep(0)
            assert [parent_of(task) for task in tasks] == [[parent]] * 3
            for task in tasks:
                assert "forever" in asyncio.format_call_graph(task)  # type: ignore[attr-defined,unused-ignore]
            tg.cancel()
        assert [parent_of(task) for task in tasks] == [[]] * 3

    run(main)


def test_process_tree() -> None:
    """C1: `python -m asyncio pstree` shows the children of another process under their parent."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            command = [sys.executable, "-m", "asyncio", "pstree", str(process.pid)]
            tree = subprocess.run(command, capture_output=True, text=True, check=False)
        finally:
            process.kill()
    if tree.returncode and "ermission" in tree.stderr:
        pytest.skip(f"this system lets nobody look into a process: {tree.stderr.splitlines()[-1]}")
    assert tree.returncode == 0, tree.stderr
    depth = {}
    for line in tree.stdout.splitlines():
        indent, mark, name = line.partition("(T) ")
        if mark:
            depth[name] = len(indent)
    assert depth["running"] == depth["waiting"] == depth["pump"] > depth["parent"], tree.stdout
