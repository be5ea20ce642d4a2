"""Task groups for Starlette and FastAPI: nothing a handler starts outlives its response."""

from quattro_web._app_group import AppGroup, app_task_group
from quattro_web._errors import DeadlineExceededError, NoTaskGroupError
from quattro_web._install import install
from quattro_web._interrupt import (
    cancel_on_disconnect,
    cancel_reason,
    set_deadline,
    uninterrupted,
)
from quattro_web._lifespan import task_group_lifespan
from quattro_web._middleware import TaskGroupMiddleware
from quattro_web._reason import CancelReason
from quattro_web._request_group import request_task_group, set_concurrency_limit

__all__ = [
    "AppGroup",
    "CancelReason",
    "DeadlineExceededError",
    "NoTaskGroupError",
    "TaskGroupMiddleware",
    "app_task_group",
    "cancel_on_disconnect",
    "cancel_reason",
    "install",
    "request_task_group",
    "set_concurrency_limit",
    "set_deadline",
    "task_group_lifespan",
    "uninterrupted",
]
