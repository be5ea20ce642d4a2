"""Which route answered a request: its path with parameter names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from quattro_web._util.escaping import escaped

_METHODS = {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"}


def route_of(scope: Mapping[str, Any]) -> str:
    """Return the method and the route of a request, such as ``GET /orders/{order}``.

    Empty if no route was found, or none was looked for yet. A client chooses no part of it, so that
    there are no more than the app has, and what counts by them is bounded.
    """
    path = route_path(scope)
    if path is None:
        return ""
    method = "WebSocket" if scope.get("type") == "websocket" else scope.get("method")
    known = method in _METHODS or method == "WebSocket"
    return escaped(f"{method if known else 'other'} {path}")


def route_path(scope: Mapping[str, Any]) -> str | None:
    """Return the path of the route of a request, with the names of its parameters.

    None if no route was found, or none was looked for yet.
    """
    path = _path_of(scope)
    return None if path is None else _mount_of(scope) + path


def _path_of(scope: Mapping[str, Any]) -> str | None:
    """Return the path of the route, below where its app is mounted."""
    of_fastapi = scope.get("fastapi")
    if isinstance(of_fastapi, Mapping):
        # Where a router is included, its route knows only a part of its path in a newer FastAPI.
        path = getattr(of_fastapi.get("effective_route_context"), "path", None)
        if isinstance(path, str):
            return path
    route, endpoint = scope.get("route"), scope.get("endpoint")
    if route is None and endpoint is not None:  # an older Starlette does not say it
        routes = getattr(scope.get("app"), "routes", ())
        route = next((each for each in _flat(routes) if each.endpoint is endpoint), None)
        if route is None and "app_root_path" in scope:
            return ""
    if route is not None and not hasattr(route, "endpoint"):
        return ""  # something is mounted that has no routes
    path = getattr(route, "path", None)
    return path if isinstance(path, str) else None


def _flat(routes: Iterable[Any]) -> Iterator[Any]:
    for route in routes:
        if hasattr(route, "endpoint"):
            yield route
        yield from _flat(getattr(route, "routes", None) or ())


def _mount_of(scope: Mapping[str, Any]) -> str:
    """Return where the app of the route is mounted in that which the server calls."""
    root, above = scope.get("root_path", ""), scope.get("app_root_path")
    if above is None:
        return ""  # it is not: the root is that of a proxy
    names = {str(value): f"{{{name}}}" for name, value in scope.get("path_params", {}).items()}
    parts = str(root).removeprefix(str(above)).split("/")
    return "/".join(names.get(part, part) for part in parts)
