"""The interface of a lock that lets only one of many processes run a pump."""

from __future__ import annotations

import os
import socket
from abc import ABC, abstractmethod
from dataclasses import dataclass


class LockLostError(RuntimeError):
    """A lock is no longer held, or it can't be proven that it is.

    .. versionadded:: 0.1
    """


@dataclass(frozen=True, kw_only=True)
class Lease:
    """Proof that a lock is held; a pump with a lock gets it as its parameter ``lease``.

    Attributes:
        token: A fencing token: a number that grows with each holder, so that a store can reject
            late writes of a former holder. None if the lock has none.
        holder: Who holds the lock: this process, as ``host:pid``.

    .. versionadded:: 0.1
    """

    token: int | None
    holder: str


class OnceLock(ABC):
    """A lock for ``Pump(..., once=...)``. It has the settings, and creates a claim for each pump.

    The pump runs only while the lock is certainly held. It is cancelled when the lock is lost, or
    when *valid_for* seconds have passed without a proof. A new holder waits *settle* seconds before
    it starts the pump, unless its claim says that this is unnecessary: meanwhile a former holder
    that is still alive notices the loss, and ends its pump.

    Attributes:
        poll: Seconds between two attempts to take the lock.
        heartbeat: Seconds between two proofs that the lock is held.
        timeout: Seconds that an attempt or a proof may take.
        valid_for: Seconds for which a proof is valid, from when it was requested.
        settle: Seconds that a new holder waits before it starts the pump.
        allowance: Seconds that the pump's clean-up may take after a loss; *settle* and *valid_for*
            rely on it.
        remembers: Whether its claims can remember when the pump last ran, for the pump's
            ``catch_up``; such claims have `LockClaim.recall` and `LockClaim.remember`.

    .. versionadded:: 0.1
    """

    poll: float = 1.0
    heartbeat: float = 1.0
    timeout: float = 1.0
    valid_for: float = 2.0
    settle: float = 0.0
    allowance: float = 1.0
    remembers: bool = False

    @abstractmethod
    def claim(self, name: str) -> LockClaim:
        """Return this process's claim to the lock of the pump *name*. This does not take the lock
        yet.

        .. versionadded:: 0.1
        """

    def key(self, name: str) -> str | None:
        """Return what distinguishes the lock of the pump *name* from others; None if the name does.

        If two pumps of an app have the same key, that is a ValueError, since the second would never
        run.

        .. versionadded:: 0.1
        """
        del name
        return None


class LockClaim(ABC):
    """One process's claim to one lock, which can be acquired and released any number of times.

    Attributes:
        is_settled: Whether no former holder can still be running the pump, as far as the last
            `acquire` could tell; then the new holder does not wait *settle* seconds.

    .. versionadded:: 0.1
    """

    is_settled: bool = False

    @abstractmethod
    async def acquire(self) -> Lease | None:
        """Try to take the lock without waiting; None if another process holds it.

        .. versionadded:: 0.1
        """

    @abstractmethod
    async def prove(self) -> None:
        """Prove that the lock is still held, and renew it.

        Raises:
            LockLostError: If the lock is not held. Any other error means that this could not be
                determined now.

        .. versionadded:: 0.1
        """

    def settled(self) -> None:  # noqa: B027  # most locks have nowhere to note it
        """Note that any former holder has ended: the new one has waited *settle* seconds.

        .. versionadded:: 0.1
        """

    @abstractmethod
    async def release(self) -> None:
        """Release the lock, whether held or not, and close any connection to it.

        .. versionadded:: 0.1
        """

    async def holder(self) -> str | None:
        """Return who holds the lock, as ``host:pid``; None if unknown.

        .. versionadded:: 0.1
        """
        return None

    async def recall(self) -> str | None:
        """Return the text that the last holder left; None if there is none.

        Called while the lock is held.

        .. versionadded:: 0.1
        """
        raise NotImplementedError

    async def remember(self, text: str) -> None:
        """Store one line of text for the next holder, as durably as possible.

        Args:
            text: The text; it replaces the previous one.

        Raises:
            LockLostError: If the lock is no longer held. Then nothing is stored, so that this
                process can't overwrite the text of a later holder.

        .. versionadded:: 0.1
        """
        raise NotImplementedError


def this_process() -> str:
    """Return the name of this process, for others to see who holds a lock."""
    return f"{socket.gethostname()}:{os.getpid()}"
