"""The tasks of an app in the log, at a signal: even if the event loop is blocked."""

from __future__ import annotations

import faulthandler
import logging
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from typing import ClassVar

from quattro_web._app.run import AppRun
from quattro_web._tree.look import MOST, look_at
from quattro_web._tree.snapshot import AppTasks
from quattro_web._tree.text import blocks_of
from quattro_web._util.task_stacks import place_in_thread

logger = logging.getLogger("quattro_web")

# Seconds that an event loop gets to answer, before another thread looks at its tasks, and that each
# entry may take in the log.
PATIENCE = 1.0

# Seconds in which another signal is the same one again: at each, several pieces are written.
MERGED = 0.1

_THREAD = "quattro_web dump"
_STDERR = 2

_Entry = tuple[int, str]  # its level and text

# By which servers stop, and gunicorn's workers; those of faulthandler, and what the system sends.
_TAKEN = frozenset(
    {"SIGTERM", "SIGINT", "SIGQUIT", "SIGKILL", "SIGSTOP", "SIGCHLD", "SIGPIPE", "SIGABRT"}
    | {"SIGSEGV", "SIGFPE", "SIGBUS", "SIGILL"}
)


def checked_signal(number: object) -> int | None:
    """Return the number of a signal that was given as *dump_signal*, if it is one.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is no signal, or one that has another meaning, or if this platform has no
            signals for such.
    """
    if number is None:
        return None
    if isinstance(number, bool) or not isinstance(number, int):
        msg = f"dump_signal must be a signal such as signal.SIGUSR1 or None, got {number!r}"
        raise TypeError(msg)
    taken = {getattr(signal, name, None) for name in _TAKEN}
    if (
        number not in signal.valid_signals()
        or number in taken
        or not hasattr(faulthandler, "register")
    ):
        msg = f"dump_signal must be a signal with no other meaning, such as SIGUSR1, got {number!r}"
        raise ValueError(msg)
    return int(number)


class Dumping:
    """Logs the tasks of a run whenever the process gets a signal, in a `with` block.

    It is no generator: contextlib sets the traceback of what passes one.

    Args:
        number: The number of the signal; None means that there is none.
        run: The run.
    """

    def __init__(self, number: int | None, run: AppRun) -> None:
        self._dump = None if number is None else _Dump.of(number)
        self._run = run

    def __enter__(self) -> None:
        if self._dump is not None:
            self._dump.add(self._run)

    def __exit__(self, *_: object) -> None:
        if self._dump is not None:
            self._dump.remove(self._run)


class _Dump:
    """What one signal does, for all apps in the process that want it.

    A handler of Python's would run in the main thread when that comes to it, which may be the one
    that hangs. The handler of faulthandler runs at once, whatever the thread is in, and can do one
    thing: write to a file. That file is a pipe, and a thread reads it.
    """

    _of_signals: ClassVar[dict[int, _Dump]] = {}
    _lock: ClassVar = threading.Lock()

    def __init__(self, number: int) -> None:
        self._number = number
        self._runs: dict[AppRun, int] = {}  # each with its thread
        self._pid = 0
        self._reader = self._writer = -1
        os.register_at_fork(after_in_child=self._forget)

    @classmethod
    def of(cls, number: int) -> _Dump:
        with cls._lock:
            if number not in cls._of_signals:  # each one that is made is kept for a fork
                cls._of_signals[number] = cls(number)
            return cls._of_signals[number]

    def add(self, run: AppRun) -> None:
        with self._lock:
            self._runs[run] = threading.get_ident()
            if not self._pid:
                self._start()

    def remove(self, run: AppRun) -> None:
        with self._lock:
            self._runs.pop(run, None)
            if not self._runs and self._pid:
                self._stop()

    def _forget(self) -> None:
        """Let go of what the parent has, in a process that was forked off it: no thread reads."""
        if self._pid:
            self._pid = 0
            faulthandler.unregister(self._number)
            os.close(self._reader)
            os.close(self._writer)
        self._runs = {}

    def _start(self) -> None:
        self._reader, self._writer = os.pipe()
        # It would wait for its reader, who can't run while it does.
        os.set_blocking(self._writer, False)
        thread = threading.Thread(target=self._read, args=(self._reader,), name=_THREAD)
        thread.daemon = True
        thread.start()
        before = signal.getsignal(self._number)
        is_handled = before not in (signal.SIG_DFL, signal.SIG_IGN, None)
        faulthandler.register(self._number, self._writer, all_threads=False, chain=is_handled)
        self._pid = os.getpid()

    def _stop(self) -> None:
        self._pid = 0
        faulthandler.unregister(self._number)
        os.close(self._writer)  # which ends the thread

    def _read(self, reader: int) -> None:
        log = _Log()
        with suppress(OSError):
            while _read_all(reader):
                for run, thread in tuple(self._runs.items()):
                    log.write(_entries_of(run, thread))
        os.close(reader)


