"""How a process learns that its server is to shut down, at once: by the signal that says so.

A server lets its requests finish before it ends the lifespan, so a stream that waits for the
lifespan's shutdown waits for itself. The signal comes first.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

from quattro_web._hypercorn import HypercornWorker, hypercorn_worker

SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGQUIT", "SIGBREAK")
    if hasattr(signal, name)
)

# What is told where there is no signal, as in a worker of hypercorn.
NO_SIGNAL = 0

# Seconds between two looks at hypercorn's event; hypercorn itself looks as often.
POLL = 0.1

Handler = Callable[[int, FrameType | None], Any]


def server_handler(number: int) -> Handler | None:
    """Return what takes a signal, if that may be the server that runs the app in this thread.

    Servers install their handlers before they start the app, and signals reach the main thread
    only. What asyncio.run() and loop.add_signal_handler() install is one as well: a no-op beside
    the loop's wake-up. What handles a signal in a test is no server: the coverage of tests, which
    saves its data at a SIGTERM, and dies of it.
    """
    handler = signal.getsignal(number)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        return None
    module = str(getattr(handler, "__module__", ""))
    is_none = handler is signal.default_int_handler or module.partition(".")[0] == "coverage"
    return None if is_none else handler


class SignalListener:
    """Calls back at each signal that the server was sent.

    Args:
        told: Called in the event loop, with the number of the signal.
        at_once: Called before that in any thread, also while the event loop is blocked.
    """

    def __init__(self, told: Callable[[int], None], at_once: Callable[[], None]) -> None:
        self._told = told
        self._at_once = at_once
        self._loop = asyncio.get_running_loop()
        self._stopped = threading.Event()
        self._links: list[_Link] = []
        self.has_server = False

    def start(self) -> None:
        """Begin to listen. In another thread than the main one there are no signals."""
        worker = hypercorn_worker()
        if worker is not None:
            worker.hold_out()
            poll = threading.Thread(
                target=self._poll, args=(worker,), name="quattro_web signals", daemon=True
            )
            poll.start()
        self.has_server = worker is not None or server_handler(signal.SIGTERM) is not None
        for number in SIGNALS:
            handler = server_handler(number)
            link = getattr(handler, "__self__", None)
            # What its parent sends to a worker that holds out would hurry the shutdown.
            if handler is not None and not isinstance(link, HypercornWorker):
                if not isinstance(link, _Link):
                    link = _Link(number, handler)
                link.add(self)
                self._links.append(link)

    def stop(self) -> None:
        """Listen no more."""
        for link in self._links:
            link.remove(self)
        self._stopped.set()

    def tell(self, number: int) -> None:
        """Call back, from a signal handler or a thread."""
        self._at_once()
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._told, number)

    def _poll(self, worker: HypercornWorker) -> None:
        while not self._stopped.wait(POLL):
            if worker.is_shutting_down:
                self.tell(NO_SIGNAL)
                return


class _Link:
    """Our handler of one signal, in front of a server's, as long as anybody listens.

    There may be several of them: a second server in the process installs its handler over ours,
    and puts ours back at its end. Each link knows what it has found, so that each server gets its
    signals as it does without us.

    Args:
        number: The signal.
        before: The handler that it has.
    """

    def __init__(self, number: int, before: Handler) -> None:
        self._number = number
        self._before = before
        self._listeners: list[SignalListener] = []
        signal.signal(number, self._handle)

    def add(self, listener: SignalListener) -> None:
        self._listeners.append(listener)

    def remove(self, listener: SignalListener) -> None:
        if listener in self._listeners:
            self._listeners.remove(listener)
        in_main = threading.current_thread() is threading.main_thread()
        # Else the server has put back its own, or another one has installed one over ours.
        if not self._listeners and in_main and signal.getsignal(self._number) == self._handle:
            signal.signal(self._number, self._before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        for listener in tuple(self._listeners):
            listener.tell(number)
        self._before(number, frame)
