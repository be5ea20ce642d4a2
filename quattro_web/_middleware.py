"""The ASGI middleware."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Mapping

from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
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
from quattro_web._request.watch import WatchTimer
from quattro_web._shutdown.state import ShutdownGrace
from quattro_web._telemetry.offer import offer_metrics, traced_groups
from quattro_web._tree.dump import Dumping, checked_signal
from quattro_web._util.arguments import checked_bool, checked_limit
from quattro_web._util.asyncio import current_loop
from quattro_web._util.scope import REQUEST, RUN

logger = logging.getLogger("quattro_web")


class TaskGroupMiddleware:
    """Pure ASGI middleware that gives every request a task group, and the app another one.

    In Starlette and FastAPI, `install` puts it in the right place: innermost among the user's
    middlewares, so that headers added by the others (CORS) are also on the error response for a
    failed child. To add it yourself, put ``Middleware(TaskGroupMiddleware)`` last in the list. It
    can also wrap any other ASGI app.

    Args:
        app: The ASGI app.
        pumps: As with `install`, like all options below.
        concurrency_limit: A limit on the children of one request.
        total_limit: A limit on the children of all requests together.
        max_waiting: How many children may wait for *total_limit*.
        cancel_on_disconnect: Whether a request is cancelled when its client disconnects.
        deadline: The seconds until a response must begin.
        stream_deadline: The seconds until a stream must be complete.
        deadline_header: A request header with a shorter deadline.
        app_concurrency_limit: A limit on handed-over work.
        app_max_waiting: How much of it may wait for *app_concurrency_limit*.
        shutdown_grace: The seconds that each part of a shutdown may take.
        dump_signal: A signal that logs all tasks.
        child_spans: Whether each child of a request has a span.

    Raises:
        TypeError: As with `install`, for an option.
        ValueError: As with `install`.

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
        dump_signal: int | None = None,
        child_spans: bool = False,
    ) -> None:
        checked_limit("concurrency_limit", concurrency_limit)  # a bad one is an error now
        checked_limit("total_limit", total_limit)
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
        self._child_spans = checked_bool("child_spans", child_spans)
        self._dump_signal = checked_signal(dump_signal)
        self._settings = Settings(concurrency_limit, shared)
        self._requests = self._settings.requests
        self._cancel_on_disconnect = checked_bool("cancel_on_disconnect", cancel_on_disconnect)
        self._deadlines = Deadlines(deadline, stream_deadline, deadline_header)
        self._watch_timer = WatchTimer(self._requests)
        self._ended = EndedRequest(self._settings)
        self.has_warned: bool = False  # see `_warn_of_hidden_cuts`
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
            if exchange.is_plain:
                if error is not None:
                    await answer_error(exchange, scope, error)
            elif exchange.tasks is not None:
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
            if not exchange.is_plain:
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
        exchange.is_plain = False
        if self._never_started:
            self._report_pumps()
        if outer is not None:
            # In a sub-app with a middleware of its own, this one is nearer to the handler: it
            # answers.
            exchange.outer = outer
            if isinstance(outer, Exchange):
                outer.is_plain = False
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
        app = scope.get("app", self)
        register(app, run)
        if "opentelemetry" in sys.modules:  # the app uses it, or FastAPI
            offer_metrics()
            group_class, spans = traced_groups(app, child_spans=self._child_spans)
            self._settings.set_group_class(group_class)
            run.use_spans(spans)
        try:
            with Dumping(self._dump_signal, run):
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
            "a request arrived, but the app's lifespan is not running, and neither are its pumps: "
            "%s. Servers run only the outermost app's lifespan, not that of a mounted app: give "
            "the pumps to the outermost app, and don't turn the server's lifespan off",
            ", ".join(pump.name for pump in self._app_settings.pumps),
        )

    def _set_deadline(self, exchange: Exchange, scope: Scope) -> None:
        limits, asked = self._deadlines.of(scope), self._deadlines.asked_for(scope)
        watch = exchange.watch
        if watch is None:
            if asked is None and (limits is None or limits[0] is None):
                return
            watch = exchange.open_watch(scope)
        # That of the app around this one counts where nothing is said here.
        if limits is not None:
            watch.deadline(*limits)
        if asked is not None:
            watch.shorten_deadline(asked)


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
    _warn_of_hidden_cuts(prototype)
    return same


def _is_base(cls: object) -> bool:
    return isinstance(cls, type) and issubclass(cls, BaseHTTPMiddleware)


def _warn_of_hidden_cuts(prototype: TaskGroupMiddleware) -> None:
    """Log which middlewares of an app hide from clients that a stream was cut, once."""
    app = prototype.app
    if prototype.has_warned or not isinstance(app, Starlette):
        return
    prototype.has_warned = True
    hiding = [each for each in app.user_middleware if _is_base(each.cls)]
    if hiding:
        # Those of `@app.middleware("http")` are all of one class.
        names = [
            getattr(each.kwargs.get("dispatch", each.cls), "__qualname__", "") for each in hiding
        ]
        logger.warning(
            "a stream that fails looks complete to its client, since middlewares based on "
            "BaseHTTPMiddleware end it properly: %s; write them as pure ASGI middlewares",
            ", ".join(names),
        )


_KINDS = frozenset({"http", "websocket"})

# What may stand for something else that has failed.
_TELLING = (BaseExceptionGroup, SystemExit)
