"""A shutdown that a program announces, where no signal does."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from starlette.applications import Starlette

from quattro_web import (
    NoTaskGroupError,
    ShutdownGrace,
    TaskGroupMiddleware,
    app_health,
    begin_shutdown,
    install,
    task_group_lifespan,
)
from quattro_web.testing import AppClient
from tests.shutdown.shutting import Scene
from tests.support.apps import pump_of, settle
from tests.support.asgi import Exchange, run
from tests.support.lifespan import Life

GRACE = ShutdownGrace(requests=10)


def here(app: Any) -> None:
    begin_shutdown(app)


def in_a_thread(app: Any) -> None:
    thread = threading.Thread(target=begin_shutdown, args=(app,))
    thread.start()
    thread.join()


def in_another_loop(app: Any) -> None:
    async def main() -> None:
        begin_shutdown(app)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    thread.join()


@pytest.mark.parametrize("begin", [here, in_a_thread, in_another_loop])
def test_requests_are_told_and_cancelled(begin: Callable[[Any], None]) -> None:
    """A6: From `begin_shutdown` on the shutdown goes as at a signal, wherever it is called:
    requests are told at once, and cancelled after their grace. A second call changes nothing."""
    scene = Scene(GRACE)

    async def main() -> list[Exchange]:
        life = Life(scene.app, log=scene.log)
        await life.start()
        told, slow = (
            asyncio.create_task(Exchange(scene.app, path).run()) for path in ("/told", "/slow")
        )
        await asyncio.sleep(1)
        begin(scene.app)
        await asyncio.sleep(3)
        assert app_health(scene.app).is_shutting_down
        begin(scene.app)
        answers = [await told, await slow]
        await life.stop()
        return answers

    told, slow = run(main())
    assert (told.body, slow.status) == (b"goodbye", 503)
    assert "1 s: told" in scene.log
    assert "11 s: cancelled: the server is shutting down" in scene.log


def test_app_that_has_not_begun() -> None:
    """A6, R12: Before the app's lifespan is run there is nothing to shut down: that is an error
    which says so. After it, there is nothing left to do."""
    app = Starlette()
    install(app)
    with pytest.raises(NoTaskGroupError, match=r"has not run, so it can't be shut down: call "):
        begin_shutdown(app)
    with pytest.raises(NoTaskGroupError, match="None has not run"):
        begin_shutdown(None)

    async def main() -> None:
        async with Life(app):
            pass
        begin_shutdown(app)

    run(main())
    begin_shutdown(app)


@pytest.mark.parametrize("by_hand", [True, False])
def test_app_that_starts(by_hand: bool) -> None:
    """A6: Of an app that is still starting, no pump is started."""
    log: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        begin_shutdown(app)
        await settle()
        yield

    if by_hand:
        app = Starlette(lifespan=task_group_lifespan(lifespan, pumps=[pump_of(log)]))
    else:
        app = Starlette(lifespan=lifespan)
        install(app, pumps=[pump_of(log)])

    async def main() -> None:
        async with Life(app):
            await settle()

    run(main())
    assert log == []


def test_middleware_around_another_app() -> None:
    """A6: An app that is none of Starlette's is known by the middleware around it."""
    app = TaskGroupMiddleware(Starlette())

    async def main() -> None:
        async with Life(app):
            begin_shutdown(app)
            await settle()
            assert app_health(app).is_shutting_down

    run(main())


def test_in_a_test_of_an_app() -> None:
    """A6: So it does in a test of an app, with the client of the testing kit."""
    app = Starlette()
    install(app)

    async def main() -> None:
        async with AppClient(app):
            begin_shutdown(app)
            await settle()
            assert app_health(app).is_shutting_down

    run(main())


def test_under_trio() -> None:
    """A6, R10: Under trio there is nothing to shut down, and it is no error."""
    app = Starlette()
    install(app)

    async def main() -> None:
        started, stopping = trio.Event(), trio.Event()

        async def receive() -> dict[str, str]:
            if started.is_set():
                await stopping.wait()
                return {"type": "lifespan.shutdown"}
            return {"type": "lifespan.startup"}

        async def send(message: Any) -> None:
            started.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(app, {"type": "lifespan"}, receive, send)
            await started.wait()
            begin_shutdown(app)
            stopping.set()

    trio.run(main)
