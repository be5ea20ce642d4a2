"""The signals that notify an app of its shutdown, and that ask its server for one.

A server lets its requests finish before it ends the lifespan, so a stream that waits for the
lifespan's shutdown waits for itself. The signal comes first.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from types import FrameType
from typing import Any

from quattro_web._shutdown.hypercorn import HypercornWorker, hypercorn_worker
from quattro_web._shutdown.servers import Server, ServerWatch
from quattro_web._shutdown.state import Shutdown
from quattro_web._shutdown.test_hook import AppTestHook
from quattro_web._shutdown.watchdog import Watchdog

logger = logging.getLogger("quattro_web")

# By which every server stops, and by which gunicorn's workers do as well. A handler of any other
# signal is the app's own, such as one that writes the stacks of all threads.
SIGNALS = ("SIGTERM", "SIGINT", "SIGBREAK")
SIGNALS_OF_GUNICORN = (*SIGNALS, "SIGQUIT")

# The number where there is no signal, as in a worker of hypercorn or an embedded server.
NO_SIGNAL = 0

# Seconds between two looks at hypercorn's event; hypercorn itself looks as often.
POLL = 0.1

# Seconds in which another signal is the same one again: a Ctrl-C reaches a worker from the
# terminal, and once more, as another signal, from its parent.
ECHO = 2.0

Handler = Callable[[int, FrameType | None], Any]


class ShutdownSignals:
    """Begins an app's shutdown at the first signal, and skips its grace periods at the second.

    Where the server stops without a signal, it begins as soon as that is seen or said.

    Args:
        shutdown: The shutdown.
        begin: Begins it.
        report: Returns what still runs, for the log.
        test_hook: The test that takes the place of the server and its signals, if there is one.
    """

    def __init__(
        self,
        shutdown: Shutdown,
        begin: Callable[[], object],
        report: Callable[[], list[str]],
        test_hook: AppTestHook[Any] | None = None,
    ) -> None:
        self._test_hook = test_hook
        self._shutdown = shutdown
        self._begin = begin
        self._report = report
        self._listener: SignalListener | None = None
        self._watchdog: Watchdog | None = None
        self._watch: ServerWatch | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._first: int | None = None
        self._is_ours = False

    def listen(self) -> None:
        """Begin to listen to the signals of the process, and to watch the server."""
        self._loop = asyncio.get_running_loop()
        if self._test_hook is not None:
            self._test_hook.add_signal_callback(self._on_test_signal)
            return
        seconds = self._shutdown.grace.total
        if seconds is not None:
            self._watchdog = Watchdog(seconds, self._report, self._loop)
        self._listener = SignalListener(self._on_signal, self._start_watchdog)
        self._listener.start()
        self._watch = ServerWatch(self._on_announcement)
        self._watch.start()

    def announce(self) -> None:
        """Begin the shutdown without a signal; any thread may call this."""
        self.shutdown_begins()
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._on_announcement, context=Context())

    def stop_server(self) -> bool:
        """Ask the server to stop, and know that its signal is ours. Tells if there is one."""
        if self._test_hook is not None:
            self._is_ours = True
            self._test_hook.signal()
            return False
        self._is_ours = self._listener is not None and self._listener.has_server
        return stop_server(self.server)

    @property
    def server(self) -> Server | None:
        """The server, as far as its tasks show it in this event loop."""
        return None if self._watch is None else self._watch.find()

    def shutdown_begins(self) -> None:
        """Start the watchdog, also where no signal came: under a server a shutdown is bounded.

        A test client has all the time that it takes.
        """
        if self._has_server:
            self._start_watchdog()

    def close(self, *, all_has_ended: bool) -> None:
        """Listen no more.

        Args:
            all_has_ended: Whether nothing was given up. Else the server may wait for it, and the
                watchdog ends the process in any case.
        """
        if self._test_hook is not None:
            self._test_hook.remove_signal_callback(self._on_test_signal)
        if self._listener is not None:
            self._listener.stop()
        if self._watch is not None:
            self._watch.stop()
        if self._watchdog is not None and all_has_ended:
            self._watchdog.app_has_ended()

    @property
    def _has_server(self) -> bool:
        """Whether the process is that of a server: one in another thread may end at any time."""
        if self._listener is None or self._watch is None:
            return False
        return self._listener.has_server or self._watch.is_in_main_thread

    def _on_announcement(self) -> None:
        if not self._shutdown.has_begun:
            self._on_signal(NO_SIGNAL)

    def _on_signal(self, number: int) -> None:
        self._begin()
        if self._is_ours:
            self._is_ours = False
        elif self._first is None:
            self._first = number
        elif number != NO_SIGNAL and (number == self._first or self._shutdown.age > ECHO):
            self._shutdown.skip_grace()

    def _on_test_signal(self) -> None:
        self._on_signal(signal.SIGTERM)

    def _start_watchdog(self) -> None:
        if self._watchdog is not None:
            self._watchdog.start()


class SignalListener:
    """Calls back at each signal that the server gets.

    Args:
        on_signal: Called in the event loop, with the number of the signal.
        at_once: Called before that in any thread, also while the event loop is blocked.
    """

    def __init__(self, on_signal: Callable[[int], None], at_once: Callable[[], None]) -> None:
        self._on_signal = on_signal
        self._at_once = at_once
        self._loop = asyncio.get_running_loop()
        # A signal interrupts whatever request happens to run, whose context has its trace.
        self._context = copy_context()
        self._stopped = threading.Event()
        self._handlers: list[_ChainedHandler] = []
        self.has_server = False

    def start(self) -> None:
        """Begin to listen. In another thread than the main one there are no signals."""
        worker = hypercorn_worker()
        if worker is not None:
            worker.ignore_sigterm()
            poll = threading.Thread(
                target=self._poll, args=(worker,), name="quattro_web signals", daemon=True
            )
            poll.start()
        self.has_server = worker is not None or server_handler(signal.SIGTERM) is not None
        # A worker of hypercorn stops by none: the SIGTERM that it ignores would skip the grace.
        for number in stopping_signals() if worker is None else ():
            handler = server_handler(number)
            if handler is not None:
                owner = getattr(handler, "__self__", None)
                if not isinstance(owner, _ChainedHandler):
                    owner = _ChainedHandler(number, handler)
                owner.add(self)
                self._handlers.append(owner)

    def stop(self) -> None:
        """Listen no more."""
        for handler in self._handlers:
            handler.remove(self)
        self._stopped.set()

    def notify(self, number: int) -> None:
        """Call back, from a signal handler or a thread."""
        self._at_once()
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._on_signal, number, context=self._context)

    def _poll(self, worker: HypercornWorker) -> None:
        while not self._stopped.wait(POLL):
            if worker.is_shutting_down:
                self.notify(NO_SIGNAL)
                return


class _ChainedHandler:
    """Our handler of one signal, in front of a server's, as long as anybody listens.

    There may be several of them: a second server in the process installs its handler over ours,
    and puts ours back at its end. Each knows the handler that it has replaced, so that each server
    gets its signals as it does without us.

    Args:
        number: The signal.
        replaced: The handler that the signal has.
    """

    def __init__(self, number: int, replaced: Handler) -> None:
        self._number = number
        self._replaced = replaced
        self._listeners: list[SignalListener] = []
        self._process = os.getpid()
        signal.signal(number, self._handle)

    def add(self, listener: SignalListener) -> None:
        self._listeners.append(listener)

    def remove(self, listener: SignalListener) -> None:
        if listener in self._listeners:
            self._listeners.remove(listener)
        in_main = threading.current_thread() is threading.main_thread()
        # Else the server has put back its own, or another one has installed one over ours.
        if not self._listeners and in_main and signal.getsignal(self._number) == self._handle:
            signal.signal(self._number, _still_valid(self._replaced))

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # A process that was forked off has the handler as well, and is no server.
        if os.getpid() == self._process:
            for listener in tuple(self._listeners):
                listener.notify(number)
        self._replaced(number, frame)


def _still_valid(handler: Handler) -> Handler:
    """Return a handler to put back; Python's own for that of an `asyncio.Runner` which has ended.

    A runner puts back Python's only where it finds its own, and not if ours is in its place.
    """
    task = getattr(handler, "keywords", {}).get("main_task")
    is_over = isinstance(task, asyncio.Task) and task.done()
    return signal.default_int_handler if is_over else handler


def stop_server(server: Server | None = None) -> bool:
    """Ask the server that runs this app for a graceful shutdown.

    Args:
        server: The server, if it runs in the event loop of the app.

    Returns:
        Whether there was a server to ask; there is none under a test client.

    A signal is what servers have in common, and whom to send it to is what they differ in
    (measured on uvicorn 0.54, hypercorn 0.18, granian 2.8): a process whose server has installed a
    handler for SIGTERM may raise it in itself, and the workers of uvicorn, gunicorn and granian
    all have one. A worker of hypercorn has not, and would be killed by it before the lifespan's
    shutdown, but its parent is the server. No other parent is ever signalled: it may be a test's,
    or whoever launched the server.

    Where the app runs in another thread, the handler of the signal may be anybody's.
    """
    worker = hypercorn_worker()
    if worker is not None:
        os.kill(worker.parent, signal.SIGTERM)
        return True
    if server_handler(signal.SIGTERM) is not None:
        signal.raise_signal(signal.SIGTERM)
        return True
    if server is not None:
        server.stop()
        return True
    logger.critical(
        "the server could not be asked to stop, so the app keeps running: the server is not "
        "a known one, and either it does not run in the main thread, or nothing in this process "
        "handles SIGTERM. End it yourself when app_health(app) says that the app is not ready, or "
        "/readyz (health_routes) answers 503"
    )
    return False


def stopping_signals() -> tuple[int, ...]:
    """Return the signals by which the server that runs this app stops.

    A server is below the task that asks for it, on the stack of its thread.
    """
    names: tuple[str, ...] = SIGNALS
    frame = inspect.currentframe()
    while frame is not None:
        if str(frame.f_globals.get("__name__")).partition(".")[0] == "gunicorn":
            names = SIGNALS_OF_GUNICORN
        frame = frame.f_back
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


def server_handler(number: int) -> Handler | None:
    """Return the handler of a signal, if it may be that of the server that runs this app.

    Servers install their handlers before they start the app, and signals reach the main thread
    only. asyncio.run() and loop.add_signal_handler() install one as well: a no-op beside the loop's
    wake-up. The handler that measures the coverage of tests is no server: it saves its data at a
    SIGTERM, and ends the process.
    """
    handler = signal.getsignal(number)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        return None
    module = str(getattr(handler, "__module__", ""))
    is_none = handler is signal.default_int_handler or module.partition(".")[0] == "coverage"
    return None if is_none else handler
