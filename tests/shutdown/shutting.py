"""Apps and servers that shut down."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from quattro_web import ShutdownGrace, install, request_task_group, shutdown_event
from tests.support.apps import lifespan_of, pump_of


class Scene:
    """An app with requests of all habits, whose log tells in which order things happen.

    Args:
        grace: The grace of its shutdown.
        pumps: More pumps than the one that notes its begin and end.
    """

    def __init__(self, grace: ShutdownGrace | None = None, pumps: Any = (), **options: Any) -> None:
        self.log: list[str] = []
        self.released = asyncio.Event()
        self.app = Starlette(
            routes=[
                Route("/slow", self.slow),
                Route("/child", self.child),
                Route("/told", self.told),
                Route("/events", self.events),
                Route("/download", self.download),
                Route("/deaf", self.deaf),
                Route("/quick", self.quick),
                WebSocketRoute("/socket", self.socket),
            ],
            lifespan=lifespan_of(self.log),
        )
        install(self.app, pumps=[pump_of(self.log), *pumps], shutdown_grace=grace, **options)

    def time(self) -> float:
        return round(asyncio.get_running_loop().time(), 1)

    def note(self, what: str) -> None:
        self.log.append(f"{self.time():g} s: {what}")

    async def quick(self, request: Request) -> Response:
        return PlainTextResponse("quick")

    async def slow(self, request: Request) -> Response:
        seconds = float(request.query_params.get("seconds", "3600"))
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError as exc:
            self.note(f"cancelled: {exc}")
            raise
        return PlainTextResponse("slow")

    async def child(self, request: Request) -> Response:
        request_task_group(request).create_task(self._child(), name="the child")
        return PlainTextResponse("with a child")

    async def _child(self) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            self.note("child ends")

    async def told(self, request: Request) -> Response:
        await shutdown_event(request).wait()
        self.note("told")
        return PlainTextResponse("goodbye")

    async def events(self, request: Request) -> Response:
        return StreamingResponse(self._chunks("data: tick\n\n"), media_type="text/event-stream")

    async def download(self, request: Request) -> Response:
        return StreamingResponse(self._chunks("piece"), media_type="text/plain")

    async def _chunks(self, piece: str) -> AsyncIterator[str]:
        try:
            while True:
                yield piece
                await asyncio.sleep(3600)
        finally:
            self.note("stream ends")

    async def deaf(self, request: Request) -> Response:
        while not self.released.is_set():
            try:
                await self.released.wait()
            except asyncio.CancelledError:
                self.note("deaf to a cancellation")
        return PlainTextResponse("late")

    async def socket(self, websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            await websocket.receive_text()
        finally:
            self.note("socket ends")
