"""Several tasks that send, and more of a body than its response has announced."""

import asyncio
from contextlib import suppress

import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quattro_web import TaskGroupMiddleware, install, request_task_group, set_deadline
from quattro_web._request.response import RELEASE_AFTER
from tests.support.asgi import Exchange, get, run

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


@pytest.mark.parametrize("why", ["a child fails", "the deadline passes"])
def test_another_task_sends_the_end_of_what_has_failed(why: str) -> None:
    """R4, R7, R8: A task of the app's own that sends the end of a response is cancelled when the
    request has failed, with the reason if there is one; the response is that of the failure."""
    log: list[str] = []

    async def fails() -> None:
        await asyncio.sleep(1)
        raise HTTPException(418)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def sends_end() -> None:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(2)
            try:
                await send(END)
            except asyncio.CancelledError as cancelled:
                log.append(str(cancelled))
                raise

        if why == "a child fails":
            request_task_group(scope).create_task(fails())
        else:
            request_task_group(scope)
            set_deadline(scope, 1)
        await send(LENGTH)
        sender = asyncio.create_task(sends_end())
        try:
            await asyncio.wait((sender,))
        except asyncio.CancelledError:
            await asyncio.wait((sender,))
            raise

    exchange = run(get(TaskGroupMiddleware(app)))
    if why == "a child fails":
        assert log == ["a task of the request has failed"]
        assert repr(exchange.error) == repr(HTTPException(418))
    else:
        assert log == ["the deadline of the request has passed"]
        assert exchange.status == 504


def test_sender_of_the_end_is_cancelled() -> None:
    """C10: A task of the app's own that is cancelled as it sends the end of a response, which waits
    for the children, sees that: nothing more of the response leaves."""
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request_task_group(scope).create_task(asyncio.sleep(10))
        await send(LENGTH)
        sender = asyncio.ensure_future(send(END))
        await asyncio.sleep(1)
        sender.cancel()
        await asyncio.wait((sender,))
        log.append(f"cancelled: {sender.cancelled()}")

    run(get(TaskGroupMiddleware(app), log=log))
    assert log[0] == "cancelled: True"
    assert "body" not in log


def test_child_that_sends_what_was_announced() -> None:
    """R2: The body of a response with a Content-Length that a child sends, while the app waits to
    send the end, leaves whole."""

    async def body(send: Send) -> None:
        await asyncio.sleep(1)
        await send(piece(b"onetwo"))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request_task_group(scope).create_task(body(send))
        await send(LENGTH)
        await send(END)

    assert run(get(TaskGroupMiddleware(app))).log == ["start 200", "chunk onetwo", "body"]


@pytest.mark.parametrize("what", ["its handler", "who has sent its start"])
def test_failure_when_another_task_has_ended(what: str) -> None:
    """R4: A child that fails when the task has ended in which the handler ran, or which has sent
    the start, cancels the app, which goes on."""

    async def fails() -> None:
        await asyncio.sleep(1)
        raise HTTPException(418)

    async def endpoint(request: Request) -> Response:
        request_task_group(request).create_task(fails())
        return Response()

    async def sends_start(send: Send) -> None:
        await send(LENGTH)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if what == "its handler":

            async def keep(message: Message) -> None:
                pass

            handled = Starlette(routes=[Route("/", endpoint)])(scope, receive, keep)
            await asyncio.create_task(handled)
        else:
            request_task_group(scope).create_task(fails())
            await asyncio.create_task(sends_start(send))
        await asyncio.sleep(60)

    async def main() -> float:
        exchange = await get(TaskGroupMiddleware(app))
        assert isinstance(exchange.error, HTTPException) or exchange.status == 418
        return asyncio.get_running_loop().time()

    assert run(main()) == 1


@pytest.mark.parametrize("group", [True, False])
def test_feeder_that_fails_at_the_end(group: bool) -> None:
    """R5: A stream has no clean end whose feeder, in a task group around it, fails in the turn in
    which the stream learns of its end."""

    async def feeds(has_ended: asyncio.Event) -> None:
        await asyncio.sleep(1)
        has_ended.set()
        raise ZeroDivisionError

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if group:
            request_task_group(scope)
        has_ended = asyncio.Event()
        async with asyncio.TaskGroup() as feeders:
            feeders.create_task(feeds(has_ended))
            await send(START)
            await send(piece(b"one"))
            await has_ended.wait()
            await send(END)

    exchange = run(get(TaskGroupMiddleware(app)))
    assert exchange.log[:2] == ["start 200", "chunk one"]
    assert "body" not in exchange.log


@pytest.mark.parametrize("who", ["one task", "two tasks"])
@pytest.mark.parametrize("start", [START, LENGTH])
def test_client_that_leaves_when_the_end_is_sent(start: Message, who: str) -> None:
    """R7: An app that has sent the end of its response is not cancelled any more, though the start
    is on its way still, and whoever has sent it."""
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request_task_group(scope)
        await send(start)
        if who == "two tasks":
            await asyncio.gather(send(piece(b"one")), send(END))
        else:
            await send(END)
        await asyncio.sleep(1)
        log.append("over")

    async def main() -> None:
        served = SlowStart(TaskGroupMiddleware(app, cancel_on_disconnect=True))
        await Exchange(served, log=log).disconnect_after(0.5).run()

    run(main())
    assert log == ["start 200", *(["chunk one"] if who == "two tasks" else []), "body", "over"]


@pytest.mark.parametrize("group", [True, False])
def test_end_in_the_turn_in_which_the_start_leaves_by_itself(group: bool) -> None:
    """R2: A response whose end is sent just when its start was held for long enough is complete."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if group:
            request_task_group(scope)
        loop = asyncio.get_running_loop()
        due = loop.create_future()
        loop.call_later(RELEASE_AFTER, due.set_result, None)
        await send(START)
        await due
        await send(END)
        with pytest.raises(RuntimeError, match="is complete"):
            request_task_group(scope)

    exchange = run(get(TaskGroupMiddleware(app)))
    assert (exchange.log, exchange.error) == (["start 200", "body"], None)
