"""The keys of the package in an ASGI scope and in the state of a lifespan."""

from collections.abc import Mapping
from typing import Any

REQUEST = "quattro_web.request"
APP = "quattro_web.app"

# Anything that has a scope: a Request, a WebSocket, another HTTPConnection (each is a mapping of
# its scope), or the ASGI scope itself.
Connection = Mapping[str, Any]


def not_a_connection(conn: object) -> TypeError:
    """Return the error for what is no connection, such as an app."""
    msg = f"conn must be a request, a WebSocket or the ASGI scope of one, got {conn!r}"
    return TypeError(msg)


def scope_of(conn: Connection) -> Connection:
    """Return the ASGI scope of a connection.

    Raises:
        TypeError: If it is none. An app of FastAPI has a method ``get``, but no scope.
    """
    scope: Connection = getattr(conn, "scope", conn)
    if scope.__class__ is not dict and not isinstance(scope, Mapping):
        raise not_a_connection(conn)
    return scope


def describe(conn: Connection) -> str:
    """Return how logs name a request."""
    return f"{conn.get('method', 'WebSocket')} {conn.get('path', '')}"
