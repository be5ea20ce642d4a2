"""The end of a shutdown that does not end."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import ClassVar

from quattro_web._where import line_of

logger = logging.getLogger("quattro_web")

# Seconds that the last line in the log may take: a handler of the log may hang as well.
TELLING = 1.0

# Seconds that a server has at least, from the end of the app's lifespan until it is at its own end.
LEAVING = 1.0

_THREAD = "quattro_web last resort"


class LastResort:
    """Ends the process some seconds after a shutdown has begun, if that has not ended.

    It counts in a thread, since what keeps a shutdown from ending may be the event loop itself, a
    task that answers no cancellation, or a thread: asyncio, the servers and the interpreter all
    wait for these without end.

    The end of the app is not the end of it: a thread that nobody knows of any more is waited for
    when the event loop or the interpreter ends. So it counts on, and a process that ends takes it
    along. One that lives on, as that of a test or of a program that has more to do than to serve,
    is left alone.

    Several in a process, such as those of two apps, wait for the one that counts longest.

    Args:
        seconds: After how many.
        report: Returns what still runs, to be logged.
        loop: The event loop of the app.
    """

    _counting: ClassVar[list[LastResort]] = []
    _is_told: ClassVar = threading.Lock()

    def __init__(
        self,
        seconds: float,
        report: Callable[[], list[str]],
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.seconds = seconds
        self._report = report
        self._loop = loop
        self.deadline = 0.0
        self.is_over = False
        self._is_first = threading.Lock()
        self._thread = threading.Thread(target=self._count, name=_THREAD, daemon=True)

    def start(self) -> None:
        """Begin to count; once is enough. Signal handlers and any thread may call this."""
        if self._is_first.acquire(blocking=False):
            self.deadline = time.monotonic() + self.seconds
            self._counting.append(self)
            self._thread.start()

    def app_has_ended(self) -> None:
        """Know that the app has ended with all that was its own: end only what hangs after it."""
        self.deadline = max(self.deadline, time.monotonic() + LEAVING)
        self.is_over = True

    def _count(self) -> None:
        while (left := self._until - time.monotonic()) > 0:
            time.sleep(left)
        if not self.is_over or self._is_at_end:
            self._end()
        else:
            self._counting.remove(self)

    @property
    def _until(self) -> float:
        """When its time is over, and that of each other app that has not ended."""
        return max(
            each.deadline for each in tuple(self._counting) if each is self or not each.is_over
        )

    @property
    def _is_at_end(self) -> bool:
        """Whether the process waits for its threads, and for nothing else."""
        return _interpreter_ends() or (self._loop is not None and _loop_ends(self._loop))

    def _end(self) -> None:
        if not self._is_told.acquire(blocking=False):
            return  # that of another app is at it
        try:
            with suppress(OSError):  # of a process that may open no more files
                # A clock of C's: Python 3.12 starts no thread any more when the interpreter ends.
                nowhere = os.open(os.devnull, os.O_WRONLY)
                faulthandler.dump_traceback_later(TELLING, exit=True, file=nowhere)
            self._tell()
        finally:
            os._exit(1)

    def _tell(self) -> None:
        counting = tuple(self._counting)
        running = [line for each in counting for line in each.what_runs()]
        logger.critical(
            "the shutdown has not ended within %g s, so the process is ended as it is; "
            "still running: %s",
            max(each.seconds for each in counting),
            "; ".join([*running, *_threads()]),
        )
        logging.shutdown()

    def what_runs(self) -> list[str]:
        """Return what still runs in its app, as far as that can be told from another thread."""
        try:
            return self._report()
        except Exception as exc:  # noqa: BLE001  # it looks at what other threads change
            return [f"what could not be told: {exc!r}"]


def _loop_ends(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether a loop waits for the threads of its executor, as `asyncio.run` does at its end."""
    with suppress(RuntimeError):  # too many tasks come and go, so it does not
        return any(
            getattr(task.get_coro(), "__name__", "") == "shutdown_default_executor"
            for task in asyncio.all_tasks(loop)
        )
    return False


def _interpreter_ends() -> bool:
    """Whether the main thread has nothing more to do than to wait for the others."""
    main = threading.main_thread()
    # It waits for executors before it says that it has ended: only the line at which it is tells.
    frame: FrameType | None = sys._current_frames().get(main.ident or 0)  # noqa: SLF001
    while frame is not None:
        code, module = frame.f_code, frame.f_globals.get("__name__")
        if code.co_name == "_shutdown" and module == "threading":
            return True
        frame = frame.f_back
    return not main.is_alive()


def _threads() -> list[str]:
    """Return where each thread but our own is."""
    frames = sys._current_frames()  # noqa: SLF001  # there is nothing else that tells
    return [
        f"thread {thread.name} ({line_of(frames[thread.ident])})"
        for thread in threading.enumerate()
        if thread.ident in frames and thread.name != _THREAD
    ]
