"""Task groups for Starlette and FastAPI: nothing a handler starts outlives its response."""

from quattro_web._app_group import AppTaskGroup, app_task_group
from quattro_web._errors import NoTaskGroupError
from quattro_web._install import install
from quattro_web._lifespan import task_group_lifespan
from quattro_web._middleware import TaskGroupMiddleware
from quattro_web._request import request_task_group

__all__ = [
    "AppTaskGroup",
    "NoTaskGroupError",
    "TaskGroupMiddleware",
    "app_task_group",
    "install",
    "request_task_group",
    "task_group_lifespan",
]
