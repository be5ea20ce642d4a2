"""The errors of jobs."""

from __future__ import annotations

from starlette.exceptions import HTTPException


class JobsNotRunningError(LookupError):
    """The jobs of this process are not open: the call that opens them is missing.

    .. versionadded:: 0.1
    """


class JobsUnavailableError(HTTPException):
    """The engine, or a worker, is out of reach: 503 Service Unavailable, with Retry-After.

    It goes to the app's exception handlers: one for this class, for status 503 or for
    `starlette.exceptions.HTTPException`.

    Attributes:
        reason: Why, for the log: clients are not told.

    .. versionadded:: 0.1
    """

    def __init__(self, reason: str) -> None:
        super().__init__(status_code=503, headers={"retry-after": "1"})
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class WorkerLostError(JobsUnavailableError):
    """The worker that ran the job has died, lost the engine or shut down.

    The job may have done a part of its work, and is not run again, since it is not idempotent.

    .. versionadded:: 0.1
    """


class UnknownJobError(JobsUnavailableError):
    """The worker knows no job of this name, as one of an older release.

    .. versionadded:: 0.1
    """


class JobTimeoutError(TimeoutError):
    """A job has taken longer than its *timeout*, or than its request has time.

    .. versionadded:: 0.1
    """


class RemoteError(Exception):
    """A job has failed with an exception that can't be made again in this process.

    Its class is unknown here, or does not say all about itself by its arguments.

    Attributes:
        type_name: The name of its class, with its module.

    .. versionadded:: 0.1
    """

    def __init__(self, text: str, type_name: str = "") -> None:
        super().__init__(text, type_name)
        self.type_name = type_name

    def __str__(self) -> str:
        text = str(self.args[0])
        return f"{self.type_name}: {text}" if self.type_name else text


class RemoteTraceback(Exception):  # noqa: N818  # it is no error, it shows where one was raised
    """The cause of an error of a job: on which worker it was raised, and where.

    .. versionadded:: 0.1
    """

    def __init__(self, worker: str, text: str) -> None:
        super().__init__(worker, text)

    def __str__(self) -> str:
        worker, text = self.args
        return f"on worker {worker}:\n\n{text}"
