"""The keys of the package in an ASGI scope and in the state of a lifespan."""

from collections.abc import Mapping
from typing import Any

REQUEST = "quattro_web.request"
APP = "quattro_web.app"

# Anything that has a scope: a Request, a WebSocket, another HTTPConnection (each is a mapping of
# its scope), or the ASGI scope itself.
Connection = Mapping[str, Any]


def describe(conn: Connection) -> str:
    """Return how logs name a request."""
    return f"{conn.get('method', 'WebSocket')} {conn.get('path', '')}"
