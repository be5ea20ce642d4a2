"""A client that runs an app in the test's own event loop, as a server would."""

from __future__ import annotations

import asyncio
import json as json_module
from collections.abc import Collection, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypedDict, Unpack
from urllib.parse import quote, unquote, urlencode

from starlette.types import ASGIApp, Receive, Scope, Send

from quattro_web._app.group import AppTaskGroup
from quattro_web._app.health import AppHealth, health_of
from quattro_web.testing._http import HTTPExchange, Response
from quattro_web.testing._server import Server
from quattro_web.testing._websocket import WebSocketExchange

_HEADERS = {"host": "testserver", "accept": "*/*", "user-agent": "quattro-web"}

# The handshake of a WebSocket, with the key that RFC 6455 takes for its example.
_UPGRADE = {
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    "sec-websocket-version": "13",
}

# Not encoded in a path and in a query string; the % is that of characters that are encoded already.
_PATH_SAFE = "/:@!$&'()*+,;=~%"
_QUERY_SAFE = _PATH_SAFE + "?"

Params = Mapping[str, Any] | Sequence[tuple[str, Any]]


class RequestOptions(TypedDict, total=False):
    """The keyword arguments of `AppClient.get` and the other methods; all are optional.

    A helper of your own can take and forward them as ``**options: Unpack[RequestOptions]``.

    Attributes:
        params: Additional fields of the query string.
        headers: Additional headers.
        content: The body.
        json: Instead of *content*: a value to send as JSON.
        data: Instead of *content*: the fields of a form.

    .. versionadded:: 0.1
    """

    params: Params | None
    headers: Mapping[str, str] | None
    content: bytes | str
    json: Any
    data: Params | None


