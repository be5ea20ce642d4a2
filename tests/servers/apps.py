"""The app that each server runs. Every path ends with a key, which tells the requests apart."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator

from fastapi import FastAPI, HTTPException, Request
from starlette.background import BackgroundTask
from starlette.datastructures import UploadFile
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from quattro_web import install, set_deadline, time_left
from quattro_web.fastapi import CancelOnDisconnect, Deadline, RequestTaskGroup
from tests.servers.record import (
    WATCHER,
    Record,
    gates,
    hang,
    note,
    set_up_logging,
    until_watched,
    wait,
)
from tests.servers.sockets import router

set_up_logging()
app = FastAPI(default_response_class=PlainTextResponse)
install(app, cancel_on_disconnect=True)
app.include_router(router)
recorded = Record(app)


@app.get("/open")
async def open_gate(key: str) -> str:
    gates[key].release()
    return "open"


@app.get("/hold/{key}")
async def hold(key: str, tg: RequestTaskGroup) -> str:
    """Return at once, with a child that waits."""

    async def child() -> None:
        await wait(key)
        note(key, "child ended")

    tg.create_task(child())
    note(key, "handler returned")
    return "held"


@app.get("/stream/{key}")
async def stream(key: str, tg: RequestTaskGroup) -> Response:
    """Stream what a child makes, chunk by chunk; after the last one it has more to do."""
    queue: asyncio.Queue[str] = asyncio.Queue()

    async def child() -> None:
        queue.put_nowait("one")
        await wait(key)
        queue.put_nowait("two")
        await wait(key)
        note(key, "child ended")

    async def body() -> AsyncIterator[str]:
        for _ in range(2):
            yield await queue.get()
        note(key, "body ended")

    tg.create_task(child())
    return StreamingResponse(body())


@app.get("/refuse/{key}")
async def refuse(key: str, tg: RequestTaskGroup) -> str:
    async def child() -> None:
        raise HTTPException(403, "not yours", headers={"x-why": "the owner"})

    tg.create_task(child())
    await hang(key, "handler")
    return "never"


@app.get("/blunder/{key}")
async def blunder(key: str, tg: RequestTaskGroup) -> str:
    async def child() -> None:
        raise ZeroDivisionError(f"a bug in {key}")

    tg.create_task(child())
    return "never seen"


@app.get("/exit/{key}")
async def exit_in_child(key: str, tg: RequestTaskGroup) -> str:
    async def child() -> None:
        await wait(key)
        sys.exit(3)

    tg.create_task(child())
    return "never seen"


@app.get("/cut/{key}")
async def cut(key: str, tg: RequestTaskGroup, length: int | None = None) -> Response:
    """Stream, and let a child fail when the first chunk has left."""

    async def child() -> None:
        await wait(key)
        raise ZeroDivisionError(f"too late in {key}")

    async def body() -> AsyncIterator[str]:
        yield "one"
        await hang(key, "body")

    tg.create_task(child())
    headers = {} if length is None else {"content-length": str(length)}
    return StreamingResponse(body(), headers=headers)


@app.get("/hang/{key}")
async def hang_all(key: str, tg: RequestTaskGroup) -> str:
    tg.create_task(hang(key, "child"))
    tg.create_background_task(hang(key, "pump"))
    note(key, "handler began")
    await hang(key, "handler")
    return "never"


@app.get("/endless/{key}")
async def endless(key: str, tg: RequestTaskGroup) -> Response:
    async def body() -> AsyncIterator[str]:
        yield "one"
        await hang(key, "body")

    tg.create_task(hang(key, "child"))
    return StreamingResponse(body())


@app.get("/stay/{key}", dependencies=[CancelOnDisconnect(on=False)])
async def stay(key: str, tg: RequestTaskGroup) -> str:
    task = tg.create_task(wait(key))
    note(key, "handler began")
    await task
    note(key, "handler ended")
    return "stayed"


@app.get("/after/{key}")
async def after(key: str) -> Response:
    """Answer when the client is watched, and go on after the response."""

    async def go_on() -> None:
        await wait(key)
        note(key, "background task done")

    await until_watched()
    return PlainTextResponse("done", background=BackgroundTask(go_on))


@app.post("/upload/{key}")
async def upload(key: str, request: Request) -> str:
    """Read a body, piece by piece, when the client is watched."""
    if "expect" not in request.headers:
        await until_watched()
    note(key, "watched")
    whole = b""
    async for piece in request.stream():
        whole += piece
        note(key, f"has {len(whole)}")
    return hashlib.sha256(whole).hexdigest()


@app.post("/form/{key}")
async def form(key: str, request: Request) -> str:
    await until_watched()
    note(key, "watched")
    async with request.form() as fields:
        file = fields["file"]
        assert isinstance(file, UploadFile)
        digest = hashlib.sha256(await file.read()).hexdigest()
        return f"{fields['name']} {file.filename} {digest}"


@app.api_route("/gate/{key}", methods=["GET", "POST"])
async def gate(key: str, request: Request) -> str:
    """Wait until the gate is open, and read nothing before that."""
    note(key, "handler began")
    try:
        await wait(key)
    except asyncio.CancelledError as exc:
        note(key, f"handler cancelled: {exc}")
        raise
    note(key, "reading")
    size = len(await request.body())
    note(key, f"has read {size}")
    return str(size)


@app.get("/late/{key}", dependencies=[Deadline(0.3)])
async def late(key: str, tg: RequestTaskGroup) -> str:
    tg.create_task(hang(key, "child"), name="the slow child")
    await hang(key, "handler")
    return "never"


@app.get("/late-stream/{key}")
async def late_stream(key: str, request: Request, tg: RequestTaskGroup) -> Response:
    async def body() -> AsyncIterator[str]:
        yield "one"
        # The stream has begun, however busy the machine is.
        set_deadline(request, 0.1, stream=0.1)
        await hang(key, "body")

    tg.create_task(hang(key, "child"))
    return StreamingResponse(body())


@app.get("/begun-stream/{key}")
async def begun_stream(key: str, request: Request, length: int = 0) -> Response:
    """Send the second half when the deadline until the stream begins has passed."""

    async def body() -> AsyncIterator[str]:
        yield "one"
        set_deadline(request, 0.05)
        note(key, f"time left: {time_left(request)}")
        await asyncio.sleep(0.1)
        yield "two"

    headers = {"content-length": str(length)} if length else {}
    return StreamingResponse(body(), headers=headers)


@app.get("/tasks/{key}")
async def tasks(key: str) -> str:
    """Tell which tasks of requests there are, those of the servers aside."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    names = [f"{task.get_name()}: {task.get_coro()!r}" for task in others]
    ours = [name for name in names if "tests.servers" in name or WATCHER in name]
    return "\n".join(ours)
