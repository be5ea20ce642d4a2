"""An app with routes of all habits, for the client of the testing kit."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import BackgroundTasks, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import PlainTextResponse, Response, StreamingResponse

from quattro_web import Pump, ShutdownGrace, health_routes, install
from quattro_web.fastapi import AppTaskGroup, CancelOnDisconnect, ShutdownEvent


class Shop:
    """An app, and a log of what happens in it."""

    def __init__(self, *, pumps: Any = (), grace: ShutdownGrace | None = None) -> None:
        self.log: list[str] = []
        self.app = app = FastAPI(lifespan=self.lifespan)
        app.router.routes.extend(health_routes())
        own = [Pump(self.poll, name="poll"), *pumps]
        install(app, pumps=own, shutdown_grace=grace)
        log = self.log

        @app.api_route("/echo", methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
        async def echo(request: Request) -> dict[str, Any]:
            return {
                "method": request.method,
                "query": request.url.query,
                "headers": dict(request.headers),
                "body": (await request.body()).decode(),
                "state": request.state.name,
            }

        @app.head("/echo")
        async def head() -> Response:
            return PlainTextResponse("not sent", headers={"x-head": "yes"})

        @app.get("/boom")
        async def boom() -> None:
            raise ZeroDivisionError

        @app.get("/missing")
        async def missing() -> None:
            raise HTTPException(404, "nothing here")

        @app.get("/slow", dependencies=[CancelOnDisconnect()])
        async def slow() -> str:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError as exc:
                log.append(f"cancelled: {exc}")
                raise
            return "slow"

        @app.get("/stubborn")
        async def stubborn() -> str:
            await asyncio.sleep(3)
            log.append("stubborn ends")
            return "stubborn"

        @app.get("/endless")
        async def endless() -> StreamingResponse:
            return StreamingResponse(self.chunks())

        @app.get("/cut")
        async def cut() -> StreamingResponse:
            async def chunks() -> AsyncIterator[str]:
                yield "half"
                raise ConnectionError

            return StreamingResponse(chunks())

        @app.get("/events")
        async def events(shutdown: ShutdownEvent) -> StreamingResponse:
            async def chunks() -> AsyncIterator[str]:
                yield "hello"
                await shutdown.wait()
                yield "goodbye"

            return StreamingResponse(chunks(), media_type="text/event-stream")

        @app.post("/upload")
        async def upload(request: Request) -> list[str]:
            return [piece.decode() async for piece in request.stream()]

        @app.post("/work")
        async def work(group: AppTaskGroup, fails: bool = False) -> None:
            group.create_task(self.work(fails=fails))

        @app.get("/later")
        async def later(tasks: BackgroundTasks) -> None:
            tasks.add_task(log.append, "background task")

        @app.websocket("/socket")
        async def socket(websocket: WebSocket) -> None:
            await self.socket(websocket)

        @app.websocket("/denied")
        async def denied(websocket: WebSocket) -> None:
            await websocket.send_denial_response(PlainTextResponse("no entry", 401))

        @app.websocket("/talks")
        async def talks(websocket: WebSocket) -> None:
            await websocket.accept(subprotocol="chat")
            while True:
                await websocket.send_bytes(b"x" * 1000)
                log.append("sent")

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[dict[str, str]]:
        self.log.append("opens")
        try:
            yield {"name": "shop"}
        finally:
            self.log.append("closes")

    async def poll(self) -> None:
        try:
            while True:
                self.log.append("poll")
                await asyncio.sleep(60)
        finally:
            self.log.append("poll ends")

    async def chunks(self) -> AsyncIterator[bytes]:
        for number in range(10**9):
            self.log.append(f"chunk {number}")
            yield b"%d;" % number + b"x" * 1000

    async def work(self, *, fails: bool) -> None:
        await asyncio.sleep(5)
        if fails:
            raise ValueError("the work has failed")
        self.log.append("work done")

    async def socket(self, websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while (message := await websocket.receive())["type"] == "websocket.receive":
                if message.get("text") == "close":
                    await websocket.close(4000, "as you wish")
                    return
                if message.get("text") == "fail":
                    raise ZeroDivisionError
                if message.get("text") == "return":
                    return
                await websocket.send({**message, "type": "websocket.send"})
            self.log.append(f"disconnected {message['code']}")
        finally:
            self.log.append("socket ends")
