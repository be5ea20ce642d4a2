"""Task groups with background tasks and limits on concurrency. Standard library only."""

from quattro_core._deadlock import LimitDeadlockError
from quattro_core._limits import SharedLimit, TooManyWaitingError
from quattro_core._map import MapResults
from quattro_core._restart import RestartLimitError, RestartPolicy
from quattro_core._supervisor import Supervisor, SupervisorState, TaskReturnedError, TaskStatus
from quattro_core._taskgroup import TaskGroup
from quattro_core._workers import TaskFuture

__all__ = [
    "LimitDeadlockError",
    "MapResults",
    "RestartLimitError",
    "RestartPolicy",
    "SharedLimit",
    "Supervisor",
    "SupervisorState",
    "TaskFuture",
    "TaskGroup",
    "TaskReturnedError",
    "TaskStatus",
    "TooManyWaitingError",
]
