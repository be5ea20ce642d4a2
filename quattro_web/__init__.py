"""Task groups for Starlette and FastAPI: nothing a handler starts outlives its response."""

from quattro_core import (
    MapResults,
    RestartLimitError,
    RestartPolicy,
    TaskGroup,
    TaskReturnedError,
    TaskStatus,
    TooManyWaitingError,
)
from quattro_web._app_group import AppGroup, app_task_group, shutdown_event
from quattro_web._collection import Pumps
from quattro_web._errors import (
    AppBusyError,
    DeadlineExceededError,
    NoTaskGroupError,
    PumpFailedError,
    ShuttingDownError,
)
from quattro_web._file_lock import FileLock
from quattro_web._grace import ShutdownGrace
from quattro_web._health import AppHealth, PumpHealth, PumpState, app_health
from quattro_web._health_routes import health_routes
from quattro_web._install import install
from quattro_web._interrupt import (
    cancel_on_disconnect,
    cancel_reason,
    set_deadline,
    uninterrupted,
)
from quattro_web._lifespan import task_group_lifespan
from quattro_web._middleware import TaskGroupMiddleware
from quattro_web._once import Lease, LockClaim, LockLostError, OnceLock
from quattro_web._pumps import Pump
from quattro_web._reason import CancelReason
from quattro_web._request_group import request_task_group, set_concurrency_limit
from quattro_web._shutdown import ShutdownEvent

__all__ = [
    "AppBusyError",
    "AppGroup",
    "AppHealth",
    "CancelReason",
    "DeadlineExceededError",
    "FileLock",
    "Lease",
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
    "TaskGroup",
    "TaskGroupMiddleware",
    "TaskReturnedError",
    "TaskStatus",
    "TooManyWaitingError",
    "app_health",
    "app_task_group",
    "cancel_on_disconnect",
    "cancel_reason",
    "health_routes",
    "install",
    "request_task_group",
    "set_concurrency_limit",
    "set_deadline",
    "shutdown_event",
    "task_group_lifespan",
    "uninterrupted",
]
