"""How a shutdown ends the requests that are open."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from time import monotonic

from quattro_web._exchange import Exchange
from quattro_web._grace import CLEANUP
from quattro_web._scope import Connection, describe
from quattro_web._shutdown import Shutdown
from quattro_web._where import where

logger = logging.getLogger("quattro_web")

# Seconds between two looks at what is open: a request pays nothing for being counted.
POLL = 0.02

# A server may have thousands of streams open.
MOST_LINES = 20


class Drain:
    """Waits for the requests that are open at a shutdown, then cancels them.

    Args:
        requests: Those that are open, each with its scope.
        shutdown: The shutdown, which has begun.

    Attributes:
        stuck: Set when their time is over, and the server has not said that it has ended them.
    """

    def __init__(self, requests: dict[Exchange, Connection], shutdown: Shutdown) -> None:
        self._requests = requests
        self._shutdown = shutdown
        self._loop = asyncio.get_running_loop()
        self._cut: dict[Exchange, float] = {}
        self._given_up: set[Exchange] = set()
        self._is_last = asyncio.Event()
        self.stuck = asyncio.Event()
        self._task = self._loop.create_task(self._run(), name="quattro_web drain")

    async def finish(self) -> None:
        """Wait until none is open but what was given up. The server sends no more of them."""
        self._is_last.set()
        await asyncio.wait((self._task,))

    def cancel(self) -> None:
        """Stop waiting."""
        self._task.cancel()

    @property
    def open(self) -> list[Exchange]:
        """Those that are open in this event loop."""
        return [exchange for exchange in tuple(self._requests) if exchange.runs_in(self._loop)]

    def left(self) -> list[str]:
        """Return the name of each that is still open, with where it hangs, in any thread."""
        requests = self._requests.copy()  # at once, while others come and go
        return [
            _describe(exchange, scope)
            for exchange, scope in requests.items()
            if exchange.runs_in(self._loop)
        ]

    async def _run(self) -> None:
        # Those that come while the server still takes connections are no exception.
        while not (self._is_last.is_set() and self._given_up.issuperset(self.open)):
            if self._is_over:
                self._cut_all()
                self._give_up()
            if self._shutdown.age >= self._shutdown.grace.until_requests_end:
                self.stuck.set()
            await self._pause()

    async def _pause(self) -> None:
        if self._is_last.is_set():
            await asyncio.sleep(POLL)
        else:
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL):
                    await self._is_last.wait()

    @property
    def _is_over(self) -> bool:
        shutdown = self._shutdown
        return shutdown.is_hurried or shutdown.age >= shutdown.grace.requests

    def _cut_all(self) -> None:
        late = [exchange for exchange in self.open if exchange not in self._cut]
        if not late:
            return
        _tell(
            logging.WARNING,
            f"the shutdown cancels what is still open after {self._shutdown.age:.1f} s",
            [_describe(exchange, self._requests[exchange]) for exchange in late],
        )
        for exchange in late:
            self._cut[exchange] = self._loop.time()
            inner = exchange.innermost
            inner.cut_off(inner.settings.requests[inner])

    def _give_up(self) -> None:
        now = self._loop.time()
        late = [
            exchange
            for exchange in self.open
            if exchange not in self._given_up and now - self._cut[exchange] >= CLEANUP
        ]
        if late:
            self._given_up.update(late)
            _tell(
                logging.ERROR,
                f"the shutdown waits no longer for what was cancelled {CLEANUP:g} s ago",
                [_describe(exchange, self._requests[exchange]) for exchange in late],
            )


def _describe(exchange: Exchange, scope: Connection) -> str:
    group = exchange.innermost.group
    running = [("handler", exchange.parent)] if exchange.parent else []
    if group is not None:
        running += [(task.get_name(), task) for task in group.tasks]
    tasks = ", ".join(f"{name} ({where(task)})" for name, task in running)
    return f"{describe(scope)}, since {monotonic() - exchange.began:.1f} s: {tasks}"


def _tell(level: int, what: str, lines: list[str]) -> None:
    more = [f"and {len(lines) - MOST_LINES} more"] if len(lines) > MOST_LINES else []
    logger.log(level, "%s: %s", what, "; ".join([*lines[:MOST_LINES], *more]))
