"""Task groups with background tasks and limits on concurrency. Standard library only."""

from quattro_core._map_results import MapResults
from quattro_core._restart import RestartPolicy
from quattro_core._shared import SharedLimit, TooManyWaitingError
from quattro_core._supervised import (
    RestartLimitError,
    SupervisorState,
    TaskReturnedError,
    TaskStatus,
)
from quattro_core._supervisor import Supervisor
from quattro_core._taskgroup import TaskGroup

__all__ = [
    "MapResults",
    "RestartLimitError",
    "RestartPolicy",
    "SharedLimit",
    "Supervisor",
    "SupervisorState",
    "TaskGroup",
    "TaskReturnedError",
    "TaskStatus",
    "TooManyWaitingError",
]
