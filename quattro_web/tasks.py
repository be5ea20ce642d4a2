"""What an app is doing right now: as data, as a web page, and in a terminal."""

from quattro_web._app.run import LifespanPhase
from quattro_web._tree.command import main
from quattro_web._tree.look import app_tasks
from quattro_web._tree.routes import task_routes
from quattro_web._tree.snapshot import (
    AppTasks,
    JobInfo,
    LifespanInfo,
    Place,
    PumpInfo,
    RequestInfo,
    RequestPhase,
    TaskInfo,
    TaskKind,
    TaskState,
    WorkInfo,
)

__all__ = [
    "AppTasks",
    "JobInfo",
    "LifespanInfo",
    "LifespanPhase",
    "Place",
    "PumpInfo",
    "RequestInfo",
    "RequestPhase",
    "TaskInfo",
    "TaskKind",
    "TaskState",
    "WorkInfo",
    "app_tasks",
    "task_routes",
]

if __name__ == "__main__":
    main()
