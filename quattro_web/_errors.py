"""The errors of the package."""

from starlette.exceptions import HTTPException

from quattro_core import TooManyWaitingError


class NoTaskGroupError(LookupError):
    """There is no task group: the call that creates it is missing, and the message names that call.

    .. versionadded:: 0.1
    """


class DeadlineExceededError(HTTPException):
    """A request exceeded its deadline: 504 Gateway Timeout, unless the app answers otherwise.

    Your exception handler can be for this class, for status 504 or for
    `starlette.exceptions.HTTPException`.

    .. versionadded:: 0.1
    """

    def __init__(self) -> None:
        super().__init__(status_code=504)


class ShuttingDownError(HTTPException):
    """A request was cancelled by the shutdown of the server: 503 Service Unavailable.

    Your exception handler can be for this class, for status 503 or for
    `starlette.exceptions.HTTPException`.

    .. versionadded:: 0.1
    """

    def __init__(self) -> None:
        super().__init__(status_code=503, headers={"retry-after": "1"})


class AppBusyError(TooManyWaitingError, HTTPException):
    """Too much handed-over work is waiting: 503 Service Unavailable, with Retry-After.

    Work that the same request handed over earlier keeps running, so a client that retries hands it
    over twice. To hand over all or nothing, use `AppTaskGroup.create_tasks`.

    Your exception handler can be for this class, for `TooManyWaitingError`, for status 503 or for
    `starlette.exceptions.HTTPException`.

    Attributes:
        reason: What is running and what is waiting, for the log; not sent to clients.

    .. versionadded:: 0.1
    """

    def __init__(self, reason: str) -> None:
        HTTPException.__init__(self, status_code=503, headers={"retry-after": "1"})
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class PumpFailedError(RuntimeError):
    """A pump failed, and the server was asked to stop; the lifespan ends with this error.

    The pump's own error was logged when it happened, with its traceback.

    .. versionadded:: 0.1
    """
