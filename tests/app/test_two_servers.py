"""Two servers of one event loop that serve the same app, as for HTTP and for HTTPS."""

import asyncio
import logging

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from quattro_web import (
    NoTaskGroupError,
    ShutdownGrace,
    app_task_group,
    install,
    shutdown_event,
)
from tests.support.apps import pump_of
from tests.support.asgi import run
from tests.support.lifespan import Life


async def told(request: Request) -> Response:
    await shutdown_event(request).wait()
    return PlainTextResponse("told")


async def slow(request: Request) -> Response:
    await asyncio.sleep(60)
    return PlainTextResponse("slow")


async def hand_over(request: Request) -> Response:
    task = app_task_group(request).create_task(asyncio.sleep(1, "done"))
    return PlainTextResponse(await task)


def app_of() -> Starlette:
    app = Starlette(routes=[Route(f"/{each.__name__}", each) for each in (told, slow, hand_over)])
    install(app, shutdown_grace=ShutdownGrace(requests=5))
    return app


def test_two_servers_that_start_at_once(errors: list[logging.LogRecord]) -> None:
    """A1: Two servers that start in two threads at once share the app, though Starlette makes its
    middlewares for each of them, and uses the last ones."""

    async def main() -> None:
        app = Starlette(routes=[Route("/", hand_over)])
        install(app, pumps=[pump_of([])])
        made_meanwhile = app.build_middleware_stack()
        async with Life(app) as life:
            app.middleware_stack = made_meanwhile
            assert (await life.get("/")).status == 200

    run(main())
    assert errors == []


def test_one_of_two_servers_stops() -> None:
    """A1, A5, A6: Each server has its own run of the app: when one of them stops, its requests are
    told and ended, and those of the other go on and may hand work over."""

    async def main(first: int) -> None:
        lives = [Life(app), Life(app)]
        for life in lives:
            await life.start()
        stopped, other = lives[first], lives[1 - first]
        paths = "/told", "/slow"
        ended = [asyncio.create_task(stopped.get(path)) for path in paths]
        going_on = [asyncio.create_task(other.get(path)) for path in paths]
        await asyncio.sleep(1)
        stopping = asyncio.create_task(stopped.stop())
        assert [(await task).status for task in ended] == [200, 503]
        await stopping
        assert (await other.get("/hand_over")).body == b"done"
        assert (await going_on[1]).body == b"slow"
        assert not going_on[0].done()
        await other.stop()
        assert (await going_on[0]).body == b"told"

    app = app_of()
    for first in (0, 1, 0):
        run(main(first))


def test_state_of_one_server() -> None:
    """R10: Where one server runs an app, nothing is added to the state of its lifespan."""

    async def main() -> None:
        async with Life(app) as life:
            assert life.state == {}
        assert isinstance((await life.get("/hand_over")).error, NoTaskGroupError)

    app = app_of()
    run(main())
