"""An app that does a bit of everything, and counts what is alive in its process."""

import asyncio
import gc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import StreamingResponse

from quattro_core import TaskGroup
from quattro_web import install
from quattro_web.fastapi import AppTaskGroup, Deadline, RequestTaskGroup

OPEN_FILES = Path("/proc/self/fd")

app = FastAPI()
install(app, cancel_on_disconnect=True)


async def child(seconds: float = 0.01) -> None:
    await asyncio.sleep(seconds)


async def helper() -> None:
    await asyncio.Event().wait()


@app.get("/fan")
async def fan(tg: RequestTaskGroup) -> str:
    tg.create_background_task(helper())
    for _ in range(5):
        tg.create_task(child())
    return "done"


@app.get("/refuse")
async def refuse(tg: RequestTaskGroup) -> str:
    async def fail() -> None:
        await child()
        raise HTTPException(409)

    tg.create_task(fail())
    tg.create_task(child(60))
    return "never"


@app.get("/raise")
async def raise_(tg: RequestTaskGroup) -> str:
    tg.create_task(child(60))
    await asyncio.sleep(0)
    raise HTTPException(403)


@app.get("/stream")
async def stream(tg: RequestTaskGroup) -> StreamingResponse:
    queue: asyncio.Queue[str] = asyncio.Queue(2)

    async def feed() -> None:
        while True:
            await queue.put("x" * 1000)
            await asyncio.sleep(0.005)

    async def chunks() -> AsyncIterator[str]:
        for _ in range(40):
            yield await queue.get()

    tg.create_background_task(feed())
    return StreamingResponse(chunks())


@app.get("/slow")
async def slow(tg: RequestTaskGroup) -> str:
    tg.create_background_task(helper())
    await tg.create_task(child(60))
    return "never"


@app.get("/late", dependencies=[Deadline(0.2)])
async def late(tg: RequestTaskGroup) -> str:
    await tg.create_task(child(60))
    return "never"


@app.post("/upload")
async def upload(request: Request, tg: RequestTaskGroup) -> int:
    tg.create_background_task(helper())
    return sum([len(piece) async for piece in request.stream()])


@app.post("/later")
async def later(app_tg: AppTaskGroup) -> None:
    app_tg.create_task(child(0.05))


@app.websocket("/socket")
async def socket(websocket: WebSocket, tg: RequestTaskGroup) -> None:
    await websocket.accept()

    async def talk() -> None:
        while True:
            await websocket.send_text("tick")
            await asyncio.sleep(0.01)

    tg.create_background_task(talk())
    async for text in websocket.iter_text():
        if text == "stop":
            break


@app.get("/alive")
async def alive() -> dict[str, Any]:
    """What is there besides this request."""
    gc.collect()
    names = [task.get_name() for task in asyncio.all_tasks()]
    return {
        "tasks": len(names),
        "groups": sum(isinstance(each, TaskGroup) for each in gc.get_objects()),
        "files": len(list(OPEN_FILES.iterdir())) if OPEN_FILES.is_dir() else 0,
        "names": sorted(names),
    }
