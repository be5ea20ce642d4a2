"""How far a request has come, and why it was cancelled."""

from __future__ import annotations

from enum import Enum, StrEnum


class RequestState(Enum):
    """How far the response of a request has come, seen from the server.

    The children of the request are another matter: `RequestTasks.have_ended` tells. A child may
    close a WebSocket, which is over then, and go on.
    """

    OPEN = "open"
    """Nothing of the response has come by yet."""
    HOLDING = "holding"
    """Its start has come, and is held back: it may be answered otherwise still."""
    STREAMING = "streaming"
    """Its start has left, or a WebSocket was accepted: a failure can only cut it."""
    OVER = "over"
    """It is complete: nothing cancels the request any more."""


class CancelReason(StrEnum):
    """Why a request's handler and children were cancelled by its task group.

    `cancel_reason` returns it. It is also the message of their `asyncio.CancelledError`
    (``exc.args``), provided that the code in between passes the message on.

    .. versionadded:: 0.1
    """

    DISCONNECT = "the client has disconnected"
    DEADLINE = "the deadline of the request has passed"
    SHUTDOWN = "the server is shutting down"
