"""An ASGI app that uses nothing of ours, for what a server does by itself."""

from starlette.types import Receive, Scope, Send


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Accept a WebSocket, and close it."""
    message = await receive()
    while message["type"].startswith("lifespan."):
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
        message = await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": 4000})
