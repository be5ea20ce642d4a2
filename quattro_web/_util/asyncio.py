"""The current task and event loop, and what can be known about a cancellation."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from typing import Any, cast

# asyncio hands a cancellation on to what is awaited, and so it never ends where two tasks await
# each other. Nothing can cancel them: who tries it goes on with the others.
UNCANCELLABLE = suppress(RecursionError)


def current_task() -> asyncio.Task[Any]:
    """Return the current task, where there is one for sure."""
    return cast("asyncio.Task[Any]", asyncio.current_task())


def is_closed(task: asyncio.Task[Any]) -> bool:
    """Tell whether the coroutine of a task, which calls this, is being closed from outside.

    So it is when its event loop was closed before it has ended, and whoever does it may be anybody.
    """
    return current_loop() is None or asyncio.current_task() is not task


def is_cancelled() -> bool:
    """Tell whether the current task was asked to end. A CancelledError alone does not say so."""
    return bool(current_task().cancelling())


def is_ctrl_c(exc: BaseException) -> bool:
    """Tell whether this may be the user's Ctrl-C, which ends the program.

    Servers, and `asyncio.Runner`, have a handler of their own for it, which raises nothing: there,
    a KeyboardInterrupt is an error of the code that raises it.
    """
    return (
        isinstance(exc, KeyboardInterrupt)
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )


def current_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs; None in a thread without one, and under trio."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
