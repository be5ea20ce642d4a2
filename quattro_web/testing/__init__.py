"""A testing kit for apps: a client with a lifespan, a virtual clock, and a watch for left tasks."""

from quattro_web.testing._client import AppClient
from quattro_web.testing._clock import DeadlockError, VirtualClockLoop, advance
from quattro_web.testing._exchange import Exchange
from quattro_web.testing._options import RequestOptions
from quattro_web.testing._report import LeakedTaskError, no_leaked_tasks
from quattro_web.testing._response import Response, ResponseCutError, WebSocketRefusedError
from quattro_web.testing._websocket import WebSocketExchange

__all__ = [
    "AppClient",
    "DeadlockError",
    "Exchange",
    "LeakedTaskError",
    "RequestOptions",
    "Response",
    "ResponseCutError",
    "VirtualClockLoop",
    "WebSocketExchange",
    "WebSocketRefusedError",
    "advance",
    "no_leaked_tasks",
]
