"""Who may ask the board: pages elsewhere may not, by whatever name they reach it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.types import Message

from example_app.settings import Settings
from tests.example_app.support import running

pytestmark = pytest.mark.anyio

Answers = dict[str, int | Exception]


@pytest.mark.parametrize("path", ["/", "/events", "/check?target=a", "/history/a", "/readyz"])
async def test_other_names_are_refused(settings: Settings, web: Answers, path: str) -> None:
    """A page whose own name leads to this machine reaches nothing of the board."""
    async with running(settings, host="evil.test") as app:
        response = await app.client.get(path)
    assert (response.status_code, response.text) == (400, "Invalid host header")


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "[::1]:8000"])
async def test_own_names_are_answered(settings: Settings, web: Answers, host: str) -> None:
    """By any name of this machine it is reached out of the box."""
    async with running(settings, host=host) as app:
        assert (await app.client.get("/check?target=a")).status_code == 200


@pytest.mark.parametrize(
    ("host", "origin", "answer"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8000", "accept"),
        ("localhost:8000", "https://localhost:8000", "accept"),
        ("127.0.0.1:8000", None, "accept"),
        ("127.0.0.1:8000", "http://127.0.0.1:3000", "close"),
        ("127.0.0.1:8000", "http://evil.test", "close"),
        ("127.0.0.1:8000", "null", "close"),
        ("127.0.0.1:8000", "http://[", "close"),
        ("evil.test", "http://evil.test", "response.start"),
    ],
)
async def test_follow(
    settings: Settings, web: Answers, host: str, origin: str | None, answer: str
) -> None:
    """A WebSocket is for the board's own page, and for what is no browser."""
    headers = [(b"host", host.encode())]
    if origin is not None:
        headers.append((b"origin", origin.encode()))
    sent: asyncio.Queue[Message] = asyncio.Queue()
    to_app: asyncio.Queue[Message] = asyncio.Queue()
    async with running(settings) as app:
        scope: dict[str, Any] = {
            "type": "websocket", "path": "/follow/a", "subprotocols": [], "scheme": "ws",
            "headers": headers, "query_string": b"", "root_path": "",
            "asgi": {"version": "3.0", "spec_version": "2.3"}, "state": {**app.state},
            "extensions": {"websocket.http.response": {}},
        }  # fmt: skip
        await to_app.put({"type": "websocket.connect"})
        async with asyncio.TaskGroup() as group:

            async def request() -> None:
                await app.asgi(scope, to_app.get, sent.put)

            group.create_task(request())
            first = await sent.get()
            await to_app.put({"type": "websocket.disconnect", "code": 1001})
    assert first["type"].endswith(answer)
