"""A thread that ends the process when its shutdown does not end."""

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

from quattro_web._util.escaping import escaped
from quattro_web._util.task_stacks import coroutine_of, line_of_thread

logger = logging.getLogger("quattro_web")

# Seconds that the last line in the log may take: a handler of the log may hang as well.
LOGGING = 1.0

# Seconds that a server has at least, from the end of the app's lifespan until it ends itself.
SERVER_EXIT = 1.0

_THREAD = "quattro_web watchdog"


class Watchdog:
    """Ends the process some seconds after a shutdown has begun, if that has not ended.

    It counts in a thread, since a shutdown may hang in the event loop itself, in a task that
    ignores its cancellation, or in a thread: asyncio, the servers and the interpreter wait for all
    of these without end.

    It counts on when the app has ended: the event loop and the interpreter wait for every thread
    before they end. A process that ends in time takes it along. A process that lives on, such as a
    test or a program that does more than serve, is left alone.

    If there are several in a process, such as those of two apps, all wait for the longest.

    Args:
        seconds: How many.
        report: Returns what still runs, to be logged.
        loop: The event loop of the app.
    """

    _counting: ClassVar[list[Watchdog]] = []
    _is_logged: ClassVar = threading.Lock()

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
        self.has_app_ended = False
        self._is_first = threading.Lock()
        self._thread = threading.Thread(target=self._count, name=_THREAD, daemon=True)

    def start(self) -> None:
        """Begin to count; once is enough. Signal handlers and any thread may call this."""
        if self._is_first.acquire(blocking=False):
            self.deadline = time.monotonic() + self.seconds
            self._counting.append(self)
            self._thread.start()

    def app_has_ended(self) -> None:
        """Take note that the app has ended: now end only a process that hangs at its own end."""
        self.deadline = max(self.deadline, time.monotonic() + SERVER_EXIT)
        self.has_app_ended = True

    def _count(self) -> None:
        while (left := self._until - time.monotonic()) > 0:
            time.sleep(left)
        if not self.has_app_ended or self._is_at_end:
            self._end()
        else:
            self._counting.remove(self)

    @property
    def _until(self) -> float:
        """When its time is over, and that of each other app that has not ended."""
        return max(
            each.deadline
            for each in tuple(self._counting)
            if each is self or not each.has_app_ended
        )

    @property
    def _is_at_end(self) -> bool:
        """Whether the process waits for its threads, and for nothing else."""
        return _interpreter_ends() or (self._loop is not None and _loop_ends(self._loop))

    def _end(self) -> None:
        if not self._is_logged.acquire(blocking=False):
            return  # the watchdog of another app is at it
        try:
            with suppress(OSError):  # of a process that may open no more files
                # A clock of C's: Python 3.12 starts no thread any more when the interpreter ends.
                nowhere = os.open(os.devnull, os.O_WRONLY)
                faulthandler.dump_traceback_later(LOGGING, exit=True, file=nowhere)
            self._log()
        finally:
            os._exit(1)

    def _log(self) -> None:
        counting = tuple(self._counting)
        running = [line for each in counting for line in each.still_running()]
        logger.critical(
            "the shutdown has not ended within %g s, so the process exits now; still running: %s",
            max(each.seconds for each in counting),
            "; ".join([*running, *_threads()]),
        )
        logging.shutdown()

    def still_running(self) -> list[str]:
        """Return what still runs in its app, as far as another thread can see."""
        try:
            return self._report()
        except Exception as exc:  # noqa: BLE001  # it looks at what other threads change
            return [f"what could not be read: {exc!r}"]


def _loop_ends(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether a loop waits for the threads of its executor, as `asyncio.run` does at its end."""
    with suppress(RuntimeError):  # too many tasks come and go, so it does not
        return any(
            getattr(coroutine_of(task), "__name__", "") == "shutdown_default_executor"
            for task in asyncio.all_tasks(loop)
        )
    return False


def _interpreter_ends() -> bool:
    """Whether the main thread has nothing more to do than to wait for the others."""
    main = threading.main_thread()
    # It waits for executors before it says that it has ended: only the line at which it is tells.
    frame: FrameType | None = sys._current_frames().get(main.ident or 0)  # noqa: SLF001  # see above
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
        f"thread {escaped(thread.name)} ({line_of_thread(frames[thread.ident])})"
        for thread in threading.enumerate()
        if thread.ident in frames and thread.name != _THREAD
    ]
