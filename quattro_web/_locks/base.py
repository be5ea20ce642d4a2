"""The interface of a lock that lets a pump run in one process of many."""

from __future__ import annotations

import os
import socket
from abc import ABC, abstractmethod
from dataclasses import dataclass


class LockLostError(RuntimeError):
    """A lock is not held any more, or that it is can't be proven.

    .. versionadded:: 0.1
    """


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The proof of a held lock: a pump with a lock gets it as its parameter ``lease``.

    Attributes:
        token: A number that is greater for each holder than for the one before, so that a store can
            refuse what a former holder writes too late (a fencing token). None if the lock has
            none.
        holder: Who holds the lock: this process, as ``host:pid``.

    .. versionadded:: 0.1
    """

    token: int | None
    holder: str


class OnceLock(ABC):
    """A lock for ``Pump(..., once=...)``. It holds its settings, and makes a claim for each pump.

    The pump runs while the lock is held for sure. It is cancelled when the lock is lost, or when
    there was no proof for *valid_for* seconds. A new holder waits for *settle* seconds before it
    starts the pump, unless its claim says that there is no need to: in that time a former one,
    whose lock was taken from it while it lives, notices and ends its own.

    Attributes:
        poll: Seconds between two tries to get the lock.
        heartbeat: Seconds between two proofs that it is held.
        timeout: Seconds that a try or a proof may take.
        valid_for: Seconds for which a proof is good, from when it was asked for.
        settle: Seconds for which a new holder waits.
        allowance: Seconds that the clean-up of the pump may take after a loss; *settle* and
            *valid_for* count on it.

    .. versionadded:: 0.1
    """

    poll: float = 1.0
    heartbeat: float = 1.0
    timeout: float = 1.0
    valid_for: float = 2.0
    settle: float = 0.0
    allowance: float = 1.0

    @abstractmethod
    def claim(self, name: str) -> LockClaim:
        """Return this process's claim to the lock of the pump *name*. It takes nothing yet.

        .. versionadded:: 0.1
        """

    def key(self, name: str) -> str | None:
        """Return what tells the lock of the pump *name* from others; None if its name does.

        Two pumps of an app with one key are a ValueError, since the second would never run.

        .. versionadded:: 0.1
        """
        del name
        return None


class LockClaim(ABC):
    """The claim of one process to one lock, taken and given back any number of times.

    Attributes:
        is_settled: Whether no former holder of the lock, as it was taken now, can still run the
            pump: then the new one does not wait for *settle* seconds.

    .. versionadded:: 0.1
    """

    is_settled: bool = False

    @abstractmethod
    async def acquire(self) -> Lease | None:
        """Try to take the lock, without waiting for it; None if another holds it.

        .. versionadded:: 0.1
        """

    @abstractmethod
    async def prove(self) -> None:
        """Prove that it is still held, and keep it.

        Raises:
            LockLostError: If it is not. Any other error means that it could not be told now.

        .. versionadded:: 0.1
        """

    def settled(self) -> None:  # noqa: B027  # most locks have nowhere to note it
        """Take note that a former holder has ended: the new one has waited for *settle* seconds.

        .. versionadded:: 0.1
        """

    @abstractmethod
    async def release(self) -> None:
        """Give it back, whether it is held or not, with whatever connection there is to it.

        .. versionadded:: 0.1
        """

    async def holder(self) -> str | None:
        """Return who holds it, as ``host:pid``; None if that is not known.

        .. versionadded:: 0.1
        """
        return None


def this_process() -> str:
    """Return the name of this process, for others to see who holds a lock."""
    return f"{socket.gethostname()}:{os.getpid()}"
