"""Why a request was cancelled."""

from __future__ import annotations

from enum import StrEnum


class CancelReason(StrEnum):
    """Why a request's handler and children were cancelled by its task group.

    It is the message of the `asyncio.CancelledError` that they see (``exc.args``), as far as the
    code in between passes it on, and what `cancel_reason` returns.

    .. versionadded:: 0.1
    """

    DISCONNECT = "the client has disconnected"
    DEADLINE = "the deadline of the request has passed"
    SHUTDOWN = "the server is shutting down"
