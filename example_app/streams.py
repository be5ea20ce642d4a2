"""What a request may follow: the whole board as server-sent events, one target by WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import anyio
from anyio.abc import ObjectReceiveStream, ObjectSendStream
from fastapi import APIRouter, WebSocket, WebSocketDisconnect, WebSocketException, status
from fastapi.responses import StreamingResponse

from example_app.board import Board, Event, Removed, Row, Snapshot, Subscription, Update
from example_app.origin import is_own_page
from example_app.probe import Result
from example_app.state import AppState
from quattro_web.fastapi import RequestTaskGroup

HEARTBEAT = 15.0
RETRY_MS = 1000
NAMES: dict[type[Event], str] = {
    Snapshot: "snapshot",
    Row: "target",
    Removed: "removed",
    Update: "result",
}

router = APIRouter()


@router.get("/events")
async def events(tg: RequestTaskGroup, state: AppState) -> StreamingResponse:
    """Stream what happens on the board, beginning with a snapshot of it.

    The feeder is a background task of the request: it is gone as soon as the browser is.
    """
    send, receive = anyio.create_memory_object_stream[str](1)
    tg.create_background_task(_feed(state["board"], send))
    return StreamingResponse(
        _chunks(receive),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _feed(board: Board, chunks: ObjectSendStream[str]) -> None:
    # The stream ends, however the feeder does; the error is that of a browser that has left.
    async with chunks:
        with suppress(anyio.BrokenResourceError), board.subscribe() as subscription:
            await chunks.send(f"retry: {RETRY_MS}\n\n")
            while True:
                try:
                    async with asyncio.timeout(HEARTBEAT):
                        event = await subscription.next()
                except TimeoutError:
                    await chunks.send("event: heartbeat\ndata: {}\n\n")
                    continue
                if event is None:
                    return
                data = event.model_dump_json()
                await chunks.send(f"event: {NAMES[type(event)]}\ndata: {data}\n\n")


async def _chunks(chunks: ObjectReceiveStream[str]) -> AsyncIterator[str]:
    async with chunks:
        async for chunk in chunks:
            yield chunk


@router.websocket("/follow/{name}")
async def follow(websocket: WebSocket, name: str, tg: RequestTaskGroup, state: AppState) -> None:
    """Send the latest result of one target, and then each new one, until the client leaves.

    It ends before when the target is deleted.
    """
    board = state["board"]
    if not is_own_page(websocket):
        raise WebSocketException(status.WS_1008_POLICY_VIOLATION, "not from the board's own page")
    if name not in board.targets:
        raise WebSocketException(status.WS_1008_POLICY_VIOLATION, "no target of that name")
    await websocket.accept()
    with board.subscribe() as subscription, suppress(WebSocketDisconnect):
        tg.create_background_task(_listen(websocket, subscription))
        while (event := await subscription.next()) is not None:
            for result in _results(event, name):
                await websocket.send_text(result.model_dump_json())
            if name not in board.targets:
                await websocket.close(reason="the target was deleted")
                return
        if board.closed:
            await websocket.close(status.WS_1012_SERVICE_RESTART)


async def _listen(websocket: WebSocket, subscription: Subscription) -> None:
    """End the subscription when the client leaves, which only shows when one reads."""
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass  # a client has nothing to say here
    subscription.offer(None)


def _results(event: Event, name: str) -> list[Result]:
    if isinstance(event, Snapshot):
        return next((row.recent[-1:] for row in event.rows if row.target.name == name), [])
    return [event.result] if isinstance(event, Update) and event.result.target == name else []
