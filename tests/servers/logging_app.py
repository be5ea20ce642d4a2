"""An app that says how its log entries look, as docs/deployment.md does."""

import logging
import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from quattro_web import app_task_group, install

if "LOG_CONFIG" not in os.environ:
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )


async def fails() -> None:
    raise ZeroDivisionError


async def root(request: Request) -> Response:
    app_task_group(request).create_task(fails())
    logging.getLogger("quattro_web").info("an info entry")
    return PlainTextResponse("served")


app = Starlette(routes=[Route("/", root)])
install(app)
