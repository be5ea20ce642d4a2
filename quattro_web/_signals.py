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

_Handler = Callable[[int, FrameType | None], Any]


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

    def start(self) -> None:
        """Begin to listen. In another thread than the main one there are no signals."""
        if threading.current_thread() is threading.main_thread():
            _chain.add(self)
        worker = hypercorn_worker()
        if worker is not None:
            worker.hold_out()
            poll = threading.Thread(target=self._poll, args=(worker,), daemon=True)
            poll.start()

    def stop(self) -> None:
        """Listen no more."""
        _chain.discard(self)
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


class _Chain:
    """Our signal handler in front of the server's, as long as anybody listens."""

    def __init__(self) -> None:
        self._listeners: list[SignalListener] = []
        self._before: dict[int, _Handler] = {}

    def add(self, listener: SignalListener) -> None:
        self._listeners.append(listener)
        for number in SIGNALS:
            handler = signal.getsignal(number)
            # Without a handler of a server's, a signal is none of ours. What asyncio.run() and
            # loop.add_signal_handler() install is one as well: a no-op beside the loop's wake-up.
            if callable(handler) and handler not in (self._handle, signal.default_int_handler):
                self._before[number] = handler
                signal.signal(number, self._handle)

    def discard(self, listener: SignalListener) -> None:
        if listener in self._listeners:
            self._listeners.remove(listener)
        if self._listeners or threading.current_thread() is not threading.main_thread():
            return
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._handle:  # else the server has put back its own
                signal.signal(number, handler)
        self._before.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        for listener in tuple(self._listeners):
            listener.tell(number)
        handler = self._before.get(number)
        if handler is not None:
            handler(number, frame)


_chain = _Chain()
