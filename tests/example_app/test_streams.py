"""Streams of the board, in process: the exact end of each."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.types import Message

import example_app.board
import example_app.streams
from example_app.app import create_app
from example_app.board import Board, Update
from example_app.settings import Settings
from example_app.status import Status
from tests.example_app.support import result, running

pytestmark = pytest.mark.anyio

Answers = dict[str, int | Exception]


class Connection:
    """A client that is connected to the app, without a server between them."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.sent: asyncio.Queue[Message] = asyncio.Queue()
        self.to_app: asyncio.Queue[Message] = asyncio.Queue()
        self.request: asyncio.Task[None]

    async def chunk(self) -> str:
        """Return what the next event says."""
        return str((await self.sent.get())["body"].decode())

    async def left(self, kind: str) -> None:
        """Leave, and wait until the app is done with this connection."""
        await self.to_app.put({"type": f"{kind}.disconnect", "code": 1001})
        await self.request


@asynccontextmanager
async def connected(settings: Settings, scope: dict[str, Any]) -> AsyncIterator[Connection]:
    async with running(settings) as app:
        connection = Connection(app.state["board"])
        scope = {
            "headers": [(b"host", b"127.0.0.1")],
            "query_string": b"",
            "root_path": "",
            **scope,
        }
        scope |= {"asgi": {"version": "3.0", "spec_version": "2.3"}, "state": {**app.state}}

        async def request() -> None:
            await app.asgi(scope, connection.to_app.get, connection.sent.put)

        connection.request = asyncio.create_task(request())
        yield connection
        connection.request.cancel()  # if a test has not ended it


@asynccontextmanager
async def listening(settings: Settings) -> AsyncIterator[Connection]:
    scope = {"type": "http", "http_version": "1.1", "method": "GET", "path": "/events"}
    async with connected(settings, scope) as connection:
        await connection.to_app.put({"type": "http.request", "body": b""})
        start = await connection.sent.get()
        assert start["status"] == 200
        assert (b"content-type", b"text/event-stream; charset=utf-8") in start["headers"]
        assert await connection.chunk() == "retry: 1000\n\n"
        yield connection


@asynccontextmanager
async def following(settings: Settings, name: str) -> AsyncIterator[Connection]:
    scope = {"type": "websocket", "path": f"/follow/{name}", "subprotocols": [], "scheme": "ws"}
    async with connected(settings, scope) as connection:
        await connection.to_app.put({"type": "websocket.connect"})
        yield connection


async def test_events_begin_with_a_snapshot(settings: Settings, web: Answers) -> None:
    """The first event shows the whole board, the next ones what has changed."""
    async with listening(settings) as client:
        event, data, *_ = (await client.chunk()).split("\n")
        assert event == "event: snapshot"
        rows = json.loads(data.removeprefix("data: "))["rows"]
        assert [row["target"]["name"] for row in rows] == ["a", "b"]
        news = result("a")
        client.board.publish(news)
        update = Update(result=news, status=Status(state="up"))
        wanted = f"event: result\ndata: {update.model_dump_json()}\n\n"
        seen: list[str] = []
        while wanted not in seen:  # the first round of probes may come in between
            seen.append(await client.chunk())
        await client.left("http")


async def test_the_feeder_is_gone_with_its_browser(settings: Settings, web: Answers) -> None:
    """When a browser leaves, nothing is left of its request: no task, no subscription."""
    async with listening(settings) as client:
        await client.chunk()
        assert len(client.board._subscriptions) == 1
        await client.left("http")
        assert len(client.board._subscriptions) == 0
        names = [str(task.get_coro()) for task in asyncio.all_tasks()]
        assert not [name for name in names if "_feed" in name]


async def test_events_end_when_the_board_closes(settings: Settings, web: Answers) -> None:
    """The response is complete then: its last message says that no more will come."""
    async with listening(settings) as client:
        client.board.close()
        await client.request
        last = None
        while not client.sent.empty():
            last = client.sent.get_nowait()
        assert last == {"type": "http.response.body", "body": b"", "more_body": False}


@pytest.mark.parametrize("error", [None, ZeroDivisionError])
async def test_feeder_that_ends_early(
    settings: Settings,
    web: Answers,
    monkeypatch: pytest.MonkeyPatch,
    error: type[Exception] | None,
) -> None:
    """A stream ends when its feeder does: properly if it returns, and as a failure if it fails."""

    async def next_event(_: object) -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(example_app.board.Subscription, "next", next_event)
    async with listening(settings) as client:
        if error is None:
            await client.request
            assert not client.sent.get_nowait()["more_body"]
        else:
            with pytest.raises(error):
                await client.request
        assert client.sent.empty()


async def test_silence_is_broken(
    settings: Settings, web: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When nothing happens there is a heartbeat, so that a dead connection can be told."""
    monkeypatch.setattr(example_app.streams, "HEARTBEAT", 0.01)
    async with listening(settings) as client:
        seen: list[str] = []
        while "event: heartbeat\ndata: {}\n\n" not in seen:
            seen.append(await client.chunk())
        await client.left("http")


async def test_a_websocket_follows_one_target(settings: Settings, web: Answers) -> None:
    """The client gets the results of its target, and of no other."""
    async with following(settings, "a") as client:
        assert (await client.sent.get())["type"] == "websocket.accept"
        client.board.publish(result("b", id="other"))
        client.board.publish(result("a", id="wanted"))
        seen: list[dict[str, Any]] = []
        while "wanted" not in [each["id"] for each in seen]:
            seen.append(json.loads((await client.sent.get())["text"]))
        assert {each["target"] for each in seen} == {"a"}
        await client.to_app.put({"type": "websocket.receive", "text": "hello?"})
        await client.left("websocket")
        assert len(client.board._subscriptions) == 0


async def test_a_websocket_ends_when_the_board_closes(settings: Settings, web: Answers) -> None:
    """The client is told that the service restarts."""
    async with following(settings, "a") as client:
        assert (await client.sent.get())["type"] == "websocket.accept"
        client.board.close()
        kind = code = None
        while kind != "websocket.close":
            message = await client.sent.get()
            kind, code = message["type"], message.get("code")
        assert code == 1012
        await client.left("websocket")


async def test_a_websocket_ends_with_its_target(settings: Settings, web: Answers) -> None:
    """Whoever follows a target that is deleted learns of it."""
    async with following(settings, "a") as client:
        assert (await client.sent.get())["type"] == "websocket.accept"
        client.board.show([])
        message: Message = {"type": "websocket.send"}
        while message["type"] == "websocket.send":
            message = await client.sent.get()
        assert (message["code"], message["reason"]) == (1000, "the target was deleted")
        await client.left("websocket")


async def test_a_websocket_follows_configured_targets_alone(
    settings: Settings, web: Answers
) -> None:
    """A name that the board does not have is refused, before the connection is accepted."""
    async with following(settings, "c") as client:
        message = await client.sent.get()
        assert (message["type"], message["code"]) == ("websocket.close", 1008)
        await client.request


def test_the_app_takes_its_settings_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    """`uvicorn --factory example_app.app:create_app` is another way to serve it."""
    monkeypatch.setenv("BOARD_TOKEN", "from the environment")
    assert create_app().state.settings.token == "from the environment"
