"""What the tests of the task tree share: something that never ends, and a way to find a task."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any

from quattro_web.tasks import AppTasks, RequestInfo, TaskInfo


class Stuck:
    """Something to be stuck in, until `free` is called."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self._end = asyncio.Event()

    async def wait(self) -> None:
        self.reached.set()
        await self._end.wait()

    def free(self) -> None:
        self._end.set()


def all_below(tasks: Iterable[TaskInfo | None]) -> Iterator[TaskInfo]:
    """Yield tasks, and all that are below them."""
    for task in tasks:
        if task is not None:
            yield task
            yield from all_below(task.children)


def request_to(tasks: AppTasks, path: str) -> RequestInfo:
    """Return the one request to a path."""
    [found] = [request for request in tasks.requests if request.path == path]
    return found


def named(tree: TaskInfo | None, name: str) -> TaskInfo:
    """Return the one task of a name, below another one."""
    [found] = [task for task in all_below([tree]) if task.name == name]
    return found


def names(tree: TaskInfo | None) -> Any:
    """Return the names of what is below a task, as nested dicts."""
    assert tree is not None
    return {child.name: names(child) for child in tree.children}
