"""The deadlines of requests: those that the app sets, by path, and those that clients ask for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from quattro_web._util.arguments import checked_header, checked_seconds, checked_stream

# The seconds until a response begins (or is complete, if it is no stream), and those until a stream
# is complete.
Limits = tuple[float | None, float | None]


class Deadlines:
    """What an app says of the deadlines of its requests.

    Args:
        deadline: As with `install`, like those that follow.
        stream_deadline: The seconds of a whole stream.
        header: The name of a request header with a shorter one.

    Attributes:
        are_any: Whether anything is said: otherwise no request needs to be looked at.
    """

    def __init__(
        self,
        deadline: float | Mapping[str, float | None] | None,
        stream_deadline: float | Mapping[str, float | None] | None,
        header: str | None,
    ) -> None:
        begins = _by_path("deadline", deadline)
        streams = _by_path("stream_deadline", stream_deadline)
        self._header = checked_header("deadline_header", header)
        self.are_any = bool(begins) or header is not None
        # A number is for the streams that have a deadline at all; a path means what it says.
        is_for_all = not isinstance(stream_deadline, Mapping) and any(begins.values())
        # Prefixes of paths, the longest one first, each with what all paths below it begin with.
        self._rules: list[tuple[str, str, Limits]] = []
        for prefix in sorted({*begins, *streams}, key=len, reverse=True):
            begin, stream = _limit_of(prefix, begins), _limit_of(prefix, streams)
            if begin is None and (is_for_all or prefix not in streams):
                stream = None  # where there is no deadline, a stream has none either
            of = "" if prefix == "/" else f" of {prefix!r}"
            checked_stream(f"stream_deadline{of}", stream, f"deadline{of}", begin)
            if _prefixes_of(prefix, begins):
                self._rules.append((prefix, _below(prefix), (begin, stream)))

    def of(self, scope: Mapping[str, Any]) -> Limits | None:
        """Return the limits of a request; None if the app says nothing of its path."""
        path = _route_path(scope)
        for prefix, below, limits in self._rules:
            if path.startswith(below) or path == prefix:
                return limits
        return None

    def asked_for(self, scope: Mapping[str, Any]) -> float | None:
        """Return the seconds that the client asks for, if it does."""
        if self._header is not None:
            for name, value in scope["headers"]:
                if name == self._header:
                    with suppress(ValueError):
                        return checked_seconds("deadline", float(value))
        return None


def _by_path(
    name: str, seconds: float | Mapping[str, float | None] | None
) -> dict[str, float | None]:
    """Return the seconds of each prefix of paths; a number is for all of them.

    Raises:
        TypeError: If a key is not a string, or a value not a number.
        ValueError: If a key is no prefix of a path, or a value not positive and finite.
    """
    if not isinstance(seconds, Mapping):
        return {} if (checked := checked_seconds(name, seconds)) is None else {"/": checked}
    for prefix in seconds:
        if not isinstance(prefix, str):
            msg = f"{name} must have paths for keys, such as '/reports', got {prefix!r}"
            raise TypeError(msg)
        if not _PREFIX.fullmatch(prefix):
            msg = (
                f"{name} must have paths for keys that begin with / and don't end with one, such "
                f"as '/reports', got {prefix!r}: a key holds for all paths below it; for a path "
                "with parameters, set the deadline in the route"
            )
            raise ValueError(msg)
    return {prefix: checked_seconds(f"{name}[{prefix!r}]", s) for prefix, s in seconds.items()}


# A query and a pattern would never match: these characters reach a path only where a client has
# escaped them.
_PREFIX = re.compile(r"/|(/[^/?#*{}]+)+")


def _below(prefix: str) -> str:
    """Return what the paths below a prefix begin with; the empty one is below the root as well."""
    return "" if prefix == "/" else f"{prefix}/"


def _prefixes_of(path: str, prefixes: Iterable[str]) -> list[str]:
    return [prefix for prefix in prefixes if path == prefix or path.startswith(_below(prefix))]


def _limit_of(path: str, limits: Mapping[str, float | None]) -> float | None:
    return limits[max(found, key=len)] if (found := _prefixes_of(path, limits)) else None


def _route_path(scope: Mapping[str, Any]) -> str:
    """Return the path as the routes of the app see it: without that under which it is mounted.

    Nor with the server's or the app's ``root_path``, so that no key depends on the proxy. It is
    what `starlette._utils.get_route_path` returns, which is not public.
    """
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
        return path[len(root) :]
    return path
