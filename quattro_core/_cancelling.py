"""Cancellations of a task that are passed on, or taken in."""

from __future__ import annotations

import asyncio
import sys
from asyncio import CancelledError
from typing import Any


def cancel_again(task: asyncio.Task[Any]) -> None:
    """Deliver a cancellation anew, without counting it twice, if nobody has answered for it."""
    if task.cancelling() and not task.done():
        task.uncancel()
        task.cancel()


async def undelivered(task: asyncio.Task[Any]) -> CancelledError | None:
    """Take in a cancellation that the current task was asked for and has not met yet.

    From 3.13 on, uncancel() takes it back. Before, the first await after the group would raise it.
    """
    if sys.version_info < (3, 13) and getattr(task, "_must_cancel", False):
        try:
            await asyncio.sleep(0)
        except CancelledError as exc:
            return exc
    return None
