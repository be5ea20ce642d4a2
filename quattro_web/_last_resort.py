"""The end of a shutdown that does not end."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable

from quattro_web._where import line_of

logger = logging.getLogger("quattro_web")


class LastResort:
    """Ends the process after some seconds, unless it is called off.

    It runs in a thread, since what keeps a shutdown from ending may be the event loop itself, a
    task that answers no cancellation, or a thread: asyncio, the servers and the interpreter all
    wait for these without end.

    Args:
        seconds: After how many.
        report: Returns what still runs, to be logged.
    """

    def __init__(self, seconds: float, report: Callable[[], list[str]]) -> None:
        self._seconds = seconds
        self._report = report
        self._called_off = threading.Event()
        self._thread = threading.Thread(target=self._wait, name="quattro_web", daemon=True)

    def start(self) -> None:
        """Begin to count."""
        self._thread.start()

    def call_off(self) -> None:
        """Let the process live on."""
        self._called_off.set()

    def _wait(self) -> None:
        if self._called_off.wait(self._seconds):
            return
        try:
            logger.critical(
                "the shutdown has not ended within %g s, so the process is ended as it is; "
                "still running: %s",
                self._seconds,
                "; ".join([*self._report(), *_threads()]),
            )
            logging.shutdown()
        finally:
            os._exit(1)


def _threads() -> list[str]:
    """Return where each thread but this one is."""
    frames = sys._current_frames()  # noqa: SLF001  # there is nothing else that tells
    return [
        f"thread {thread.name} ({line_of(frames[thread.ident])})"
        for thread in threading.enumerate()
        if thread.ident in frames and thread is not threading.current_thread()
    ]
