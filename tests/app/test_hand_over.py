"""Work that is handed over to the app, and outlives the response of the request it came from."""

import asyncio
import logging
from typing import Any, assert_type

import pytest
from starlette.applications import Starlette

from quattro_web import install
from quattro_web.fastapi import AppTaskGroup
from tests.app.handing import app_with, fail, serve, visitor
from tests.support.apps import pump_of, settle
from tests.support.asgi import run
from tests.support.lifespan import Life


def test_it_outlives_the_response() -> None:
    """A5: Work handed over goes on when its response is complete."""
    log: list[str] = []
    answered = asyncio.Event()

    async def work() -> None:
        await answered.wait()
        log.append("work done")

    async def main() -> None:
        app = app_with(lambda group: group.create_task(work()), log)
        async with Life(app) as life:
            exchange = await life.get("/items/5")
            assert exchange.is_complete
            assert "work done" not in log
            answered.set()
            await settle()
            assert "work done" in log

    run(main())


def test_it_is_not_cancelled_with_the_request() -> None:
    """A5: Work handed over goes on when its request has failed and its children are cancelled."""
    log: list[str] = []
    go = asyncio.Event()

    async def work() -> None:
        await go.wait()
        log.append("work done")

    def hand_over(group: AppTaskGroup) -> None:
        group.create_task(work())
        raise ZeroDivisionError

    async def main() -> None:
        async with Life(app_with(hand_over, log)) as life:
            assert (await life.get("/items/5")).status == 500
            go.set()

    run(main())
    assert "work done" in log


def test_it_keeps_the_context() -> None:
    """A5: Work handed over sees the context variables of its request."""
    seen: list[str] = []

    async def work() -> None:
        seen.append(visitor.get())

    serve(lambda group: group.create_task(work()))
    assert seen == ["5"]


def test_it_is_awaited_while_the_pumps_run() -> None:
    """A5: At shutdown work handed over is awaited, and the pumps run as long as it does."""
    log: list[str] = []

    async def main() -> None:
        stopping = asyncio.Event()

        async def work() -> None:
            await stopping.wait()
            await settle()
            log.append("work done")

        life = Life(app_with(lambda group: group.create_task(work()), log), log=log)
        async with life:
            await life.get("/items/5")
            log.clear()
            asyncio.get_running_loop().call_soon(stopping.set)

    run(main())
    assert log == ["work done", "pump ends", "resource closes", "shutdown.complete"]


def test_result_is_typed() -> None:
    """A5: The task's result is that of the work, or None if it failed, and mypy knows it."""
    results: list[int | None] = []

    async def work() -> int:
        return 5

    def hand_over(group: AppTaskGroup) -> None:
        task = group.create_task(work)
        assert_type(task, asyncio.Task[int | None])
        task.add_done_callback(lambda task: results.append(task.result()))

    serve(hand_over)
    assert results == [5]


@pytest.mark.parametrize("work", [None, 5, "work"])
def test_what_is_no_work(work: Any) -> None:
    """A5: What is neither coroutine nor function is a TypeError where it is handed over."""

    def hand_over(group: AppTaskGroup) -> None:
        with pytest.raises(TypeError, match=f"a coroutine was expected.*got {work!r}"):
            group.create_task(work)

    serve(hand_over)


def test_after_the_shutdown() -> None:
    """A5: When the app has shut down, handing over is an error that says so; nothing is left."""
    groups: list[AppTaskGroup] = []
    serve(groups.append)
    for work in (fail, fail()):
        with pytest.raises(RuntimeError, match=r"the app has shut down.*GET /items/5"):
            groups[0].create_task(work)


def test_a_server_that_gives_up(errors: list[logging.LogRecord]) -> None:
    """A5: Work handed over is cancelled when the server gives up; its clean-up is awaited."""
    log: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            log.append("work ends")

    async def main() -> None:
        app = Starlette()
        install(app, pumps=[pump_of(log)])
        life = Life(app)
        await life.start()
        (await life.group()).create_task(work)
        stopping = asyncio.create_task(life.stop())
        await settle()
        assert "work ends" not in log
        await life.give_up()
        await stopping

    run(main())
    assert log[-2:] == ["work ends", "pump ends"]
    [record] = errors
    assert "the shutdown cancels handed-over work" in record.getMessage()
