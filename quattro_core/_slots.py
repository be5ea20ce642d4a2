"""The slots of a group with a limit."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from quattro_core._shared import SharedLimit
from quattro_core._waiting import WaitingTask


class Slots:
    """The slots of a group, handed out first come, first served; then those that groups share.

    Args:
        limit: How many slots the group has of its own. None means that it shares all of them.
        shared: The limit that it shares with others.
    """

    __slots__ = ("_free", "_shared", "_waiting")

    def __init__(self, limit: int | None, shared: SharedLimit | None) -> None:
        self._free: float = float("inf") if limit is None else limit
        self._shared = shared
        self._waiting: deque[WaitingTask[Any]] = deque()

    def take(self) -> bool:
        """Take a slot, of both kinds; tells whether there was one."""
        if self._free and (self._shared is None or self._shared._take()):
            self._free -= 1
            return True
        return False

    def give_back(self) -> None:
        """Give a slot back that was taken for a child that could not be made."""
        self._free += 1
        if self._shared is not None:
            self._shared._give_back()

    def check_room(self) -> None:
        """Raise TooManyWaitingError if the waiting room of the shared limit is full."""
        if self._free and self._shared is not None:
            self._shared._check_room()

    def wait(self, task: WaitingTask[Any]) -> bool:
        """Let a child wait; tells whether it has a slot of the group and waits for a shared one."""
        if self._free and self._shared is not None:
            self._free -= 1
            self._shared._wait(task)
            return True
        self._waiting.append(task)
        return False

    def hand_on(self, task: asyncio.Task[Any]) -> WaitingTask[Any] | None:
        """Hand on what *task* had: return the child of the group whose turn it is, if any.

        That child runs now, or waits for a shared slot from now on.
        """
        if self._shared is not None:
            self._shared._hand_on(task)
        while self._waiting:
            successor = self._waiting.popleft()
            if successor.done():  # it was cancelled while it waited
                continue
            if self._shared is None or self._shared._take():
                successor.start()
            else:
                self._shared._wait(successor)
            return successor
        self._free += 1
        return None

    def cancel(self, msg: object) -> None:
        """Cancel every child that waits here: their coroutines are closed and never start."""
        waiting, self._waiting = self._waiting, deque()
        for task in waiting:
            task.cancel(msg)
