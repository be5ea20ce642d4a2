"""Which requests last long enough for their client to be watched."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from quattro_web._scope import Connection
from quattro_web._watch import WATCH_AFTER, Watch

if TYPE_CHECKING:
    from quattro_web._exchange import Exchange

# Seconds between two looks, at least: under load one timer stands for many requests.
STEP = 0.01


class Patience:
    """Begins to watch the client of each request that lasts.

    A timer for each request would cost as much as a child. There is one for all that are open in an
    event loop, and none while there are none: a request that is answered sooner pays nothing more.

    Args:
        requests: Those that are open, the oldest one first, each with its scope.
    """

    def __init__(self, requests: Mapping[Exchange, Connection]) -> None:
        self._requests = requests
        self._ticking: set[asyncio.AbstractEventLoop] = set()

    def begin(self, exchange: Exchange) -> None:
        """Take note that a request begins, in the current event loop."""
        loop = asyncio.get_running_loop()
        exchange.patience = self
        exchange.expires = loop.time() + WATCH_AFTER
        if loop not in self._ticking:
            # One that was closed in between never comes to its end by itself.
            self._ticking = {other for other in self._ticking if not other.is_closed()}
            self._ticking.add(loop)
            loop.call_later(WATCH_AFTER, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        due, next_one = [], None
        # The newest ones first, until those that were met before.
        for exchange in reversed(tuple(self._requests)):
            if exchange.patience is None or not exchange.runs_in(loop):
                continue
            if exchange.has_lasted:
                break
            if exchange.expires <= now:
                exchange.has_lasted = True
                due.append(exchange)
            else:
                next_one = exchange.expires
        if next_one is None:
            self._ticking.discard(loop)
        else:
            loop.call_at(max(next_one, now + STEP), self._tick, loop)
        for exchange in due:
            self.watch(exchange)

    def watch(self, exchange: Exchange) -> None:
        """Watch the client of a request from now on, unless that is done or was turned off."""
        exchange = exchange.innermost
        conn = exchange.settings.requests.get(exchange)
        if conn is None:
            return  # it has ended meanwhile
        if exchange.watch is None:
            exchange.watch = Watch(exchange, conn)
        exchange.watch.begin()
