"""Several tasks that send, and more of a body than its response has announced."""

import asyncio

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quattro_web import TaskGroupMiddleware, install, request_task_group
from tests.support.asgi import get, run

START = {"type": "http.response.start", "status": 200, "headers": []}
LENGTH = {**START, "headers": [(b"content-length", b"6")]}
END = {"type": "http.response.body", "body": b""}


def piece(body: bytes) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": True}


class SlowStart:
    """A middleware that takes its time for the start of a response, and for nothing else."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def slowly(message: Message) -> None:
            if message["type"] == "http.response.start":
                await asyncio.sleep(1)
            await send(message)

        await self.app(scope, receive, slowly)


@pytest.mark.parametrize("group", [True, False])
@pytest.mark.parametrize("start", [START, LENGTH])
@pytest.mark.parametrize("pause", [0, 0.1])
def test_second_sender_waits_for_the_start(group: bool, start: Message, pause: float) -> None:
    """R2, R10: Of two tasks that send one response, such as that of a stream and one that keeps it
    alive, none gets ahead of the start, though that takes its time on the way to the server."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if group:
            request_task_group(scope)
        await send(start)
        await asyncio.sleep(pause)  # the start of a stream may leave by itself
        await asyncio.gather(send(piece(b"one")), send(piece(b"two")))
        await send(END)

    log = run(get(SlowStart(TaskGroupMiddleware(app)))).log
    assert log == ["start 200", "chunk one", "chunk two", "body"]


@pytest.mark.parametrize("group", [True, False])
def test_end_waits_for_the_start(group: bool) -> None:
    """R2, R10: Nor does the end of the response, if another task sends that."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if group:
            request_task_group(scope)
        await send(START)
        await asyncio.gather(send(piece(b"one")), send(END))

    log = run(get(SlowStart(TaskGroupMiddleware(app)))).log
    assert log == ["start 200", "chunk one", "body"]


@pytest.mark.parametrize(
    ("status", "headers", "pieces"),
    [
        (200, {"content-length": "0"}, [b"hidden"]),
        (200, {"content-length": "3"}, [b"abc", b"hidden", b"too"]),
        (200, {"content-length": "3"}, [b"abcd", b"hidden"]),
        (204, {}, [b"hidden"]),
        (304, {"content-length": "3"}, [b"hidden"]),
    ],
)
def test_more_than_was_announced(status: int, headers: dict[str, str], pieces: list[bytes]) -> None:
    """R10: A body that is longer than its Content-Length, or that has none by its status, gets to
    the server, which complains about it to the app, and is not kept."""

    async def endpoint(request: Request) -> Response:
        request_task_group(request).create_task(asyncio.sleep(1))
        return StreamingResponse(iter(pieces), status, headers)

    app = Starlette(routes=[Route("/", endpoint)])
    install(app)
    assert run(get(app)).log[1:] == [f"chunk {each.decode()}" for each in pieces] + ["body"]


@pytest.mark.parametrize("start", [START, LENGTH])
@pytest.mark.parametrize("is_slow", [True, False])
def test_what_follows_the_start_waits_for_it(start: Message, is_slow: bool) -> None:
    """R2, R10: Nor does anything else that follows the start of a response, such as trailers."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start)
        trailers = {"type": "http.response.trailers", "headers": []}
        await asyncio.gather(send(piece(b"one")), send(trailers))

    served = TaskGroupMiddleware(app)
    log = run(get(SlowStart(served) if is_slow else served)).log
    assert log == ["start 200", "chunk one", "trailers"]
