"""The keys of the package in an ASGI scope and in the state of a lifespan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quattro_web._util.escaping import escaped

REQUEST = "quattro_web.request"
APP = "quattro_web.app"
# In the state: the run of an app of which there is another one in the event loop already.
RUN = "quattro_web.run"

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


def told_run(scope: Connection) -> Any:
    """Return the run of the app that the state of a request tells; None if there is one alone."""
    state = scope.get("state")
    return state.get(RUN) if isinstance(state, Mapping) else None


def describe(conn: Connection) -> str:
    """Return how logs name a request: escaped, since its client has chosen each character.

    Without a space in its path, nobody takes the rest of a path for the rest of the entry.
    """
    path = str(conn.get("path", "")).replace(" ", "%20")
    return escaped(f"{conn.get('method', 'WebSocket')} {path}")
