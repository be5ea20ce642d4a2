"""What the signals that a server gets mean for the shutdown of an app."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from quattro_web._harness import Harness
from quattro_web._last_resort import LastResort
from quattro_web._shutdown import Shutdown
from quattro_web._signals import NO_SIGNAL, SignalListener
from quattro_web._stop import stop_server

# A Ctrl-C reaches a worker from the terminal, and once more, as another signal, from its parent.
ECHO = 2.0


class Notice:
    """Begins an app's shutdown at the first signal, and hurries it at the second one.

    Args:
        shutdown: The shutdown.
        begin: Begins it.
        report: Returns what still runs, for the log.
        harness: The test that takes the place of the server and its signals, if there is one.
    """

    def __init__(
        self,
        shutdown: Shutdown,
        begin: Callable[[], object],
        report: Callable[[], list[str]],
        harness: Harness | None = None,
    ) -> None:
        self._harness = harness
        self._shutdown = shutdown
        self._begin = begin
        self._report = report
        self._listener: SignalListener | None = None
        self._last_resort: LastResort | None = None
        self._first: int | None = None
        self._is_ours = False

    def listen(self) -> None:
        """Begin to listen to the signals of the process."""
        if self._harness is not None:
            self._harness.listen(self._told_by_test)
            return
        seconds = self._shutdown.grace.total
        if seconds is not None:
            self._last_resort = LastResort(seconds, self._report, asyncio.get_running_loop())
        self._listener = SignalListener(self._told, self._bound)
        self._listener.start()

    def stop_server(self) -> bool:
        """Ask the server to stop, and know that its signal is ours. Tells if there is one."""
        if self._harness is not None:
            self._is_ours = True
            self._harness.signal()
            return False
        self._is_ours = self._has_server
        return stop_server()

    def begins(self) -> None:
        """Know that the shutdown begins, also where no signal tells: under a server it is bounded.

        A test client has all the time that it takes.
        """
        if self._has_server:
            self._bound()

    def close(self, *, all_has_ended: bool) -> None:
        """Listen no more.

        Args:
            all_has_ended: Whether nothing was given up. Else the server may wait for it, and the
                process is ended in any case.
        """
        if self._harness is not None:
            self._harness.discard(self._told_by_test)
        if self._listener is not None:
            self._listener.stop()
        if self._last_resort is not None and all_has_ended:
            self._last_resort.app_has_ended()

    @property
    def _has_server(self) -> bool:
        return self._listener is not None and self._listener.has_server

    def _told(self, number: int) -> None:
        self._begin()
        if self._is_ours:
            self._is_ours = False
        elif self._first is None:
            self._first = number
        elif number != NO_SIGNAL and (number == self._first or self._shutdown.age > ECHO):
            self._shutdown.hurry()

    def _told_by_test(self) -> None:
        self._told(signal.SIGTERM)

    def _bound(self) -> None:
        if self._last_resort is not None:
            self._last_resort.start()
