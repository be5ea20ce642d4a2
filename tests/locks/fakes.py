"""A lock service in memory, which can fail in every way that a real one can."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from quattro_web import Lease, LockClaim, LockLostError, OnceLock


class Service:
    """What the processes share: who holds the lock, and whether the service answers.

    Attributes:
        owner: The claim that holds it.
        text: What the last holder has left.
        answers: Awaited before each answer: it may wait, or raise.
    """

    def __init__(self) -> None:
        self.owner: Claim | None = None
        self.tokens = 0
        self.text: str | None = None
        self.log: list[str] = []
        self.answers: Callable[[str], Awaitable[Any]] | None = None

    def lock(self, name: str, **times: float) -> Lock:
        """Return the lock, for one process."""
        return Lock(self, name, **times)

    def take_away(self) -> None:
        """Free the lock behind its holder's back."""
        self.owner = None

    async def fail(self, what: str) -> None:
        """An answer: the service can't be reached."""
        raise ConnectionRefusedError(what)

    async def hang(self, what: str) -> None:
        """An answer that never comes."""
        await asyncio.Event().wait()


class Lock(OnceLock):
    """A lock of that service."""

    poll = 1.0
    heartbeat = 2.0
    timeout = 1.0
    valid_for = 6.0
    settle = 0.0
    allowance = 1.0
    remembers = True

    def __init__(self, service: Service, process: str, **times: float) -> None:
        self.service = service
        self.process = process
        for key, value in times.items():
            setattr(self, key, value)

    def claim(self, name: str) -> LockClaim:
        return Claim(self.service, self.process)


class Claim(LockClaim):
    def __init__(self, service: Service, process: str) -> None:
        self._service = service
        self._process = process

    async def _answer(self, what: str) -> None:
        if self._service.answers is not None:
            await self._service.answers(what)

    async def acquire(self) -> Lease | None:
        await self._answer("acquire")
        service = self._service
        if service.owner is not None:
            return None
        service.owner = self
        service.tokens += 1
        return Lease(token=service.tokens, holder=self._process)

    async def prove(self) -> None:
        await self._answer("prove")
        if self._service.owner is not self:
            raise LockLostError("somebody else has it")

    async def release(self) -> None:
        await self._answer("release")
        if self._service.owner is self:
            self._service.owner = None

    async def holder(self) -> str | None:
        await self._answer("holder")
        return None if self._service.owner is None else self._service.owner._process

    async def recall(self) -> str | None:
        await self._answer("recall")
        return self._service.text

    async def remember(self, text: str) -> None:
        await self._answer("remember")
        assert self._service.owner is self
        self._service.text = text
