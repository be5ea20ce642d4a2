"""hypercorn's worker processes, which an event notifies of a shutdown, instead of a signal."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from types import FrameType
from typing import Any


class HypercornWorker:
    """A worker process of hypercorn (measured on 0.18).

    It takes no signals: its parent process sets an event, which the worker polls. That event is an
    argument of the worker, and nothing public leads to it. And as soon as one worker has ended its
    shutdown, the parent terminates the others in the middle of theirs.

    Args:
        event: The event.
        parent: The process id of its parent.
    """

    def __init__(self, event: Any, parent: int) -> None:
        self._event = event
        self._process = os.getpid()
        self.parent = parent

    @property
    def is_shutting_down(self) -> bool:
        """Whether its parent has told it to shut down."""
        return bool(self._event.is_set())

    def ignore_sigterm(self) -> None:
        """Let the worker end its shutdown, though its parent terminates it meanwhile."""
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._ignore)

    def _ignore(self, number: int, _frame: FrameType | None) -> None:
        # Somebody means it, or another process that was forked off: as without a handler.
        if not self.is_shutting_down or os.getpid() != self._process:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


def hypercorn_worker() -> HypercornWorker | None:
    """Return this process, if it is a worker of hypercorn, and not just made in the same way."""
    process, parent = multiprocessing.current_process(), multiprocessing.parent_process()
    module = str(getattr(getattr(process, "_target", None), "__module__", ""))
    if parent is None or parent.pid is None or module.partition(".")[0] != "hypercorn":
        return None
    event = (getattr(process, "_kwargs", None) or {}).get("shutdown_event")
    return HypercornWorker(event, parent.pid) if callable(getattr(event, "is_set", None)) else None
