"""A limit on concurrency that groups share."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from quattro_core._waiting import WaitingTask


class TooManyWaitingError(RuntimeError):
    """A `SharedLimit` is reached, and so is the number of children that may wait for it.

    .. versionadded:: 0.1
    """


class SharedLimit:
    """A limit on how many foreground children of several groups run at once.

    ::

        limit = SharedLimit(100, max_waiting=1000)

        async with TaskGroup(shared_limit=limit) as group: ...

    The others wait for their turn, first come, first served, whichever group they are of. It is
    for the groups of one event loop. A child that waits for a child of its own, in the same or
    another group with this limit, may wait for ever: all slots may be taken by those that wait.

    Args:
        total: How many may run at once.
        max_waiting: How many may wait; one more is a `TooManyWaitingError` of
            `TaskGroup.create_task`. None means no limit. Those that wait for the
            `concurrency_limit` of their own group don't count.

    Attributes:
        total: How many may run at once.
        max_waiting: How many may wait; None means no limit.

    Raises:
        TypeError: If *total* or *max_waiting* is not an int.
        ValueError: If *total* is below 1, or *max_waiting* is below 0.

    .. versionadded:: 0.1
    """

    __slots__ = ("_free", "_queue", "_waiting", "max_waiting", "total")

    def __init__(self, total: int, *, max_waiting: int | None = None) -> None:
        self.total: int = checked_limit("total", total, optional=False)
        self._free = self.total
        if max_waiting is not None:
            checked_limit("max_waiting", max_waiting, least=0)
        self.max_waiting: int | None = max_waiting
        self._queue: deque[WaitingTask[Any]] = deque()
        self._waiting = 0

    @property
    def running(self) -> int:
        """How many children have a slot.

        .. versionadded:: 0.1
        """
        return self.total - self._free

    @property
    def waiting(self) -> int:
        """How many children wait for one.

        .. versionadded:: 0.1
        """
        return self._waiting

    def __repr__(self) -> str:
        return f"<SharedLimit {self.running} of {self.total} running, {self._waiting} waiting>"

    # What the slots of groups call.

    def _check_room(self) -> None:
        """Raise TooManyWaitingError if nobody may wait any more."""
        if self.max_waiting is not None and self._waiting >= self.max_waiting:
            msg = (
                f"{self.running} children are running and {self._waiting} are waiting, which is "
                f"all that this SharedLimit allows: try again later, or raise max_waiting"
            )
            raise TooManyWaitingError(msg)

    def _take(self) -> bool:
        """Take a slot; tells whether there was one."""
        if self._free:
            self._free -= 1
            return True
        return False

    def _give_back(self) -> None:
        """Give a slot back that was not used."""
        self._free += 1

    def _wait(self, task: WaitingTask[Any]) -> None:
        """Let a child wait, behind those that wait already."""
        self._queue.append(task)
        self._waiting += 1

    def _hand_on(self, task: asyncio.Task[Any]) -> None:
        """Start the child whose turn it is, since *task* has ended."""
        if isinstance(task, WaitingTask) and not task.has_started:
            self._waiting -= 1  # it was cancelled while it waited
            if len(self._queue) > 2 * self._waiting + 16:
                self._queue = deque(each for each in self._queue if not each.done())
            return
        while self._queue:
            successor = self._queue.popleft()
            if not successor.done():
                self._waiting -= 1
                successor.start()
                return
        self._free += 1


def checked_limit(name: str, limit: object, *, least: int = 1, optional: bool = True) -> int:
    """Return a limit that was given as argument *name*, if it is one.

    Raises:
        TypeError: If it is not an int.
        ValueError: If it is below *least*.
    """
    if not isinstance(limit, int) or isinstance(limit, bool):
        msg = f"{name} must be an int{' or None' if optional else ''}, got {limit!r}"
        raise TypeError(msg)
    if limit < least:
        msg = f"{name} must be at least {least}, got {limit}"
        raise ValueError(msg)
    return limit
