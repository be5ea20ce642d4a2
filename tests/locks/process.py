"""Processes that have a once-pump, all of them in one event loop, on a virtual clock."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from quattro_web import Lease, OnceLock
from quattro_web._locks.holder import OnceState, run_once
from tests.locks.fakes import Service
from tests.support.asgi import run


class Process:
    """One process that has the pump: `log` tells what it does, with the time.

    Args:
        service: The service, or another lock.
        name: Its name.
        log: The log of all processes.
        times: Those of its lock.
    """

    def __init__(
        self, service: Service | OnceLock, name: str, log: list[str], **times: float
    ) -> None:
        self.lock = service.lock(name, **times) if isinstance(service, Service) else service
        self.name = name
        self.log = log
        self.states: list[OnceState] = []
        self.clean_up = 0.0
        self.work: Callable[[], Coroutine[Any, Any, None]] = asyncio.Event().wait  # type: ignore[assignment]
        self.task = asyncio.create_task(self.run())

    async def run(self) -> None:
        """Run the pump by its lock; the process does so in a task of its own."""
        await run_once(self.lock, "pump", self.pump, report=self.states.append)

    def note(self, what: str) -> None:
        self.log.append(f"{asyncio.get_running_loop().time():g} {self.name} {what}")

    async def pump(self, lease: Lease, last_run: object) -> None:
        self.note(f"begins with {lease.token}")
        try:
            await self.work()
        finally:
            if self.clean_up:
                await asyncio.sleep(self.clean_up)
            self.note("ends")

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait((self.task,))


def play(scene: Callable[[Service, list[str]], Coroutine[Any, Any, None]]) -> list[str]:
    """Play a scene, and return its log."""
    log: list[str] = []
    run(scene(Service(), log))
    return log
