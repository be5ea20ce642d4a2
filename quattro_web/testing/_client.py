"""A client that runs an app in the test's own event loop, as a server would."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from types import TracebackType
from typing import Self, Unpack

from starlette.types import ASGIApp, Receive, Scope, Send

from quattro_web._app_group import AppGroup
from quattro_web._health import AppHealth, health_of
from quattro_web.testing._exchange import Exchange
from quattro_web.testing._options import RequestOptions
from quattro_web.testing._requests import Requests, websocket_scope
from quattro_web.testing._server import Server
from quattro_web.testing._websocket import WebSocketExchange


class AppClient(Requests):
    """A client, and the server of one app, in the event loop of the test.

    The block starts the app up, with its lifespan, and shuts it down::

        async with AppClient(app) as client:
            response = await client.get("/prices", params={"shop": "corner"})
            assert response.json() == [9.99]

    Each request runs in a task of its own, as on a server. At the end of the block clients leave,
    the app is told of the shutdown as by a signal, and ends in order: requests, handed-over work,
    pumps, lifespan. If the block has failed, nothing is waited for but clean-up. There are no
    signals and no threads in it, and the process is never ended.

    Args:
        app: The ASGI app.
        headers: The headers of every request.
        raise_app_exceptions: Whether what the app raises is raised to the test: by the request, or
            else at the end of the block, failures of handed-over work as well. If not, clients get
            what a server makes of it, such as a 500.
        pumps: Whether the pumps start, or the names of those that do. `run_pump` runs the others.

    Attributes:
        headers: The headers of every request, which may be changed.

    Raises:
        TypeError: If *pumps* is a single name.
        LookupError: At the beginning of the block, if *pumps* has a name that no pump has.

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
        super().__init__(headers)
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

    def start(
        self,
        method: str,
        path: str,
        *,
        more_content: bool = False,
        **options: Unpack[RequestOptions],
    ) -> Exchange:
        """Start a request, without waiting for its response.

        Args:
            method: The method.
            path: The path, with a query string if there is one.
            more_content: Whether more of the body is to come, by `Exchange.upload`.
            **options: What `request` takes, `RequestOptions`.

        Raises:
            RuntimeError: If the app does not run.
            ValueError: If *path* does not begin with a slash, or there is more than one body.

        .. versionadded:: 0.1
        """
        scope, body = self._build(method, path, has_length=not more_content, **options)
        scope["state"] = self._server.state
        server = self._server
        exchange = Exchange(server.app, scope, body, more=more_content, raises=server.raises)
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
            path: The path, with a query string if there is one.
            headers: More headers.
            subprotocols: Those that the client knows.

        Raises:
            RuntimeError: If the app does not run.
            ValueError: If *path* does not begin with a slash.

        .. versionadded:: 0.1
        """
        scope = websocket_scope(path, {**self.headers, **(headers or {})}, subprotocols)
        scope["state"] = self._server.state
        socket = WebSocketExchange(self._server.app, scope, raises=self._server.raises)
        self._server.keep(socket)
        return socket

    async def asgi(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request of another client in this run of the app, with its lifespan's state.

        For what this client does not do, such as cookies and uploads of files:
        ``httpx.AsyncClient(transport=httpx.ASGITransport(app=client.asgi), base_url=...)``.

        .. versionadded:: 0.1
        """
        await self._server.app({**scope, "state": self._server.state}, receive, send)

    # The app

    @property
    def app_task_group(self) -> AppGroup:
        """The app's task group.

        Raises:
            RuntimeError: If the app does not run, or is not installed.

        .. versionadded:: 0.1
        """
        return AppGroup(self._server.runs()[0], "the test")

    @property
    def health(self) -> AppHealth:
        """The state of the app; of its pumps, those that were started.

        Raises:
            RuntimeError: If the app does not run, or is not installed.

        .. versionadded:: 0.1
        """
        return health_of(self._server.runs())

    async def wait_work_done(self) -> None:
        """Wait until all work that was handed over to the app is done.

        Raises:
            Exception: What it has raised, if that is to be raised; an `ExceptionGroup` of several.

        .. versionadded:: 0.1
        """
        await self._server.wait_work_done()

    async def run_pump(self, name: str, *, seconds: float | None = None) -> None:
        """Run a pump in the test itself, until it returns or some seconds are over.

        It is given what it takes, such as the state of the lifespan. It is neither restarted nor
        locked, and what it raises is raised here. On a `VirtualClockLoop` the seconds take no time.

        Args:
            name: Its name.
            seconds: After how many it is cancelled. None means never.

        Raises:
            LookupError: If no pump has that name, or if it runs already.
            RuntimeError: If the app does not run, or is not installed.

        .. versionadded:: 0.1
        """
        pump = self._server.pump(name)
        timeout = asyncio.timeout(seconds)
        try:
            async with timeout:
                await pump.run_alone()
        except TimeoutError:
            if not timeout.expired():
                raise

    def begin_shutdown(self) -> None:
        """Tell the app of a shutdown, as the signal that a server gets does.

        The `quattro_web.ShutdownEvent` is set at once, and the time of the `ShutdownGrace` runs.
        Called again, it hurries, as a second signal does. The lifespan goes on: await `shut_down`,
        or end the block.

        Raises:
            RuntimeError: If the app does not run, or is not installed.

        .. versionadded:: 0.1
        """
        self._server.signal()

    async def shut_down(self) -> None:
        """Shut the app down as a server does, with clients that stay, and wait until it has ended.

        Requests may finish within their grace, and are cancelled then; work that was handed over
        and pumps end, and the lifespan closes what it has opened.

        Raises:
            RuntimeError: If the app does not run, or is not installed.
            Exception: What has failed in the lifespan or in a pump.

        .. versionadded:: 0.1
        """
        self._server.runs()
        await self._server.end()