class AppClient:
    """A client, and a server for one app, in the test's event loop.

    The block starts the app, with its lifespan, and shuts it down::

        async with AppClient(app) as client:
            response = await client.get("/prices", params={"shop": "corner"})
            assert response.json() == [9.99]

    Each request runs in its own task, as on a server. At the end of the block, all clients
    disconnect and the app shuts down in the same order as after a signal: requests, handed-over
    work, pumps, lifespan. If the block fails, everything is cancelled, and the client waits only
    for clean-up. It uses no signals and no threads, and never ends the process.

    Args:
        app: The ASGI app.
        headers: The headers of every request.
        raise_app_exceptions: Whether the app's errors are raised in the test: by the request, or
            else at the end of the block, including errors of handed-over work. If false, clients
            get the response that a server would send, such as a 500.
        pumps: Whether the pumps start, or the names of those that start. `run_pump` can run the
            others.

    Attributes:
        headers: The headers of every request; may be changed.

    Raises:
        TypeError: If *pumps* is a single name.
        LookupError: At the start of the block, if *pumps* has a name that no pump has.

    .. versionadded:: 0.1
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        headers: Mapping[str, str] | None = None,
        raise_app_exceptions: bool = True,
        pumps: bool | Collection[str] = True,
    ) -> None:
        self.headers: dict[str, str] = {**_HEADERS, **_lower(headers)}
        self._server = Server(app, pumps=pumps, raises=raise_app_exceptions)

    async def __aenter__(self) -> Self:
        """Start the app up.

        Raises:
            RuntimeError: If it was started before, or refuses to start.
            LookupError: If *pumps* has a name that none of its pumps has.
            Exception: What keeps it from starting.
        """
        await self._server.start()
        return self

    async def __aexit__(
        self,
        et: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await self._server.close(has_failed=exc is not None)

    # Requests

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
        """Make a request, and return its response once the app has finished the request.

        Args:
            method: The method.
            path: The path, with a query string if needed.
            params: Additional fields of the query string.
            headers: Additional headers.
            content: The body.
            json: Instead of *content*: a value to send as JSON.
            data: Instead of *content*: the fields of a form.

        Raises:
            RuntimeError: If the app is not running.
            ValueError: If *path* does not begin with a slash, or if more than one body is given.
            ResponseCutError: If the app ended in the middle of the response.
            Exception: Whatever the app raised, if *raise_app_exceptions* is true.

        .. versionadded:: 0.1
        """
        exchange = self.start(
            method, path, params=params, headers=headers, content=content, json=json, data=data
        )
        try:
            return await exchange.response()
        finally:
            exchange.disconnect()  # the test may have been cancelled

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

    def start(
        self,
        method: str,
        path: str,
        *,
        more_content: bool = False,
        **options: Unpack[RequestOptions],
    ) -> HTTPExchange:
        """Start a request without waiting for its response.

        Args:
            method: The method.
            path: The path, with a query string if needed.
            more_content: Whether more of the body will follow, through `HTTPExchange.upload`.
            **options: The options of `request`: see `RequestOptions`.

        Raises:
            RuntimeError: If the app is not running.
            ValueError: If *path* does not begin with a slash, or if more than one body is given.

        .. versionadded:: 0.1
        """
        scope, body = self._build(method, path, has_length=not more_content, **options)
        scope["state"] = self._server.state
        server = self._server
        exchange = HTTPExchange(server.app, scope, body, more=more_content, raises=server.raises)
        server.keep(exchange)
        return exchange

    def websocket(
        self,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        subprotocols: Sequence[str] = (),
    ) -> WebSocketExchange:
        """Open a WebSocket, for an ``async with`` block.

        Args:
            path: The path, with a query string if needed.
            headers: Additional headers.
            subprotocols: The subprotocols that the client offers.

        Raises:
            RuntimeError: If the app is not running.
            ValueError: If *path* does not begin with a slash.

        .. versionadded:: 0.1
        """
        scope = _websocket_scope(path, {**self.headers, **(headers or {})}, subprotocols)
        scope["state"] = self._server.state
        socket = WebSocketExchange(self._server.app, scope, raises=self._server.raises)
        self._server.keep(socket)
        return socket

    async def asgi(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let another client send a request to this run of the app, with its lifespan's state.

        For features that this client lacks, such as cookies and file uploads:
        ``httpx.AsyncClient(transport=httpx.ASGITransport(app=client.asgi), base_url=...)``.

        .. versionadded:: 0.1
        """
        await self._server.app({**scope, "state": self._server.state}, receive, send)

    # The app

    @property
    def app_task_group(self) -> AppTaskGroup:
        """The app's task group.

        Raises:
            RuntimeError: If the app is not running, or not installed.

        .. versionadded:: 0.1
        """
        return AppTaskGroup(self._server.runs()[0], "the test", {})

    @property
    def health(self) -> AppHealth:
        """The state of the app, with the pumps that were started.

        Raises:
            RuntimeError: If the app is not running, or not installed.

        .. versionadded:: 0.1
        """
        return health_of(self._server.runs())

    async def wait_work_done(self) -> None:
        """Wait until all handed-over work is done.

        Raises:
            Exception: Whatever the work raised, if *raise_app_exceptions* is true; several errors
                in an `ExceptionGroup`.

        .. versionadded:: 0.1
        """
        await self._server.wait_work_done()

    async def run_pump(self, name: str, *, seconds: float | None = None) -> None:
        """Run a pump in the test itself, until it returns or *seconds* have passed.

        The pump gets its usual arguments, such as the lifespan's state. It is neither restarted nor
        locked, and its errors are raised here. On a `VirtualClockLoop`, the seconds take no real
        time.

        Args:
            name: Its name.
            seconds: After how many seconds the pump is cancelled. None means never.

        Raises:
            LookupError: If no pump has that name, or if the pump is already running.
            RuntimeError: If the app is not running, or not installed.

        .. versionadded:: 0.1
        """
        pump = self._server.pump(name)
        timeout = asyncio.timeout(seconds)
        try:
            async with timeout:
                await pump.run_unsupervised()
        except TimeoutError:
            if not timeout.expired():
                raise

    def begin_shutdown(self) -> None:
        """Begin the app's shutdown, as a server's signal does.

        This sets the `quattro_web.ShutdownEvent` at once, and starts the time of the
        `ShutdownGrace`. A second call skips the grace period, as a second signal does. The lifespan
        keeps running: await `shut_down`, or end the block.

        Raises:
            RuntimeError: If the app is not running, or not installed.

        .. versionadded:: 0.1
        """
        self._server.signal()

    async def shut_down(self) -> None:
        """Shut the app down as a server does, while clients stay connected, and wait until it has
        ended.

        Requests may finish within their grace period, and are then cancelled; handed-over work and
        pumps end, and the lifespan closes its resources.

        Raises:
            RuntimeError: If the app is not running, or not installed.
            Exception: Whatever failed in the lifespan or in a pump.

        .. versionadded:: 0.1
        """
        self._server.runs()
        await self._server.end()

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


def _websocket_scope(path: str, headers: Mapping[str, str], subprotocols: Sequence[str]) -> Scope:
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
