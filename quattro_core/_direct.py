"""Which event loops make their tasks in asyncio's own way.

Without a task factory, ``loop.create_task(coro, name=name)`` of asyncio is
``asyncio.Task(coro, loop=loop, name=name)`` after checks which a loop that runs here has passed. To
leave them out makes a child two thousand instructions cheaper, one in twenty-five of all that it
takes. A loop with its own (uvloop), or one that somebody has patched to look at tasks, is asked as
ever.
"""

from __future__ import annotations

from asyncio import BaseEventLoop, base_events

_create_task = BaseEventLoop.create_task
# Somebody may have replaced it before we were imported: then no loop has asyncio's own.
_is_own = _create_task.__code__.co_filename == base_events.__file__

ASYNCIOS_CREATE_TASK: object = _create_task if _is_own else object()
