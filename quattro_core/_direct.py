"""Which event loops make their tasks in asyncio's own way."""

from __future__ import annotations

from asyncio import AbstractEventLoop, BaseEventLoop, base_events

_CREATE_TASK = BaseEventLoop.create_task
# Somebody may have replaced it before we were imported.
_IS_OWN = _CREATE_TASK.__code__.co_filename == base_events.__file__


def is_direct(loop: AbstractEventLoop) -> bool:
    """Tell whether ``loop.create_task(coro, name=name)`` is asyncio's own.

    Without a task factory that is ``asyncio.Task(coro, loop=loop, name=name)`` after checks which a
    loop that runs here has passed. To leave them out makes a child two thousand instructions
    cheaper, which is one in twenty-five of all that it takes. A loop with its own (uvloop), or one
    that somebody has patched to look at tasks, is asked as ever.
    """
    return _IS_OWN and getattr(loop.create_task, "__func__", None) is _CREATE_TASK
