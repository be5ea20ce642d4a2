"""The details of a log entry as fields of its record, for programs that read logs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quattro_web._util.escaping import shortened
from quattro_web._util.routes import route_path
from quattro_web._util.scope import Connection

# What each field is called on a record. Others may have a `client` of their own there, which
# `logging` would refuse to set twice.
PREFIX = "quattro_"


def facts(conn: Connection | None = None, **fields: object) -> Mapping[str, object]:
    """Return what an entry is told as ``extra``: its facts, without those that are None.

    Args:
        conn: The scope of the request that it is about, for its method, path, route and client.
        **fields: Other facts, such as ``seconds=1.5``.
    """
    found: dict[str, object] = {}
    if conn is not None:
        client: Any = conn.get("client")
        found = {
            "method": shortened(str(conn.get("method", "WebSocket"))),
            "path": shortened(str(conn.get("path", ""))),
            "route": route_path(conn),
            "client": shortened(":".join(map(str, client))) if client else None,
        }
    found |= fields
    return {PREFIX + name: value for name, value in found.items() if value is not None}
