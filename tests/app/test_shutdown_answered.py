"""A shutdown that meets BackgroundTasks of what has been answered already."""

import asyncio
import logging
import signal

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from quattro_web import ShutdownGrace, install, request_task_group, set_deadline
from tests.support.asgi import Exchange, run
from tests.support.lifespan import Life
from tests.support.signals import send, server_handlers


class Scene:
    """Responses with BackgroundTasks that never end by themselves."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.app = Starlette(
            routes=[Route(f"/{each.__name__}", each) for each in (self.done, self.late, self.bad)],
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
                assert not serving.cancelling()
                await life.stop()
                return done

        return run(main())


@pytest.mark.parametrize(("path", "status"), [("/done", 200), ("/late", 504), ("/bad", 504)])
def test_background_tasks_are_cancelled(
    path: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A6: BackgroundTasks of a response that is complete are cancelled after their grace, also if
    it is the answer to a deadline or to a failed child: the response is what it was, and nothing is
    raised into the server."""
    scene = Scene()
    done = scene.shut_down(path)
    assert (done.status, done.body, done.error) == (status, b"done", None)
    assert scene.log == ["the server is shutting down"]
    assert f"GET {path}" in "".join(
        record.getMessage()
        for record in caplog.records
        if record.levelno == logging.WARNING and "shutdown" in record.getMessage()
    )
