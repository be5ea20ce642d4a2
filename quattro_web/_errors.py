"""The errors of the package."""

from starlette.exceptions import HTTPException

from quattro_core import TooManyWaitingError


class NoTaskGroupError(LookupError):
    """There is no task group at hand: the call that makes one is missing, and the message names it.

    .. versionadded:: 0.1
    """


class DeadlineExceededError(HTTPException):
    """A request has passed its deadline: 504 Gateway Timeout, unless the app answers otherwise.

    It goes to the app's exception handlers: one for this class, for status 504 or for
    `starlette.exceptions.HTTPException`.

    .. versionadded:: 0.1
    """

    def __init__(self) -> None:
        super().__init__(status_code=504)


class ShuttingDownError(HTTPException):
    """A request was cancelled by the shutdown of the server: 503 Service Unavailable.

    It goes to the app's exception handlers, as `DeadlineExceededError` does.

    .. versionadded:: 0.1
    """

    def __init__(self) -> None:
        super().__init__(status_code=503, headers={"retry-after": "1"})


class AppBusyError(TooManyWaitingError, HTTPException):
    """As much handed-over work is waiting as may: 503 Service Unavailable, with Retry-After.

    Work that the same request has handed over before goes on, and a client that tries again hands
    it over once more. `AppTaskGroup.create_tasks` hands over all or nothing.

    It goes to the app's exception handlers: one for this class, for `TooManyWaitingError`, for
    status 503 or for `starlette.exceptions.HTTPException`.

    Attributes:
        reason: What runs and what waits, for the log: clients are not told.

    .. versionadded:: 0.1
    """

    def __init__(self, reason: str) -> None:
        HTTPException.__init__(self, status_code=503, headers={"retry-after": "1"})
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class PumpFailedError(RuntimeError):
    """A pump has failed, and the server was asked to stop: the lifespan ends with this.

    The failure itself is in the log, with its traceback, since it has happened.

    .. versionadded:: 0.1
    """