def _read_all(reader: int) -> bool:
    """Wait for a signal, and take in all that is written at it; tells if there was one."""
    os.set_blocking(reader, True)
    if not os.read(reader, 65536):
        return False
    time.sleep(MERGED)
    os.set_blocking(reader, False)
    with suppress(BlockingIOError):
        while os.read(reader, 65536):
            pass
    return True


class _Log:
    """The log, where a handler of it may be what hangs, and holds its lock.

    So a thread writes to it, and what that is not rid of in time goes to stderr.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None

    def write(self, entries: Iterable[_Entry]) -> None:
        left = deque(entries)
        if self._thread is None or not self._thread.is_alive():
            thread = self._thread = threading.Thread(target=_write, args=(left,), name=_THREAD)
            thread.daemon = True
            with suppress(RuntimeError):  # there can be no more threads
                thread.start()
                before = len(left) + 1
                while thread.is_alive() and len(left) < before:
                    before = len(left)
                    thread.join(PATIENCE)
        texts = [text for _, text in left]
        left.clear()
        if texts:
            _write_to_stderr(["the log is blocked, so this bypasses it:", *texts])


def _write(entries: deque[_Entry]) -> None:
    with suppress(IndexError):  # that was the last one, or somebody else has written the others
        while True:
            level, text = entries[0]
            logger.log(level, "%s", text)
            entries.popleft()


def _write_to_stderr(texts: Iterable[str]) -> None:
    data = "".join(f"{text}\n" for text in texts).encode(errors="backslashreplace")
    with suppress(OSError):
        # Not by `sys.stderr`, whose lock another thread may hold. So many bytes at once do not
        # wait for a reader.
        while data and select.select((), (_STDERR,), (), PATIENCE)[1]:
            data = data[os.write(_STDERR, data[: select.PIPE_BUF]) :]


def _entries_of(run: AppRun, thread: int) -> list[_Entry]:
    """Return what the log is told of a run."""
    entries: list[_Entry] = []
    try:
        tasks = _look_in_loop(run)
        if tasks is None:
            frame = sys._current_frames().get(thread)  # noqa: SLF001  # nothing else tells
            place = "its end" if frame is None else place_in_thread(frame)
            text = f"the event loop has not answered for {PATIENCE:g} s: it is at {place}"
            entries.append((logging.CRITICAL, text))
            tasks = look_at([run], MOST)
        blocks = blocks_of(tasks.as_dict())
        entries += [(logging.WARNING, "\n".join(line.text for line in block)) for block in blocks]
    except Exception:  # noqa: BLE001  # whatever it is, the log has it
        text = f"the tasks of the app could not be read\n{traceback.format_exc()}"
        entries.append((logging.ERROR, text))
    return entries


def _look_in_loop(run: AppRun) -> AppTasks | None:
    """Return the tasks of a run, by its event loop; None if that does not answer."""
    assert run.loop is not None
    found: Future[AppTasks] = Future()

    def look() -> None:
        if found.set_running_or_notify_cancel():
            try:
                found.set_result(look_at([run], MOST))
            except Exception as exc:  # noqa: BLE001  # it is raised where somebody waits for it
                found.set_exception(exc)

    with suppress(RuntimeError):  # it is closed
        run.loop.call_soon_threadsafe(look)
    try:
        return found.result(PATIENCE)
    except TimeoutError:
        found.cancel()
        return None
