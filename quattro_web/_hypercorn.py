"""What is special about the worker processes of hypercorn."""

from __future__ import annotations

import multiprocessing
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
    """

    def __init__(self, event: Any) -> None:
        self._event = event

    @property
    def is_shutting_down(self) -> bool:
        """Whether its parent has told it to shut down."""
        return bool(self._event.is_set())

    def hold_out(self) -> None:
        """Let the worker end its shutdown, though its parent terminates it meanwhile."""
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._ignore)

    def _ignore(self, number: int, _frame: FrameType | None) -> None:
        if not self.is_shutting_down:  # somebody means it: as without a handler
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


def hypercorn_worker() -> HypercornWorker | None:
    """Return this process, if it is a worker of hypercorn."""
    arguments = getattr(multiprocessing.current_process(), "_kwargs", None) or {}
    event = arguments.get("shutdown_event")
    return HypercornWorker(event) if callable(getattr(event, "is_set", None)) else None
