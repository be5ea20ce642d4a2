"""A testing kit for apps: a client that runs the lifespan, a virtual clock, and a leak check."""

from quattro_web.testing._client import AppClient, RequestOptions
from quattro_web.testing._clock import DeadlockError, VirtualClockLoop, advance
from quattro_web.testing._http import HTTPExchange, Response, ResponseCutError
from quattro_web.testing._leaks import LeakedTaskError, no_leaked_tasks
from quattro_web.testing._websocket import WebSocketExchange, WebSocketRefusedError

__all__ = [
    "AppClient",
    "DeadlockError",
    "HTTPExchange",
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
