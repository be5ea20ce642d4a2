"""Lifespans and pumps that tell a log what they do."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

# Seconds in which an app starts; on a virtual clock, no others pass meanwhile.
SOON = 0.01


def lifespan_of(
    log: list[str], name: str = "resource", **state: Any
) -> Callable[[Any], AbstractAsyncContextManager[dict[str, Any]]]:
    """Return a lifespan that notes when it opens and closes."""

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[dict[str, Any]]:
        log.append(f"{name} opens")
        try:
            yield state
        finally:
            log.append(f"{name} closes")

    return lifespan


def pump_of(log: list[str], name: str = "pump") -> Callable[[], Awaitable[None]]:
    """Return a pump that runs for ever, and whose clean-up awaits something."""

    async def pump() -> None:
        log.append(f"{name} starts")
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            log.append(f"{name} ends")

    return pump


async def settle() -> None:
    """Let every task that can run do so until it waits for something else than `soon`."""
    for _ in range(20):
        await asyncio.sleep(0)
    await asyncio.sleep(2 * SOON)


async def soon() -> None:
    """Wait until the app has started."""
    await asyncio.sleep(SOON)
