"""A shutdown that meets BackgroundTasks of what has been answered already."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from anyio import from_thread
from starlette.applications import Starlette
from starlette.background import BackgroundTask, BackgroundTasks
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from quattro_web import ShutdownGrace, install, request_task_group, set_deadline
from quattro_web.testing import VirtualClockLoop
from tests.support.asgi import Exchange, run
from tests.support.lifespan import Life
from tests.support.signals import send, server_handlers


class Scene:
    """Responses with BackgroundTasks that never end by themselves."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.app = Starlette(
            routes=[
                Route(f"/{each.__name__}", each)
                for each in (self.done, self.late, self.bad, self.events, self.stubborn)
            ],
            exception_handlers={504: self.answer, 418: self.answer},
        )
        install(self.app, shutdown_grace=ShutdownGrace(requests=10, resources=None))

    async def background(self) -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError as exc:
            self.log.append(str(exc))
            raise

    async def answer(self, request: Request, exc: Exception) -> Response:
        return self.response(504)

    def response(self, status: int) -> Response:
        return PlainTextResponse("done", status, background=BackgroundTask(self.background))

    async def done(self, request: Request) -> Response:
        return self.response(200)

    async def late(self, request: Request) -> Response:
        set_deadline(request, 1)
        return await asyncio.sleep(3600, Response())

    async def bad(self, request: Request) -> Response:
        async def fail() -> None:
            raise HTTPException(418)

        request_task_group(request).create_task(fail())
        return await asyncio.sleep(3600, Response())

    async def events(self, request: Request) -> Response:
        async def body() -> AsyncIterator[str]:
            yield "done"

        request_task_group(request)
        background = BackgroundTask(self.background)
        return StreamingResponse(body(), media_type="text/event-stream", background=background)

    async def stubborn(self, request: Request) -> Response:
        response = await self.events(request)
        response.background = BackgroundTask(self.background_that_goes_on)
        return response

    async def background_that_goes_on(self) -> None:
        with suppress(asyncio.CancelledError):
            await self.background()

    def shut_down(self, path: str) -> Exchange:
        """Make a request, send a SIGTERM when it is answered, let the server wait for its task."""

        async def main() -> Exchange:
            life = Life(self.app)
            with server_handlers():
                await life.start()
                async with asyncio.timeout(60):
                    serving = asyncio.create_task(life.get(path))
                    await asyncio.sleep(2)
                    await send(signal.SIGTERM)
                    done = await serving
                assert serving.cancelling() == (path == "/stubborn")  # which has swallowed it
                await life.stop()
                return done

        return run(main())


@pytest.mark.parametrize(
    ("path", "status"),
    [("/done", 200), ("/late", 504), ("/bad", 504), ("/events", 200), ("/stubborn", 200)],
)
def test_background_tasks_are_cancelled(
    path: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A6: BackgroundTasks of a response that is complete are cancelled after their grace, also if
    it is the answer to a deadline or to a failed child: the response is what it was, and nothing is
    raised into the server."""
    scene = Scene()
    done = scene.shut_down(path)
    assert (done.status, done.body, done.error) == (status, b"done", None)
    assert [message.get("more_body", False) for message in done.sent[1:]].count(False) == 1
    assert scene.log == ["the server is shutting down"]
    assert f"GET {path}" in "".join(
        record.getMessage()
        for record in caplog.records
        if record.levelno == logging.WARNING and "shutdown" in record.getMessage()
    )


def test_thread_of_a_background_task_is_waited_for() -> None:
    """A6: BackgroundTasks that are def functions are cancelled when the thread has ended: the
    request ends afterwards, and those that follow do not begin."""
    log: list[str] = []

    async def until_cancelled() -> None:
        signalled.set()
        for _ in range(50):  # the shutdown waits for nothing else meanwhile
            await asyncio.sleep(0)

    def first() -> None:
        from_thread.run(until_cancelled)
        log.append("thread ended")

    async def done(request: Request) -> Response:
        tasks = BackgroundTasks([BackgroundTask(first), BackgroundTask(log.append, "never seen")])
        return PlainTextResponse("done", background=tasks)

    app = Starlette(routes=[Route("/", done)])
    install(app, shutdown_grace=ShutdownGrace(requests=0, resources=None))
    signalled = asyncio.Event()

    async def main() -> Exchange:
        life = Life(app)
        with server_handlers():
            await life.start()
            serving = asyncio.create_task(life.get("/"))
            await signalled.wait()
            await send(signal.SIGTERM)
            exchange = await serving
            log.append("request ended")
            await life.stop()
            return exchange

    with asyncio.Runner(debug=True, loop_factory=VirtualClockLoop) as runner:
        assert runner.run(main()).status == 200
    assert log == ["thread ended", "request ended"]
