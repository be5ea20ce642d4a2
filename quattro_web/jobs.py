"""Functions that run in other processes, also on other machines, as children of requests."""

try:
    from quattro_web._jobs.command import main
    from quattro_web._jobs.engine import JobEngine
    from quattro_web._jobs.errors import (
        BadSignatureError,
        JobsNotRunningError,
        JobsUnavailableError,
        JobTimeoutError,
        RemoteError,
        RemoteTraceback,
        UnknownJobError,
        WorkerLostError,
    )
    from quattro_web._jobs.jobs import FailedJob, Job, JobCall, Jobs
    from quattro_web._jobs.worker import RunningJob, current_job
except ModuleNotFoundError as _exc:
    if _exc.name in {"docket", "pydantic", "typing_extensions"}:
        msg = "quattro_web.jobs needs docket: pip install 'quattro-web[docket]'"
        raise ModuleNotFoundError(msg, name=_exc.name) from _exc
    raise

__all__ = [
    "BadSignatureError",
    "FailedJob",
    "Job",
    "JobCall",
    "JobEngine",
    "JobTimeoutError",
    "Jobs",
    "JobsNotRunningError",
    "JobsUnavailableError",
    "RemoteError",
    "RemoteTraceback",
    "RunningJob",
    "UnknownJobError",
    "WorkerLostError",
    "current_job",
]

if __name__ == "__main__":
    main()
