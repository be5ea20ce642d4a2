"""Functions that run in other processes, on other machines, as children of the requests here."""

from quattro_web._jobs.command import main
from quattro_web._jobs.engine import JobEngine
from quattro_web._jobs.errors import (
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

__all__ = [
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
