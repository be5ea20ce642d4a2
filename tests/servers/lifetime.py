"""An app that lives, with a pump that fails when it is asked to, on a real server."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from quattro_web import (
    ShutdownGrace,
    TaskGroupMiddleware,
    app_task_group,
    health_routes,
    install,
    shutdown_event,
)

fail = asyncio.Event()
cut = threading.Event()


def say(what: str) -> None:
    os.write(1, f"{what} in {os.getpid()}\n".encode())  # at once: several processes write


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    say("resources open")
    try:
        yield
    finally:
        say("resources close")


async def pump() -> None:
    say("pump begins")
    try:
        await asyncio.Event().wait()
    finally:
        say("pump ends")


async def fragile() -> None:
    await fail.wait()
    raise ZeroDivisionError("the pump is broken")


async def break_pump(request: Request) -> Response:
    fail.set()
    return PlainTextResponse(str(os.getpid()))


async def slow(request: Request) -> Response:
    seconds = float(request.query_params.get("seconds", "60"))
    say("slow begins")
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        say("slow is cancelled")
        cut.set()
        raise
    return PlainTextResponse("slow")


async def events(request: Request) -> Response:
    return StreamingResponse(ticks(), media_type="text/event-stream")


async def download(request: Request) -> Response:
    return StreamingResponse(ticks(), media_type="text/plain")


async def ticks() -> AsyncIterator[str]:
    try:
        while True:
            yield "data: tick\n\n"
            await asyncio.sleep(3600)
    finally:
        say("events end")


async def told(request: Request) -> Response:
    say("told waits")
    await shutdown_event(request).wait()
    say("told")
    return PlainTextResponse("goodbye")


async def socket(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text("hello")
    try:
        async for _ in websocket.iter_text():
            pass
    finally:
        say("socket ends")


async def deaf(request: Request) -> Response:
    say("deaf begins")
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            say("deaf goes on")


async def works(request: Request) -> Response:
    try:
        await run_in_threadpool(work)
    finally:
        say("session closes")
    return PlainTextResponse("worked")


def work() -> None:
    say("work begins")
    cut.wait(60)
    time.sleep(0.3)  # whoever is cancelled is cancelled by then
    say("work is done")


def thread(request: Request) -> Response:
    say("thread begins")
    time.sleep(60)
    return PlainTextResponse("too late")


async def block(request: Request) -> Response:
    say("block begins")
    time.sleep(60)  # the event loop can do nothing meanwhile
    return PlainTextResponse("too late")


async def hand_over(request: Request) -> Response:
    async def work() -> None:
        await shutdown_event(request).wait()
        await asyncio.sleep(0.1)  # it is still there when the shutdown looks at it
        say("work ends")

    app_task_group(request).create_task(work)
    return PlainTextResponse("accepted")


async def flood(request: Request) -> Response:
    return StreamingResponse(pieces(), media_type="text/event-stream")


async def pieces() -> AsyncIterator[bytes]:
    say("flood begins")
    try:
        while True:
            yield bytes(100_000)
    finally:
        say("flood ends")


async def heap(request: Request) -> Response:
    say("heap begins")
    return Response(bytes(20_000_000))


async def torrent(websocket: WebSocket) -> None:
    await websocket.accept()
    say("torrent begins")
    try:
        while True:
            await websocket.send_bytes(os.urandom(100_000))  # it can't be compressed
    finally:
        say("torrent ends")


async def dump(request: Request) -> Response:
    signal.raise_signal(signal.SIGQUIT)
    return PlainTextResponse("said")


# The app's own, for whoever wants to see where everything is; gunicorn's workers replace it.
signal.signal(signal.SIGQUIT, lambda number, frame: say("stacks"))

ROUTES = [
    *health_routes(),
    Route("/dump", dump),
    Route("/break", break_pump),
    Route("/slow", slow),
    Route("/events", events),
    Route("/download", download),
    Route("/told", told),
    Route("/deaf", deaf),
    Route("/hand-over", hand_over),
    Route("/thread", thread),
    Route("/works", works),
    Route("/block", block),
    Route("/flood", flood),
    Route("/heap", heap),
    WebSocketRoute("/socket", socket),
    WebSocketRoute("/torrent", torrent),
]
app = Starlette(routes=ROUTES, lifespan=lifespan)
install(
    app,
    pumps=[pump, fragile],
    shutdown_grace=ShutdownGrace(requests=1.5, tasks=0.5, pumps=0.5, resources=0.5),
)


async def outside(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer some requests itself, beside the app that it is around, as Socket.IO does."""
    if scope.get("path") != "/poll":
        await app(scope, receive, send)
        return
    say("poll begins")
    try:
        if scope["query_string"] == b"thread":
            await run_in_threadpool(work)
        else:
            await asyncio.Event().wait()
    finally:
        say("poll ends")


inside = TaskGroupMiddleware(
    outside, shutdown_grace=ShutdownGrace(requests=1.5, tasks=0.5, pumps=0.5, resources=0.5)
)

# For a server whose patience, or whose user's, is over first, however busy the machine is.
PATIENT = ShutdownGrace(requests=15, tasks=15, pumps=0.5, resources=0.5)
patient = Starlette(routes=ROUTES, lifespan=lifespan)
install(patient, pumps=[pump], shutdown_grace=PATIENT)


async def never() -> None:
    raise ZeroDivisionError("the pump never worked")


stillborn = Starlette(lifespan=lifespan)
install(stillborn, pumps=[never])


async def mail(request: Request) -> Response:
    try:
        await asyncio.wait_for(asyncio.to_thread(time.sleep, 60), 0.1)
    except TimeoutError:
        say("mail has ended")  # though its thread has not
    return PlainTextResponse("sent, perhaps")


@asynccontextmanager
async def hanging(app: Starlette) -> AsyncIterator[None]:
    say("resources open")
    await asyncio.sleep(1)
    say("app starts")
    yield
    say("resources close")
    await asyncio.Event().wait()


QUICK = ShutdownGrace(requests=0.5, tasks=0, pumps=0, resources=0.5)
threaded = Starlette(routes=[Route("/mail", mail)], lifespan=lifespan)
install(threaded, pumps=[pump], shutdown_grace=QUICK)
unending = Starlette(lifespan=hanging)
install(unending, pumps=[pump], shutdown_grace=QUICK)
