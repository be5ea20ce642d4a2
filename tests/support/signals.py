"""Signals to the process of the tests, as a server gets them."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def server_handlers(*numbers: signal.Signals) -> Iterator[list[int]]:
    """Install handlers, as a server does before it starts the app, and collect what they get."""
    got: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: got.append(number))
        for number in numbers or (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield got
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def send(number: signal.Signals = signal.SIGTERM) -> None:
    """Send a signal to this process, and let the event loop hear of it."""
    signal.raise_signal(number)
    await asyncio.sleep(0)
