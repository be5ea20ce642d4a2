"""A pytest plugin that puts TaskGroupMiddleware around every app that a foreign test suite builds.

It runs in the environment of that suite, loaded with ``-p around``, and knows nothing of this one.
"""

from __future__ import annotations

import asyncio
import functools
import json
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import starlette.applications
import starlette.endpoints
import starlette.routing
import starlette.testclient
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from quattro_web import NoTaskGroupError, TaskGroupMiddleware, request_task_group

try:
    import fastapi.applications
    import fastapi.routing
except ModuleNotFoundError:
    fastapi = None  # type: ignore[assignment]

MODES = (
    "plain",
    "innermost",
    "outermost",
    "opened-innermost",
    "opened-outermost",
    "opened-endpoint",
)


class OpeningMiddleware(TaskGroupMiddleware):
    """Opens the group of every request, although nobody is going to use it."""

    def __init__(self, app: ASGIApp) -> None:
        async def opened(scope: Scope, receive: Receive, send: Send) -> None:
            open_group(scope)
            await app(scope, receive, send)

        super().__init__(opened)


def open_group(conn: Any) -> None:
    """Make the group of this request, where there can be one: not under trio."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    # A test may call the routing by itself, without any app to put a middleware around.
    with suppress(NoTaskGroupError):
        if conn["type"] in ("http", "websocket"):
            request_task_group(conn)


def innermost(cls: type[Starlette], middleware: type[TaskGroupMiddleware]) -> None:
    """Let apps build their stack with *middleware* as the last of the user's."""
    original = cls.build_middleware_stack

    @functools.wraps(original)
    def build(self: Starlette) -> ASGIApp:
        theirs = self.user_middleware
        self.user_middleware = [*theirs, Middleware(middleware)]
        try:
            return original(self)
        finally:
            self.user_middleware = theirs

    cls.build_middleware_stack = build  # type: ignore[method-assign]


def outermost(middleware: type[TaskGroupMiddleware]) -> None:
    """Put *middleware* around Starlette apps, around their ServerErrorMiddleware too."""
    original = Starlette.__call__
    wrapped: weakref.WeakKeyDictionary[Starlette, ASGIApp] = weakref.WeakKeyDictionary()

    def proxy(app: Starlette) -> Any:  # the values of the dictionary must not keep its keys
        return weakref.proxy(app)

    async def call(self: Starlette, scope: Scope, receive: Receive, send: Send) -> None:
        if self not in wrapped:
            wrapped[self] = middleware(functools.partial(original, proxy(self)))
        await wrapped[self](scope, receive, send)

    Starlette.__call__ = call  # type: ignore[method-assign]


def around_other_apps(middleware: type[TaskGroupMiddleware]) -> None:
    """Put *middleware* around an app that is no Starlette app, where a test client is given one."""
    transport = starlette.testclient._TestClientTransport
    init = transport.__init__

    def init_wrapped(self: Any, app: ASGIApp, *args: Any, **kwargs: Any) -> None:
        app = app if isinstance(app, Starlette) else middleware(app)
        init(self, app, *args, **kwargs)

    transport.__init__ = init_wrapped  # type: ignore[method-assign]


def in_endpoints() -> None:
    """Let every endpoint of Starlette and FastAPI open the group of its request."""
    request_response = starlette.routing.request_response
    websocket_session = starlette.routing.websocket_session

    def opening_request_response(func: Any) -> ASGIApp:
        app = request_response(func)
        return opening(app)

    def opening_websocket_session(func: Any) -> ASGIApp:
        return opening(websocket_session(func))

    starlette.routing.request_response = opening_request_response
    starlette.routing.websocket_session = opening_websocket_session
    for endpoint in (starlette.endpoints.HTTPEndpoint, starlette.endpoints.WebSocketEndpoint):
        endpoint.dispatch = opening_method(endpoint.dispatch)  # type: ignore[method-assign]
    if fastapi is not None:
        for name in ("get_request_handler", "get_websocket_app"):
            original = getattr(fastapi.routing, name)
            setattr(fastapi.routing, name, opening_factory(original))


def opening(app: ASGIApp) -> ASGIApp:
    async def opened(scope: Scope, receive: Receive, send: Send) -> None:
        open_group(scope)
        await app(scope, receive, send)

    return opened


def opening_method(dispatch: Any) -> Any:
    async def opened(self: Any) -> None:
        open_group(self.scope)
        await dispatch(self)

    return opened


def opening_factory(factory: Any) -> Any:
    def make(*args: Any, **kwargs: Any) -> Any:
        handle = factory(*args, **kwargs)

        async def opened(conn: Any) -> Any:
            open_group(conn)
            return await handle(conn)

        return opened

    return make


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--around", choices=MODES, default="plain")
    parser.addoption("--outcomes", type=Path, default=None)


def pytest_configure(config: pytest.Config) -> None:
    mode: str = config.getoption("--around")
    middleware = OpeningMiddleware if mode.startswith("opened-") else TaskGroupMiddleware
    if mode == "opened-endpoint":
        in_endpoints()
        middleware = TaskGroupMiddleware
    if mode != "plain":
        around_other_apps(middleware)
    if mode.endswith("outermost"):
        outermost(middleware)
    elif mode != "plain":
        innermost(Starlette, middleware)
        if fastapi is not None:
            innermost(fastapi.applications.FastAPI, middleware)
    outcomes = config.getoption("--outcomes")
    if outcomes is not None:
        config.pluginmanager.register(Outcomes(outcomes))


class Outcomes:
    """Writes how each test came out, the worst of its phases, as JSON."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._by_test: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if self._by_test.get(report.nodeid) != "failed":
            if report.outcome != "passed" or report.when == "call":
                self._by_test[report.nodeid] = report.outcome

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._by_test[report.nodeid] = "not collected"

    def pytest_sessionfinish(self) -> None:
        self._path.write_text(json.dumps(self._by_test, indent=1))
