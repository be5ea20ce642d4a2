"""Task groups with background tasks and limits on concurrency. Standard library only."""

from quattro_core._shared import SharedLimit, TooManyWaitingError
from quattro_core._taskgroup import TaskGroup

__all__ = ["SharedLimit", "TaskGroup", "TooManyWaitingError"]
