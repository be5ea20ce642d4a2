"""The WebSockets of the app under test."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, HTTPException, WebSocket
from starlette.exceptions import WebSocketException

from quattro_web import set_deadline
from quattro_web.fastapi import CancelOnDisconnect, RequestTaskGroup
from tests.servers.record import gates, hang, note, until_watched, wait

router = APIRouter(prefix="/ws")
UNWATCHED: list[Any] = [CancelOnDisconnect(on=False)]


@router.websocket("/fail/{key}")
async def fail(websocket: WebSocket, key: str, tg: RequestTaskGroup) -> None:
    """Read, until a child fails."""

    async def child() -> None:
        await wait(key)
        raise ZeroDivisionError(f"a bug in {key}")

    await websocket.accept()
    tg.create_task(child())
    await websocket.receive_text()


@router.websocket("/code/{key}")
async def code(websocket: WebSocket, key: str, tg: RequestTaskGroup) -> None:
    """Do nothing, until a child fails."""

    async def child() -> None:
        await wait(key)
        raise WebSocketException(4321, "for a reason")

    await websocket.accept()
    tg.create_task(child())
    await hang(key, "handler")


@router.websocket("/blunder/{key}", dependencies=UNWATCHED)
async def blunder(websocket: WebSocket, key: str, tg: RequestTaskGroup) -> None:
    """Raise, while a child and a pump are at work."""
    await websocket.accept()
    tg.create_task(hang(key, "child"))
    await wait(key)
    raise ZeroDivisionError(f"a bug in {key}")


@router.websocket("/chat/{key}", dependencies=UNWATCHED)
async def chat(websocket: WebSocket, key: str, tg: RequestTaskGroup) -> None:
    """Echo what comes, while a child is at work."""
    await websocket.accept()
    note(key, "accepted")
    tg.create_task(hang(key, "child"))
    async for text in websocket.iter_text():
        await websocket.send_text(text)
    note(key, "handler saw the end")


@router.websocket("/push/{key}")
async def push(websocket: WebSocket, key: str, tg: RequestTaskGroup) -> None:
    """Send once, and never read."""
    await websocket.accept()
    tg.create_task(hang(key, "child"))
    await websocket.send_text("hello")
    note(key, "accepted")
    await hang(key, "handler")


@router.websocket("/hang-up/{key}", dependencies=UNWATCHED)
async def hang_up(websocket: WebSocket, key: str, tg: RequestTaskGroup) -> None:
    """Read, while a child waits to close the connection."""

    async def child() -> None:
        await wait(key)
        note(key, "child closes")
        await websocket.close(4000)

    await websocket.accept()
    tg.create_task(child())
    message = await websocket.receive()
    note(key, f"handler has received {message['type']}")


@router.websocket("/speak/{key}", dependencies=UNWATCHED)
async def speak(websocket: WebSocket, key: str) -> None:
    """Send when the gate is open, until it is opened again, and never read."""
    await websocket.accept()
    note(key, "accepted")
    await wait(key)
    while gates[key].locked():
        await websocket.send_text("hello?")
        await asyncio.sleep(0.02)  # time for the news to arrive


@router.websocket("/linger/{key}")
async def linger(websocket: WebSocket, key: str, tg: RequestTaskGroup) -> None:
    """Return, with a child and a pump at work; close if the client says so."""

    async def child() -> None:
        await wait(key)
        note(key, "child ended")

    await websocket.accept()
    tg.create_task(child())
    tg.create_background_task(hang(key, "pump"))
    text = await websocket.receive_text()
    note(key, "handler returns")
    if text == "close":
        await websocket.close(4000)


@router.websocket("/part/{key}")
async def part(websocket: WebSocket, key: str) -> None:
    """Close when the client is watched: a receive() of the server is pending then."""
    await websocket.accept()
    await until_watched()
    await websocket.close(4000)


@router.websocket("/part-with-children/{key}")
async def part_with_children(websocket: WebSocket, key: str, tg: RequestTaskGroup) -> None:
    """Do the same, with a child that has to end first."""
    tg.create_task(until_watched())
    await part(websocket, key)


@router.websocket("/deny/{key}")
async def deny(websocket: WebSocket, key: str, tg: RequestTaskGroup) -> None:
    """Let a child fail before the connection is accepted."""

    async def child() -> None:
        raise HTTPException(403, "not yours")

    tg.create_task(child())
    await hang(key, "handler")


@router.websocket("/late/{key}")
async def late(websocket: WebSocket, key: str, tg: RequestTaskGroup) -> None:
    await websocket.accept()
    set_deadline(websocket, 0.1)
    tg.create_task(hang(key, "child"), name="the slow child")
    await hang(key, "handler")
