"""An app in which something is stuck, for a real server."""

from __future__ import annotations

import asyncio
import signal
import threading
import time

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from quattro_web import app_task_group, install, request_task_group
from quattro_web.tasks import task_routes


async def stuck_child() -> None:
    await asyncio.Event().wait()


async def ticking_child() -> None:
    while True:
        await asyncio.sleep(0.05)


async def poll() -> None:
    while True:
        await asyncio.sleep(0.05)


async def mail() -> None:
    await asyncio.Event().wait()


async def users(request: Request) -> Response:
    tg = request_task_group(request)
    tg.create_task(stuck_child(), name=request.path_params["name"])
    tg.create_task(ticking_child(), name="<b>ticks</b>")
    print("is stuck", flush=True)
    await asyncio.Event().wait()
    return PlainTextResponse()


async def sign_up(request: Request) -> Response:
    app_task_group(request).create_task(mail())
    return PlainTextResponse()


async def blocks_loop(_request: Request) -> Response:
    print("blocks", flush=True)
    time.sleep(3600)
    return PlainTextResponse()


async def blocks_in_c(_request: Request) -> Response:
    # No handler of Python's runs as long as the main thread is in here.
    lock = threading.Lock()
    with lock:
        signal.pthread_sigmask(signal.SIG_BLOCK, [])
        print("blocks", flush=True)
        signal.sigwait([signal.SIGUSR2])
    return PlainTextResponse()


async def elsewhere(_request: Request) -> Response:
    return RedirectResponse("http://127.0.0.2/tasks")


async def let_in(request: Request) -> None:
    if request.headers.get("authorization") != "Bearer secret":
        raise HTTPException(403)


app = Starlette(
    routes=[
        Route("/users/{name}", users),
        Route("/sign-up", sign_up),
        Route("/blocks", blocks_loop),
        Route("/blocks-in-c", blocks_in_c),
        Route("/elsewhere", elsewhere),
        *task_routes(public=True),
        *task_routes("/private", dependencies=[let_in]),
    ]
)
install(app, pumps=[poll], dump_signal=signal.SIGUSR1)
