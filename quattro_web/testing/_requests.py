"""How requests are put together."""

from __future__ import annotations

import json as json_module
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Unpack
from urllib.parse import quote, unquote, urlencode

from starlette.types import Scope

from quattro_web.testing._exchange import Exchange
from quattro_web.testing._options import Params, RequestOptions
from quattro_web.testing._response import Response

_HEADERS = {"host": "testserver", "accept": "*/*", "user-agent": "quattro-web"}

# The handshake of a WebSocket, with the key that RFC 6455 takes for its example.
_UPGRADE = {
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    "sec-websocket-version": "13",
}

# What stays as it is in a path and in a query string; the % of what is encoded already as well.
_PATH_SAFE = "/:@!$&'()*+,;=~%"
_QUERY_SAFE = _PATH_SAFE + "?"


class Requests(ABC):
    """What a client asks for, one method for each of HTTP's.

    Attributes:
        headers: The headers of every request.
    """

    def __init__(self, headers: Mapping[str, str] | None) -> None:
        self.headers: dict[str, str] = {**_HEADERS, **_lower(headers)}

    @abstractmethod
    def start(
        self,
        method: str,
        path: str,
        *,
        more_content: bool = False,
        **options: Unpack[RequestOptions],
    ) -> Exchange:
        """Start a request."""

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | str = b"",
        json: Any = None,
        data: Params | None = None,
    ) -> Response:
        """Make a request, and return its response, when the app has finished with it.

        Args:
            method: The method.
            path: The path, with a query string if there is one.
            params: What is added to the query string.
            headers: More headers.
            content: The body.
            json: The body, as a value that is sent as JSON, instead.
            data: The body, as the fields of a form, instead.

        Raises:
            RuntimeError: If the app does not run.
            ValueError: If *path* does not begin with a slash, or there is more than one body.
            ResponseCutError: If the app has ended in the middle of the response.
            Exception: What the app has raised, if that is to be raised.

        .. versionadded:: 0.1
        """
        exchange = self.start(
            method, path, params=params, headers=headers, content=content, json=json, data=data
        )
        try:
            return await exchange.response()
        finally:
            exchange.disconnect()  # the test may have lost its patience

    async def get(self, path: str, **options: Unpack[RequestOptions]) -> Response:
        """Make a GET request; the options are `RequestOptions`.

        .. versionadded:: 0.1
        """
        return await self.request("GET", path, **options)

    async def head(self, path: str, **options: Unpack[RequestOptions]) -> Response:
        """Make a HEAD request; the options are `RequestOptions`.

        .. versionadded:: 0.1
        """
        return await self.request("HEAD", path, **options)

    async def options(self, path: str, **options: Unpack[RequestOptions]) -> Response:
        """Make an OPTIONS request; the options are `RequestOptions`.

        .. versionadded:: 0.1
        """
        return await self.request("OPTIONS", path, **options)

    async def post(self, path: str, **options: Unpack[RequestOptions]) -> Response:
        """Make a POST request; the options are `RequestOptions`.

        .. versionadded:: 0.1
        """
        return await self.request("POST", path, **options)

    async def put(self, path: str, **options: Unpack[RequestOptions]) -> Response:
        """Make a PUT request; the options are `RequestOptions`.

        .. versionadded:: 0.1
        """
        return await self.request("PUT", path, **options)

    async def patch(self, path: str, **options: Unpack[RequestOptions]) -> Response:
        """Make a PATCH request; the options are `RequestOptions`.

        .. versionadded:: 0.1
        """
        return await self.request("PATCH", path, **options)

    async def delete(self, path: str, **options: Unpack[RequestOptions]) -> Response:
        """Make a DELETE request; the options are `RequestOptions`.

        .. versionadded:: 0.1
        """
        return await self.request("DELETE", path, **options)

    def _build(
        self,
        method: str,
        path: str,
        *,
        has_length: bool,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | str = b"",
        json: Any = None,
        data: Params | None = None,
    ) -> tuple[Scope, bytes]:
        bodies = {"content": content or None, "json": json, "data": data}
        given = [name for name, value in bodies.items() if value is not None]
        if len(given) > 1:
            msg = f"a request has one body, got {' and '.join(given)}: give one of them"
            raise ValueError(msg)
        fields = dict(self.headers)
        body = content.encode() if isinstance(content, str) else content
        if json is not None:
            body = json_module.dumps(json).encode()
            fields["content-type"] = "application/json"
        elif data is not None:
            body = _encode(data)
            fields["content-type"] = "application/x-www-form-urlencoded"
        if not has_length:
            fields["transfer-encoding"] = "chunked"
        elif body:
            fields["content-length"] = str(len(body))
        scope = _scope("http", path, {**fields, **_lower(headers)})
        if params:
            query = (scope["query_string"], _encode(params))
            scope["query_string"] = b"&".join(filter(None, query))
        return {**scope, "method": method.upper(), "scheme": "http"}, body


def websocket_scope(path: str, headers: Mapping[str, str], subprotocols: Sequence[str]) -> Scope:
    """Return the scope of a WebSocket."""
    upgrade = dict(_UPGRADE)
    if subprotocols:
        upgrade["sec-websocket-protocol"] = ", ".join(subprotocols)
    scope = _scope("websocket", path, {**upgrade, **_lower(headers)})
    scope["extensions"] = {"websocket.http.response": {}}
    return {**scope, "scheme": "ws", "subprotocols": list(subprotocols)}


def _scope(kind: str, path: str, headers: Mapping[str, str]) -> dict[str, Any]:
    if not path.startswith("/"):
        msg = f"path must begin with '/', got {path!r}: a client has no host but its app"
        raise ValueError(msg)
    raw_path, _, query = path.partition("#")[0].partition("?")
    return {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "path": unquote(raw_path),
        "raw_path": quote(raw_path, safe=_PATH_SAFE).encode(),
        "query_string": quote(query, safe=_QUERY_SAFE).encode(),
        "root_path": "",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
        "client": ("testclient", 50000),
        "server": ("testserver", 80),
        "extensions": {},
    }


def _lower(headers: Mapping[str, str] | None) -> dict[str, str]:
    return {name.lower(): value for name, value in (headers or {}).items()}


def _encode(fields: Params) -> bytes:
    """Encode fields as forms do; a field may have several values, and True is spelt as in JSON."""
    items = fields.items() if isinstance(fields, Mapping) else fields
    pairs = [(name, each) for name, value in items for each in _values(value)]
    return urlencode(pairs).encode()


def _values(value: Any) -> list[Any]:
    if isinstance(value, (list, tuple)):
        return [each for inner in value for each in _values(inner)]
    if isinstance(value, bool):
        return [str(value).lower()]
    return ["" if value is None else value]
