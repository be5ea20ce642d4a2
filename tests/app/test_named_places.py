"""The lines at which the log says that something is: those of the app, not ours."""

import _thread
import asyncio
import logging
import re
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from quattro_core import TaskGroup
from quattro_web import FileLock, Pump, install, request_task_group
from quattro_web._app.lookup import runs_of
from quattro_web._util.task_stacks import line_of_thread
from tests.support.apps import settle
from tests.support.asgi import run
from tests.support.lifespan import Life
from tests.support.server import PATIENCE

OURS = re.compile(r"quattro_(core|web)/|TaskGroup|RequestTasks|HandedOver|Pump[A-Z]|Supervis")


async def forever(_: object = None) -> None:
    await asyncio.Event().wait()


async def gathering(group: TaskGroup) -> None:
    await group.gather(forever(), forever)


async def mapping(group: TaskGroup) -> None:
    await anext(group.map(forever, [1], limit=2))


async def endless(group: TaskGroup) -> AsyncIterator[bytes]:
    yield b"chunk"
    await forever()


START: dict[str, Callable[[TaskGroup], Any]] = {
    "child": lambda group: group.create_task(forever()),
    "function": lambda group: group.create_task(forever),
    "gather": lambda group: group.create_task(gathering(group)),
    "map": lambda group: group.create_task(mapping(group)),
    "background": lambda group: group.create_background_task(forever()),
    "stream": lambda group: None,
}


@pytest.mark.parametrize("kind", START)
@pytest.mark.parametrize("limit", [None, 1])
def test_requests(kind: str, limit: int | None, errors: list[logging.LogRecord]) -> None:
    """A6: Where the log says what a request still does, it names no private function of ours."""

    async def endpoint(request: Request) -> Response:
        group = request_task_group(request)
        START[kind](group)
        START[kind](group)
        if kind == "stream":
            return StreamingResponse(endless(group))
        if kind == "background":
            await forever()
        return PlainTextResponse("")

    app = Starlette(routes=[Route("/", endpoint)])
    install(app, concurrency_limit=limit)

    async def main() -> None:
        async with Life(app) as life, asyncio.TaskGroup() as tg:
            tg.create_task(life.get())
            await settle()
            tg.create_task(life.stop())

    run(main())
    [message] = [
        record.getMessage()
        for record in errors
        if "the shutdown cancels everything that is still open" in record.getMessage()
    ]
    assert not OURS.search(message), message


async def broken() -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    "pump",
    [
        Pump(forever, name="pump"),
        Pump(broken, name="pump", on_failure="restart"),
        Pump(forever, name="pump", once=FileLock(app="named places")),
    ],
    ids=["running", "backing off", "waiting for its lock"],
)
def test_pumps(pump: Pump) -> None:
    """A6: So it is with pumps, those that are between two attempts included."""
    app = Starlette()
    install(app, pumps=[pump])
    lines: list[str] = []

    async def main() -> None:
        async with Life(app):
            await settle()
            for each in runs_of(app):
                lines.extend(each.pumps.still_running())

    run(main())
    [line] = lines
    assert not OURS.search(line), line


def test_work_that_is_no_coroutine(errors: list[logging.LogRecord]) -> None:
    """A6: Handed-over work that has no line, such as a future, is waiting."""
    app = Starlette()
    install(app)

    async def main() -> None:
        async with Life(app) as life:
            work: Any = lambda: asyncio.get_running_loop().create_future()  # noqa: E731  # which has no name
            (await life.group()).create_task(work, name="future")

    run(main())
    [record] = errors
    assert record.getMessage().endswith("(waiting)")


def test_threads() -> None:
    """A6: So it is with threads: the line of one is that of who has called us, if there is any."""
    lines: list[str] = []
    done = threading.Event()
    ours: dict[str, Any] = {"__name__": "quattro_web._locks.file", "tell": line_of_thread}
    code = """
import sys

def function(lines, done):
    lines.append(tell(sys._getframe()))
    done.set()
"""
    exec(code, ours)
    ours["function"](lines, done)
    done.clear()
    _thread.start_new_thread(ours["function"], (lines, done))  # without the frames of threading
    assert done.wait(PATIENCE)
    assert lines[0].startswith(f"test_threads, {__file__}:")
    assert lines[1] == "waiting"
