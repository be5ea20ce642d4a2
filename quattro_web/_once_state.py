"""How it stands with a lock."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class OnceState:
    """How it stands with a lock, for health. If it says nothing, nothing is known yet, or any more.

    Attributes:
        is_held: Whether this process holds it, and runs the pump.
        is_standby: Whether another process is known to hold it.
        is_settling: Whether this process holds it, and gives a former holder the time to end.
        holder: Who holds it, where that is known.
        token: The fencing token, if this process holds it.
        error: Why nothing can be said of it now: it is out of reach, or was just lost.
    """

    is_held: bool = False
    is_standby: bool = False
    is_settling: bool = False
    holder: str | None = None
    token: int | None = None
    error: Exception | None = None
