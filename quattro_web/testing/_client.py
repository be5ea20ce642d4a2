"""A client that runs an app in the test's own event loop, as a server would."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from starlette.types import ASGIApp, Receive, Scope, Send

from quattro_web._app_group import AppGroup
from quattro_web._app_run import AppRun
from quattro_web._harness import Harness
from quattro_web._health import AppHealth, health_of
from quattro_web._pump_run import PumpRun
from quattro_web.testing._exchange import Exchange
from quattro_web.testing._life import Life
from quattro_web.testing._requests import Requests, websocket_scope
from quattro_web.testing._serving import Serving
from quattro_web.testing._websocket import WebSocketExchange

# Passes of the event loop in which what a client's leaving ends has ended.
PASSES = 20


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
        if isinstance(pumps, str):
            msg = f"pumps must be a bool or a collection of names, got {pumps!r}: [{pumps!r}]"
            raise TypeError(msg)
        names = pumps if not isinstance(pumps, bool) else None if pumps else ()
        self._app = app
        self._raises = raise_app_exceptions
        self._harness = Harness(names)
        self._life: Life | None = None
        self._open: list[Serving] = []
        self._has_ended = False

    async def __aenter__(self) -> Self:
        """Start the app up.

        Raises:
            RuntimeError: If it was started before, or refuses to start.
            Exception: What keeps it from starting.
        """
        if self._life is not None:
            msg = "this client has run its app already: make another AppClient"
            raise RuntimeError(msg)
        life = self._life = Life(self._app, self._harness)
        try:
            await life.start()
        except BaseException:
            self._has_ended = True
            self._abandon()
            raise
        return self

    async def __aexit__(
        self,
        et: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        for serving in self._open:
            serving.leave()
        if not self._has_ended:
            if exc is not None:
                self._harness.signal()  # and once more, by the end: that hurries
            await self._end()
        if exc is None:
            self._raise_untold()

    # Requests

    def start(
        self,
        method: str,
        path: str,
        *,
        more_content: bool = False,
        **options: Any,
    ) -> Exchange:
        """Start a request, without waiting for its response.

        Args:
            method: The method.
            path: The path, with a query string if there is one.
            more_content: Whether more of the body is to come, by `Exchange.upload`.
            **options: What `request` takes.

        Raises:
            RuntimeError: If the app does not run.

        .. versionadded:: 0.1
        """
        scope, body = self._build(method, path, has_length=not more_content, **options)
        scope["state"] = dict(self._running().state)
        exchange = Exchange(self._app, scope, body, more=more_content, raises=self._raises)
        self._keep(exchange)
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

        .. versionadded:: 0.1
        """
        scope = websocket_scope(path, {**self.headers, **(headers or {})}, subprotocols)
        scope["state"] = dict(self._running().state)
        socket = WebSocketExchange(self._app, scope, raises=self._raises)
        self._keep(socket)
        return socket

    async def asgi(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request of another client in this run of the app, with its lifespan's state.

        For what this client does not do, such as cookies and uploads of files:
        ``httpx.AsyncClient(transport=httpx.ASGITransport(app=client.asgi), base_url=...)``.

        .. versionadded:: 0.1
        """
        await self._app({**scope, "state": dict(self._running().state)}, receive, send)

    # The app

    @property
    def app_group(self) -> AppGroup:
        """The app's task group.

        Raises:
            RuntimeError: If the app does not run, or is not installed.

        .. versionadded:: 0.1
        """
        return AppGroup(self._runs()[0], "the test")

    @property
    def health(self) -> AppHealth:
        """The state of the app; of its pumps, those that were started.

        Raises:
            RuntimeError: If the app does not run, or is not installed.

        .. versionadded:: 0.1
        """
        return health_of(self._runs())

    async def work_done(self) -> None:
        """Wait until all work that was handed over to the app is done.

        Raises:
            Exception: What it has raised, if that is to be raised; an `ExceptionGroup` of several.

        .. versionadded:: 0.1
        """
        while tasks := [task for run in self._runs() for task in run.work.running]:
            await asyncio.wait(tasks)
        failures, self._harness.failures[:] = list(self._harness.failures), []
        if self._raises:
            _raise_all("handed-over work has failed", failures)

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
        pump = self._pump(name)
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
        self._runs()
        self._harness.signal()

    async def shut_down(self) -> None:
        """Shut the app down as a server does, with clients that stay, and wait until it has ended.

        Requests may finish within their grace, and are cancelled then; work that was handed over
        and pumps end, and the lifespan closes what it has opened.

        Raises:
            RuntimeError: If the app does not run, or is not installed.
            Exception: What has failed in the lifespan or in a pump.

        .. versionadded:: 0.1
        """
        self._runs()
        await self._end()

    async def _end(self) -> None:
        """End the app: the requests, then the lifespan, as servers do."""
        life = self._running()
        self._has_ended = True
        try:
            if not self._harness.signal():
                for _ in range(PASSES):  # nothing but the leaving of its clients ends its requests
                    await asyncio.sleep(0)
                self._cancel_requests()
            while (open_tasks := self._open_tasks()) and life.task and not life.task.done():
                # The app ends by itself when the time of requests that do not end is over.
                everything = {*open_tasks, life.task}
                await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
            await life.stop()
        finally:
            self._abandon()

    def _keep(self, serving: Serving) -> None:
        self._open = [other for other in self._open if not other.task.done() or other.untold()]
        self._open.append(serving)

    def _open_tasks(self) -> list[asyncio.Task[None]]:
        return [serving.task for serving in self._open if not serving.task.done()]

    def _cancel_requests(self) -> None:
        for task in self._open_tasks():
            task.cancel()

    def _abandon(self) -> None:
        self._cancel_requests()
        if self._life is not None and self._life.task is not None:
            self._life.task.cancel()

    def _raise_untold(self) -> None:
        if self._raises:
            errors = [error for serving in self._open if (error := serving.untold()) is not None]
            _raise_all("requests and work of the app have failed", errors + self._harness.failures)

    def _running(self) -> Life:
        if self._life is None or self._has_ended:
            msg = "the app does not run: use `async with AppClient(app) as client`"
            raise RuntimeError(msg)
        return self._life

    def _runs(self) -> list[AppRun]:
        self._running()
        if not self._harness.runs:
            msg = f"{self._app!r} has no app group: call quattro_web.install(app)"
            raise RuntimeError(msg)
        return self._harness.runs

    def _pump(self, name: str) -> PumpRun:
        held_back = {pump.name: pump for run in self._runs() for pump in run.pumping.held_back}
        if name not in held_back:
            running = [pump.name for run in self._runs() for pump in run.pumping.runs]
            msg = (
                f"pump {name!r} runs already: AppClient(app, pumps=False) does not start it"
                if name in running
                else f"there is no pump {name!r}; the app has {sorted([*held_back, *running])}"
            )
            raise LookupError(msg)
        return held_back[name]


def _raise_all(message: str, errors: list[BaseException]) -> None:
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise BaseExceptionGroup(message, errors)
