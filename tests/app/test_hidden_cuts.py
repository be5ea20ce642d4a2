"""The warning about middlewares that hide from clients that a stream was cut."""

import logging
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from quattro_web import TaskGroupMiddleware, install
from tests.support.asgi import get, run
from tests.support.lifespan import Life


class AddsHeader(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        return response


class Pure:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


def warnings_of(app: Starlette, caplog: pytest.LogCaptureFixture) -> list[str]:
    async def main() -> None:
        async with Life(app) as life:
            await life.get("/")
            await life.get("/")

    with caplog.at_level(logging.WARNING, "quattro_web"):
        run(main())
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("is_early", [False, True])
def test_base_http_middleware(caplog: pytest.LogCaptureFixture, is_early: bool) -> None:
    """R5: An app with middlewares that end a cut body properly is told so in its log, once, with
    the name of each and the way out; whether they are added before `install` or after it."""
    app = FastAPI()
    if is_early:
        install(app)

    @app.middleware("http")
    async def adds_time(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        return response

    app.add_middleware(AddsHeader)
    app.add_middleware(GZipMiddleware)
    app.add_middleware(Pure)
    if not is_early:
        install(app)

    [warning] = warnings_of(app, caplog)
    assert "AddsHeader, " in warning
    assert "adds_time; write them as pure ASGI middlewares" in warning


@pytest.mark.parametrize("kind", ["none", "pure", "by hand"])
def test_others(caplog: pytest.LogCaptureFixture, kind: str) -> None:
    """R5: Other apps are told nothing."""
    middleware = [Middleware(Pure), Middleware(GZipMiddleware)] if kind == "pure" else []
    if kind == "by hand":
        middleware.append(Middleware(TaskGroupMiddleware))
    app = Starlette(middleware=middleware)
    if kind != "by hand":
        install(app)
    assert warnings_of(app, caplog) == []


def test_plain_app_below_a_wrapper() -> None:
    """R5: A wrapper around another app has nothing to look through."""
    app = TaskGroupMiddleware(Pure(Starlette()))
    assert run(get(app)).status == 404
