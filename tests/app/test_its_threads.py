"""Threads of pumps and of handed-over work, which nothing can cancel, end before the resources."""

import asyncio

import pytest
from anyio import from_thread
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from quattro_web import ShutdownGrace, app_task_group, install
from tests.support.apps import lifespan_of
from tests.support.lifespan import Life


@pytest.mark.parametrize("who", ["pump", "handed over"])
def test_thread_ends_before_the_resources(who: str) -> None:
    """A5, A6: A pump, or handed-over work, that works in a thread at the shutdown ends with that
    call, and what your lifespan has opened is closed afterwards."""
    log: list[str] = []
    has_begun, ended = asyncio.Event(), asyncio.Event()
    loop: list[asyncio.AbstractEventLoop] = []

    async def outlast() -> None:
        has_begun.set()
        await asyncio.sleep(0.05)  # the shutdown waits for nothing else meanwhile

    def work() -> None:
        from_thread.run(outlast)
        log.append("thread ended")
        loop[0].call_soon_threadsafe(ended.set)

    async def calls() -> None:
        while True:
            await run_in_threadpool(work)

    async def hand_over(request: Request) -> Response:
        app_task_group(request).create_task(calls())
        return Response()

    app = Starlette(routes=[Route("/", hand_over)], lifespan=lifespan_of(log))
    pumps = [calls] if who == "pump" else []
    install(app, pumps=pumps, shutdown_grace=ShutdownGrace(requests=0, tasks=0, resources=None))

    async def main() -> None:
        loop.append(asyncio.get_running_loop())
        life = Life(app)
        await life.start()
        if who == "handed over":
            assert (await life.get("/")).status == 200
        await has_begun.wait()
        await life.stop()
        await ended.wait()  # also of a thread that was left

    # Handed-over work has one second, at least, which a virtual clock would not wait for.
    asyncio.run(main())
    assert (log[0], set(log[1:-1]), log[-1]) == (
        "resource opens",
        {"thread ended"},
        "resource closes",
    )
