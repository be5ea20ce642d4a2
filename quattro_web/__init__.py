"""Task groups for Starlette and FastAPI: no task started in a handler outlives its response."""

from quattro_core import (
    LimitDeadlockError,
    MapResults,
    RestartLimitError,
    RestartPolicy,
    TaskFuture,
    TaskGroup,
    TaskReturnedError,
    TaskStatus,
    TooManyWaitingError,
)
from quattro_web._app.group import AppTaskGroup, app_task_group, begin_shutdown, shutdown_event
from quattro_web._app.health import AppHealth, PumpHealth, PumpState, app_health, health_routes
from quattro_web._app.lifespan import task_group_lifespan
from quattro_web._errors import (
    AppBusyError,
    DeadlineExceededError,
    NoTaskGroupError,
    PumpFailedError,
    ShuttingDownError,
)
from quattro_web._install import install
from quattro_web._locks.base import Lease, LockClaim, LockLostError, OnceLock
from quattro_web._locks.file import FileLock
from quattro_web._middleware import TaskGroupMiddleware
from quattro_web._pumps.pump import Pump
from quattro_web._pumps.pumps import Pumps
from quattro_web._request.cancellation import (
    cancel_on_disconnect,
    cancel_reason,
    set_deadline,
    time_left,
    uninterrupted,
)
from quattro_web._request.exchange import request_task_group, set_concurrency_limit
from quattro_web._request.state import CancelReason
from quattro_web._shutdown.state import ShutdownEvent, ShutdownGrace

__all__ = [
    "AppBusyError",
    "AppHealth",
    "AppTaskGroup",
    "CancelReason",
    "DeadlineExceededError",
    "FileLock",
    "Lease",
    "LimitDeadlockError",
    "LockClaim",
    "LockLostError",
    "MapResults",
    "NoTaskGroupError",
    "OnceLock",
    "Pump",
    "PumpFailedError",
    "PumpHealth",
    "PumpState",
    "Pumps",
    "RestartLimitError",
    "RestartPolicy",
    "ShutdownEvent",
    "ShutdownGrace",
    "ShuttingDownError",
    "TaskFuture",
    "TaskGroup",
    "TaskGroupMiddleware",
    "TaskReturnedError",
    "TaskStatus",
    "TooManyWaitingError",
    "app_health",
    "app_task_group",
    "begin_shutdown",
    "cancel_on_disconnect",
    "cancel_reason",
    "health_routes",
    "install",
    "request_task_group",
    "set_concurrency_limit",
    "set_deadline",
    "shutdown_event",
    "task_group_lifespan",
    "time_left",
    "uninterrupted",
]
