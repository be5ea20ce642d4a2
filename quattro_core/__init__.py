"""Task groups with background tasks and a concurrency limit. Standard library only."""

from quattro_core._taskgroup import TaskGroup

__all__ = ["TaskGroup"]
