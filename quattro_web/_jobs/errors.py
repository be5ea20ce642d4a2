"""The errors of jobs."""

from __future__ import annotations

from starlette.exceptions import HTTPException


class JobsNotRunningError(LookupError):
    """Jobs are not open in this process: the call that opens them is missing.

    .. versionadded:: 0.1
    """


class JobsUnavailableError(HTTPException):
    """The engine or a worker is unreachable: 503 Service Unavailable, with Retry-After.

    Your exception handler can be for this class, for status 503 or for
    `starlette.exceptions.HTTPException`.

    Attributes:
        reason: The reason, for the log; not sent to clients.

    .. versionadded:: 0.1
    """

    def __init__(self, reason: str) -> None:
        super().__init__(status_code=503, headers={"retry-after": "1"})
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class WorkerLostError(JobsUnavailableError):
    """The worker that ran the job died, lost the engine or shut down.

    The job may have done part of its work. It is not run again, since it is not idempotent.

    .. versionadded:: 0.1
    """


class UnknownJobError(JobsUnavailableError):
    """The worker does not know this job, or knows another version, as a worker of another release
    may.

    The job did not start. The versions differ if the arguments don't fit, or if the *version* given
    to the job differs.

    .. versionadded:: 0.1
    """


class BadSignatureError(Exception):
    """A message is not signed with this process's *signing_key*, and was ignored.

    Either web and worker have different keys, or somebody else wrote the message.

    .. versionadded:: 0.1
    """


class JobTimeoutError(TimeoutError):
    """A job took longer than its *timeout*, or than its request's deadline.

    .. versionadded:: 0.1
    """


class RemoteError(Exception):
    """A job failed with an exception that can't be recreated in this process.

    Its class is unknown here, or its arguments are not enough to recreate it.

    Attributes:
        type_name: The name of the exception's class, with its module.

    .. versionadded:: 0.1
    """

    def __init__(self, text: str, type_name: str = "") -> None:
        super().__init__(text, type_name)
        self.type_name = type_name

    def __str__(self) -> str:
        text = str(self.args[0])
        return f"{self.type_name}: {text}" if self.type_name else text


class RemoteTraceback(Exception):  # noqa: N818  # it is no error, it shows where one was raised
    """The cause of a job's error: the worker that raised it, and the traceback there.

    .. versionadded:: 0.1
    """

    def __init__(self, worker: str, text: str) -> None:
        super().__init__(worker, text)

    def __str__(self) -> str:
        worker, text = self.args
        return f"on worker {worker}:\n\n{text}"
