"""The ASGI middleware."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from starlette.types import ASGIApp, Receive, Scope, Send

from quattro_core import SharedLimit
from quattro_web._app.lifespan import serve_lifespan
from quattro_web._app.lookup import register
from quattro_web._app.run import AppRun, AppSettings
from quattro_web._pumps.pump import Pump, PumpFunction
from quattro_web._request.deadlines import Deadlines
from quattro_web._request.exchange import EndedRequest, Exchange, Settings
from quattro_web._request.failures import answer_error, end_request
from quattro_web._request.handlers import exited
from quattro_web._request.watch import Watch, WatchTimer
from quattro_web._shutdown.state import ShutdownGrace
from quattro_web._util.arguments import checked_limit
from quattro_web._util.asyncio import current_loop
from quattro_web._util.scope import REQUEST, RUN

logger = logging.getLogger("quattro_web")


class TaskGroupMiddleware:
    """Pure ASGI middleware that gives a task group to each request, and one to the app.

    In Starlette and FastAPI, `install` puts it where it belongs: innermost among the user's
    middlewares, so that the headers that others add (CORS) are also on the answer to a failed
    child. By hand: ``Middleware(TaskGroupMiddleware)`` as the last of the list. It wraps any other
    ASGI app as well.

    Args:
        app: The ASGI app.
        pumps: As with `install`, like all that follow.
        concurrency_limit: A limit on the children of one request.
        total_limit: A limit on the children of all requests together.
        max_waiting: How many children may wait for that.
        cancel_on_disconnect: Whether a request is cancelled when its client leaves.
        deadline: The seconds until a response begins.
        stream_deadline: The seconds until a stream is complete.
        deadline_header: A request header with a shorter deadline.
        app_concurrency_limit: A limit on handed-over work.
        app_max_waiting: How much of it may wait for that.
        shutdown_grace: The seconds of a shutdown.

    Raises:
        TypeError: As `install`, of an option.
        ValueError: As `install`.

    .. versionadded:: 0.1
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        pumps: Iterable[Pump | PumpFunction] = (),
        concurrency_limit: int | None = None,
        total_limit: int | None = None,
        max_waiting: int | None = None,
        cancel_on_disconnect: bool = False,
        deadline: float | Mapping[str, float | None] | None = None,
        stream_deadline: float | Mapping[str, float | None] | None = None,
        deadline_header: str | None = None,
        app_concurrency_limit: int | None = None,
        app_max_waiting: int | None = None,
        shutdown_grace: ShutdownGrace | None = None,
    ) -> None:
        checked_limit("concurrency_limit", concurrency_limit)  # a bad one is an error now
        checked_limit("total_limit", total_limit)
        checked_limit("max_waiting", max_waiting, least=0)
        if max_waiting is not None and total_limit is None:
            msg = f"max_waiting={max_waiting!r} needs a total_limit to wait for"
            raise ValueError(msg)
        shared = None if total_limit is None else SharedLimit(total_limit, max_waiting=max_waiting)
        self.app = app
        self._app_settings = AppSettings(
            pumps=pumps,
            app_concurrency_limit=app_concurrency_limit,
            app_max_waiting=app_max_waiting,
            shutdown_grace=shutdown_grace,
        )
        self._settings = Settings(concurrency_limit, shared)
        self._requests = self._settings.requests
        self._cancel_on_disconnect = cancel_on_disconnect
        self._deadlines = Deadlines(deadline, stream_deadline, deadline_header)
        self._watch_timer = WatchTimer(self._requests)
        self._ended = EndedRequest(self._settings)
        self._look_for_pumps()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection, or the lifespan."""
        outer: Exchange | EndedRequest | None = scope.get(REQUEST)
        if scope["type"] not in _KINDS or (outer is not None and outer.group is not None):
            await self._serve_other(scope, receive, send)
            return
        exchange = scope[REQUEST] = Exchange(self._settings, receive, send)
        self._requests[exchange] = scope
        error = None
        try:
            if self._is_special or outer is not None:
                self._prepare(exchange, scope, outer)
            try:
                await self.app(scope, exchange.receive, exchange.send)
            except BaseException as exc:
                if not exchange.takes_cut_off(exc):
                    if exchange.tasks is None and not isinstance(exc, _TELLING):
                        raise
                    error = exited(exc) if isinstance(exc, SystemExit) else exc
            if exchange.tasks is not None:
                if error is not None or not exchange.drop_finished_group():
                    await end_request(exchange, exchange.tasks, error)
            elif error is not None:
                await answer_error(exchange, scope, error)
            elif exchange.held is not None:
                await exchange.gate.flush()  # the server has more to say of it
        finally:
            error = None  # it refers to this frame
            del self._requests[exchange]
            scope[REQUEST] = outer or self._ended
            if (
                exchange.tasks is not None
                or exchange.watch is not None
                or outer is not None
                or exchange.opened_gate is not None
            ):
                await exchange.close()

    async def _serve_other(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the lifespan, and hand on what is none of ours or has its group already."""
        if scope["type"] == "lifespan":
            await self._serve_lifespan(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _prepare(
        self, exchange: Exchange, scope: Scope, outer: Exchange | EndedRequest | None
    ) -> None:
        """Do for a request what only some need."""
        if self._never_started:
            self._report_pumps()
        if outer is not None:
            # In a sub-app with a middleware of its own, this one is nearer to the handler: it
            # answers.
            exchange.outer = outer
            if isinstance(outer, Exchange):
                outer.inner = exchange
                if outer.watch is not None:
                    outer.watch.move_to(exchange, scope)
        if self._cancel_on_disconnect:
            self._watch_timer.begin(exchange)
        if self._deadlines.are_any and scope["type"] == "http":
            self._set_deadline(exchange, scope)

    async def _serve_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._set_started()
        run = AppRun(self._app_settings, self._settings.requests)
        runs, loop = self._settings.runs, current_loop()
        if loop in runs and "state" in scope:
            # Another server of this event loop runs the app as well: its requests tell them apart.
            run.is_told_by_state = True
            scope["state"][RUN] = run
        elif loop is not None:
            runs[loop] = run
        register(scope.get("app", self), run)
        try:
            await serve_lifespan(self.app, run, scope, receive, send)
        finally:
            run.close()
            if loop is not None and runs.get(loop) is run:
                del runs[loop]

    @property
    def _is_cancelling(self) -> bool:
        return self._cancel_on_disconnect or self._deadlines.are_any

    def _look_for_pumps(self) -> None:
        self._never_started = not self._settings.has_started and bool(len(self._app_settings.pumps))
        # Whether a request needs more than its exchange: most apps' requests don't.
        self._is_special = self._is_cancelling or self._never_started

    def _set_started(self) -> None:
        self._settings.has_started = True
        self._never_started = False
        self._is_special = self._is_cancelling

    def _report_pumps(self) -> None:
        is_known = self._settings.has_started
        self._set_started()  # once is enough
        if is_known:
            return
        logger.error(
            "a request came, but the lifespan of the app was not run, so its pumps are not: %s. "
            "Servers run the lifespan of the outermost app, and not of one that is mounted in it: "
            "give the pumps to that one, and don't turn the server's lifespan off",
            ", ".join(pump.name for pump in self._app_settings.pumps),
        )

    def _set_deadline(self, exchange: Exchange, scope: Scope) -> None:
        limits, asked = self._deadlines.of(scope), self._deadlines.asked_for(scope)
        if exchange.watch is None:
            if asked is None and (limits is None or limits[0] is None):
                return
            exchange.watch = Watch(exchange, scope)
        # That of the app around this one counts where nothing is said here.
        if limits is not None:
            exchange.watch.deadline(*limits)
        if asked is not None:
            exchange.watch.shorten_deadline(asked)


def same_around(app: ASGIApp, prototype: TaskGroupMiddleware) -> TaskGroupMiddleware:
    """Return a middleware around *app* that shares all it has with another one.

    Starlette makes those of an app when the first connection or lifespan comes, and makes them anew
    for each that comes in another thread meanwhile. The app uses the last ones: all are as one.
    """
    same = TaskGroupMiddleware.__new__(TaskGroupMiddleware)
    # One by one: CPython is slower to find the attributes of what `copy` makes, at each request.
    for name, value in vars(prototype).items():
        setattr(same, name, value)
    same.app = app
    same._look_for_pumps()  # noqa: SLF001  # its own file; they may be added until now
    return same


_KINDS = frozenset({"http", "websocket"})

# What may stand for something else that has failed.
_TELLING = (BaseExceptionGroup, SystemExit)
