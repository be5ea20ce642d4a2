"""Responses that a child sends."""

import asyncio
import sys
from collections.abc import AsyncIterator

import pytest
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from quattro_web import TaskGroupMiddleware, request_task_group
from tests.request.gated import ticks
from tests.support.asgi import get, run


def test_child_that_sends_the_response() -> None:
    """R2: A child may send the response itself: its end waits for the child and the others."""
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def respond() -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"ok"})
            await ticks(log, "response sent")

        tg = request_task_group(scope)
        tg.create_task(respond())
        tg.create_task(ticks(log, "other", 9))

    run(get(TaskGroupMiddleware(app), log=log))
    assert log == ["response sent", "other", "start 200", "body ok"]


@pytest.mark.parametrize("delay", [0, 5])
def test_child_whose_tasks_send_the_response(delay: float) -> None:
    """R2: A child may send a StreamingResponse, which sends it in a task of its own: its end waits
    for the child, and the child does not wait for it, whichever of handler and stream ends first.
    """
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def pieces() -> AsyncIterator[str]:
            yield "one"
            await asyncio.sleep(1)
            yield "two"

        async def respond() -> None:
            await StreamingResponse(pieces())(scope, receive, send)
            await ticks(log, "child")

        request_task_group(scope).create_task(respond())
        await asyncio.sleep(delay)
        log.append("handler")

    run(get(TaskGroupMiddleware(app), log=log))
    log.remove("handler")
    assert log == ["start 200", "chunk one", "chunk two", "child", "body"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_eager_child_that_sends_the_response() -> None:
    """R2, C10: So may an eager one, in its first step."""
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def respond() -> None:
            await PlainTextResponse("ok")(scope, receive, send)
            log.append("response sent")

        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
        tg = request_task_group(scope)
        tg.create_task(ticks(log, "other", 9))
        await tg.create_task(respond())

    run(get(TaskGroupMiddleware(app), log=log))
    assert log == ["response sent", "other", "start 200", "body ok"]
