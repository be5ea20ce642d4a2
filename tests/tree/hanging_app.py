"""An app that hangs where HANGS says: in its start-up, in its shutdown, or in its log."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from quattro_core import TaskStatus
from quattro_web import Pump, install

HANGS = os.environ.get("HANGS", "")


async def hang() -> None:
    print(f"hangs in {os.getpid()}", flush=True)
    await asyncio.Event().wait()


@asynccontextmanager
async def database() -> AsyncIterator[None]:
    if HANGS == "opening":
        await hang()
    yield
    if HANGS == "closing":
        await hang()


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        if HANGS == "blocking":
            print(f"hangs in {os.getpid()}", flush=True)
            time.sleep(3600)
        await stack.enter_async_context(database())
        yield


async def poll(task_status: TaskStatus) -> None:
    if HANGS == "pump":
        await hang()
    task_status.started()
    await asyncio.Event().wait()


class Hanging(logging.Handler):
    """One that writes to somebody who does not read, and keeps its lock meanwhile."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "shop":
            print(f"hangs in {os.getpid()}", flush=True)
            threading.Event().wait()


async def logs(_request: Request) -> Response:
    logging.getLogger("shop").warning("a customer")
    return PlainTextResponse()


app = Starlette(routes=[Route("/logs", logs)], lifespan=lifespan)
install(app, pumps=[Pump(poll, ready_timeout=None)], dump_signal=signal.SIGUSR1)
if HANGS == "logging":
    logging.getLogger().addHandler(Hanging())
