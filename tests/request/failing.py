"""An app whose children fail."""

import asyncio
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from quattro_web import install, request_task_group


class Teapot(Exception):
    pass


async def fail(exc: BaseException) -> None:
    await asyncio.sleep(0)
    try:
        raise exc
    finally:
        del exc  # its traceback refers to this frame


def failing_app(*errors: BaseException, **options: Any) -> Starlette:
    """Return an app whose handler returns while its children are about to fail."""

    async def endpoint(request: Request) -> Response:
        for error in errors:
            request_task_group(request).create_task(fail(error))
        return PlainTextResponse("never seen")

    app = Starlette(routes=[Route("/", endpoint, methods=["GET", "POST"])], **options)
    install(app)
    return app


def answer(name: str, status: int = 499) -> Any:
    async def handler(request: Request, exc: Exception) -> Response:
        return PlainTextResponse(f"{name}: {exc!r}", status)

    return handler
