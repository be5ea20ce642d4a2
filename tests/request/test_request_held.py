"""How long the start of a response is held, and what is held with it."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from quattro_web import TaskGroupMiddleware, request_task_group
from quattro_web._request.response import RELEASE_AFTER
from tests.request.gated import app_of
from tests.support.asgi import get, run


def test_start_of_a_silent_stream_is_not_held_for_ever() -> None:
    """R2: The start of a stream leaves although its first chunk is long in coming."""
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        async def chunks() -> AsyncIterator[str]:
            await asyncio.sleep(60)
            log.append("a minute later")
            yield "a"

        request_task_group(request).create_background_task(asyncio.Event().wait())
        return StreamingResponse(chunks())

    run(get(app_of(endpoint), log=log))
    assert log == ["start 200", "a minute later", "chunk a", "body"]


def test_first_chunk_waits_for_a_start_that_is_being_sent() -> None:
    """R2, R10: A chunk does not overtake the start that a slow client is still taking."""
    log: list[str] = []

    async def slow(message: Message) -> None:
        if message["type"] == "http.response.start":
            await asyncio.sleep(10)
            log.append("start taken")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request_task_group(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(1)
        await send({"type": "http.response.body", "body": b"a"})

    run(get(TaskGroupMiddleware(app), log=log, on_send=slow))
    assert log == ["start 200", "start taken", "body a"]


@pytest.mark.parametrize("with_group", [True, False])
def test_chunk_in_the_moment_in_which_the_start_is_due(with_group: bool) -> None:
    """R2, R10: Nor does a chunk that is sent in the turn in which the start was held for long
    enough."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if with_group:
            request_task_group(scope)
        due = asyncio.Event()
        asyncio.get_running_loop().call_later(RELEASE_AFTER, due.set)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await due.wait()
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    assert run(get(TaskGroupMiddleware(app))).log == ["start 200", "chunk a", "body"]


@pytest.mark.parametrize("with_group", [True, False])
def test_start_of_an_ordinary_response_instead_of_a_stream(with_group: bool) -> None:
    """R4: An app that has begun a stream, nothing of which has left, and begins an ordinary one
    instead, may still fail: that is held as any other."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if with_group:
            request_task_group(scope)
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await asyncio.sleep(1)
        raise ZeroDivisionError

    assert run(get(TaskGroupMiddleware(app))).log == ["raised ZeroDivisionError"]


@pytest.mark.parametrize("with_group", [True, False])
def test_start_is_not_cut_by_who_waits_for_it(with_group: bool) -> None:
    """R5, R10: A timeout of the app's around a chunk, which waits for a start that a slow client is
    still taking, does not cut the start."""
    log: list[str] = []

    async def slow(message: Message) -> None:
        if message["type"] == "http.response.start":
            await asyncio.sleep(10)
            log.append("start taken")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if with_group:
            request_task_group(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await send({"type": "http.response.body", "body": b"a", "more_body": True})
        log.append("timeout")
        await send({"type": "http.response.body", "body": b"b"})

    run(get(TaskGroupMiddleware(app), log=log, on_send=slow))
    assert log == ["start 200", "timeout", "start taken", "body b"]


def test_start_that_cannot_be_sent_is_not_lost() -> None:
    """R2, C5: What the server raises at a start that was held for long enough leaves the app, also
    if the app sends nothing after it."""
    error = ZeroDivisionError()

    async def fails(message: Message) -> None:
        raise error

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request_task_group(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(1)

    assert run(get(TaskGroupMiddleware(app), on_send=fails)).error is error


@pytest.mark.parametrize("with_group", [True, False])
def test_failure_while_the_start_is_being_sent(with_group: bool) -> None:
    """R5: When an app fails while a slow client is still taking the start, that is not cut if the
    app has asked for its group, and nothing goes on when the request has ended."""
    log: list[str] = []

    async def slow(message: Message) -> None:
        await asyncio.sleep(10)
        log.append("start taken")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if with_group:
            request_task_group(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(1)
        raise ZeroDivisionError

    async def main() -> None:
        await get(TaskGroupMiddleware(app), log=log, on_send=slow)
        await asyncio.sleep(10)

    run(main())
    taken = ["start taken"] if with_group else []
    assert log == ["start 200", *taken, "raised ZeroDivisionError"]


@pytest.mark.parametrize("with_group", [True, False])
def test_start_of_an_app_that_sends_nothing_else(with_group: bool) -> None:
    """R10: The start that an app sends and nothing else reaches the server once, however long that
    takes."""

    async def slow(message: Message) -> None:
        await asyncio.sleep(1)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if with_group:
            request_task_group(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    assert run(get(TaskGroupMiddleware(app), on_send=slow)).log == ["start 200"]


def test_ordinary_response_is_held_as_long_as_it_takes() -> None:
    """R2: An ordinary response is held, whatever the time that its children take."""
    log: list[str] = []

    async def child() -> None:
        await asyncio.sleep(60)
        log.append("child")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request_task_group(scope).create_task(child())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a"})

    run(get(TaskGroupMiddleware(app), log=log))
    assert log == ["child", "start 200", "body a"]
