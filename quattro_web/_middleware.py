"""The ASGI middleware."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from contextlib import suppress

from starlette.types import ASGIApp, Receive, Scope, Send

from quattro_core import SharedLimit
from quattro_web import _failures
from quattro_web._app_run import AppRun
from quattro_web._app_settings import AppSettings
from quattro_web._arguments import checked_header, checked_limit, checked_seconds
from quattro_web._ended import EndedRequest
from quattro_web._exchange import Exchange
from quattro_web._grace import ShutdownGrace
from quattro_web._health import register
from quattro_web._lifespan import serve_lifespan
from quattro_web._patience import Patience
from quattro_web._pumps import Pump, PumpFunction
from quattro_web._scope import REQUEST
from quattro_web._settings import Settings, current_loop
from quattro_web._watch import Watch

logger = logging.getLogger("quattro_web")


class TaskGroupMiddleware:
    """Pure ASGI middleware that gives a task group to each request, and one to the app.

    In Starlette and FastAPI, `install` puts it where it belongs: innermost among the user's
    middlewares, so that the headers that others add (CORS) are also on the answer to a failed
    child. By hand: ``Middleware(TaskGroupMiddleware)`` as the last of the list. It wraps any other
    ASGI app as well.

    Args:
        app: The ASGI app.
        pumps: What runs as long as the app does: async functions, or `Pump`, in a list or in a
            `Pumps` collection. Started when the app has completed its start-up, ended before it
            begins its shutdown.
        concurrency_limit: How many children of one request may run at once. None means no limit.
        total_limit: How many children of all requests together may run at once; the others wait.
            None means no limit.
        max_waiting: How many children may wait for the *total_limit*. The request of one more is
            answered with a 503 and Retry-After, unless the app answers `TooManyWaitingError`
            otherwise. None means no limit.
        cancel_on_disconnect: Whether a request is cancelled when its client leaves; see
            `quattro_web.cancel_on_disconnect`, which says so for one request.
        deadline: After how many seconds an HTTP request is cancelled and answered with a 504; see
            `quattro_web.set_deadline`, which says so for one request. None means no deadline.
        deadline_header: The name of a request header in which a client may give a shorter one, in
            seconds. A value that is no positive number is ignored. None means no such header.
        app_concurrency_limit: How much handed-over work (`app_task_group`) may run at once; the
            rest waits. None means no limit.
        app_max_waiting: How much of it may wait for that limit. The request that hands over more
            is answered with a 503, as with *max_waiting*. None means no limit.
        shutdown_grace: The seconds that each part of a shutdown may take. None means the defaults
            of `ShutdownGrace`.

    Raises:
        TypeError: If a pump is not a function or takes other arguments; if another argument is of
            a wrong type.
        ValueError: If a limit is below 1, or there is none to wait for; if two pumps have the same
            name or lock; if *deadline* is not positive and finite; if *deadline_header* is no name.

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
        deadline: float | None = None,
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
        self._deadline = checked_seconds("deadline", deadline)
        self._deadline_header = checked_header("deadline_header", deadline_header)
        self._patience = Patience(self._requests)
        self._has_deadline = bool(deadline or deadline_header)
        self._ended = EndedRequest(self._settings)
        self._never_started = bool(len(self._app_settings.pumps))
        # Whether a request needs more than its exchange: most apps' requests don't.
        self._is_special = self._is_cancelling or self._never_started

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
                self._begin(exchange, scope, outer)
            try:
                await self.app(scope, exchange.receive, exchange.send)
            except BaseException as exc:
                if not exchange.was_cut_off(exc):
                    if exchange.tasks is None:
                        raise
                    error = exc
            if exchange.tasks is not None and (error is not None or not exchange.lets_go()):
                await _failures.end(exchange, exchange.tasks, error)
        finally:
            error = None  # it refers to this frame
            del self._requests[exchange]
            scope[REQUEST] = outer or self._ended
            if exchange.tasks is not None or exchange.watch is not None or outer is not None:
                await exchange.close()

    async def _serve_other(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the lifespan, and hand on what is none of ours or has its group already."""
        if scope["type"] == "lifespan":
            await self._serve_lifespan(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _begin(
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
            self._patience.begin(exchange)
        if self._has_deadline:
            self._set_deadline(exchange, scope)

    async def _serve_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._set_started()
        run = AppRun(self._app_settings, self._settings.requests)
        runs, loop = self._settings.runs, current_loop()
        if loop is not None:
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
        return self._cancel_on_disconnect or self._has_deadline

    def _set_started(self) -> None:
        self._never_started = False
        self._is_special = self._is_cancelling

    def _report_pumps(self) -> None:
        self._set_started()  # once is enough
        logger.error(
            "a request came, but the lifespan of the app was not run, so its pumps are not: %s. "
            "Servers run the lifespan of the outermost app, and not of one that is mounted in it: "
            "give the pumps to that one, and don't turn the server's lifespan off",
            ", ".join(pump.name for pump in self._app_settings.pumps),
        )

    def _set_deadline(self, exchange: Exchange, scope: Scope) -> None:
        deadline = self._deadline_of(scope) if scope["type"] == "http" else None
        if deadline is not None:
            if exchange.watch is None:
                exchange.watch = Watch(exchange, scope)
            exchange.watch.deadline(deadline)

    def _deadline_of(self, scope: Scope) -> float | None:
        for name, value in scope["headers"] if self._deadline_header else ():
            if name == self._deadline_header:
                with suppress(ValueError):
                    asked = checked_seconds("deadline", float(value))
                    return min(asked or math.inf, self._deadline or math.inf)
        return self._deadline


_KINDS = frozenset({"http", "websocket"})
