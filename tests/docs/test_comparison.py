"""Every cell of the README's table that compares is the result of a test."""

import asyncio
import gc
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest
import quattro
from fastapi import BackgroundTasks, FastAPI, HTTPException

from quattro_web import install
from quattro_web.fastapi import RequestTaskGroup
from tests.docs.pages import ROOT
from tests.docs.serving import run
from tests.support.asgi import get
from tests.support.clock import DeadlockError
from tests.support.limitations import Limitation

Child = Callable[[], Coroutine[Any, Any, None]]


class Children:
    """The two tasks of each handler, and what became of them."""

    def __init__(self) -> None:
        self.other = "never starts"
        self.ended = True

    async def failing(self) -> None:
        self.ended = False
        await asyncio.sleep(1)
        self.ended = True
        raise HTTPException(404)

    async def patient(self) -> None:
        self.other = "keeps running"
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            self.other = "is cancelled"
            raise


def with_create_task(app: FastAPI, children: Children) -> None:
    @app.get("/")
    async def handler() -> None:
        app.state.tasks = [asyncio.create_task(c()) for c in (children.failing, children.patient)]
        await asyncio.sleep(0)


def with_background_tasks(app: FastAPI, children: Children) -> None:
    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(children.failing)
        tasks.add_task(children.patient)


def with_anyio(app: FastAPI, children: Children) -> None:
    @app.get("/")
    async def handler() -> None:
        async with anyio.create_task_group() as tg:
            tg.start_soon(children.failing)
            tg.start_soon(children.patient)


def with_quattro(app: FastAPI, children: Children) -> None:
    @app.get("/")
    async def handler() -> None:
        async with quattro.TaskGroup() as tg:
            tg.create_task(children.failing())
            tg.create_task(children.patient())


def with_request_task_group(app: FastAPI, children: Children) -> None:
    install(app)

    @app.get("/")
    async def handler(tg: RequestTaskGroup) -> None:
        tg.create_task(children.failing())
        tg.create_task(children.patient())


def outcome(define: Callable[[FastAPI, Children], None]) -> list[str]:
    """The first cells of a row: what the client gets, and what it leaves behind."""
    app, children = FastAPI(), Children()
    define(app, children)
    ended_at_the_end: list[bool] = []

    async def note(message: Any) -> None:
        if message["type"] == "http.response.body":
            # BackgroundTasks have not begun then: they are yet to come.
            ended_at_the_end.append(children.ended and children.other != "never starts")

    async def main() -> int:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        exchange = await get(app, on_send=note)
        await asyncio.sleep(2)  # the failing one has failed, the other one is still in its sleep
        app.state.tasks = None
        gc.collect()
        return exchange.status

    async def status_and_fate() -> tuple[int, str]:
        return await main(), children.other

    status, other = run(status_and_fate)
    [ended] = ended_at_the_end
    return ["yes" if ended else "no", str(status), other]


async def pump(requests: asyncio.Queue[asyncio.Future[None]]) -> None:
    while True:
        (await requests.get()).set_result(None)


async def child(requests: asyncio.Queue[asyncio.Future[None]]) -> None:
    for _ in range(3):
        done = asyncio.get_running_loop().create_future()
        requests.put_nowait(done)
        await done
        await asyncio.sleep(1)


def served_by(group: Any) -> str:
    """The last cell: whether a child may rely on a background task to its last line."""

    async def main() -> None:
        requests: asyncio.Queue[asyncio.Future[None]] = asyncio.Queue()
        async with group() as tg:
            tg.create_background_task(pump(requests))
            tg.create_task(child(requests))

    try:
        run(main)
    except DeadlockError:
        return "hangs"
    return "completes"


def in_a_request() -> str:
    app = FastAPI()
    install(app)

    @app.get("/")
    async def handler(tg: RequestTaskGroup) -> None:
        requests: asyncio.Queue[asyncio.Future[None]] = asyncio.Queue()
        tg.create_background_task(pump(requests))
        tg.create_task(child(requests))

    async def main() -> int:
        return (await get(app)).status

    return {200: "completes"}[run(main)]


def row_of(name: str) -> list[str]:
    """The cells of a row of the README, after its name."""
    for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"| `{name}` |"):
            return [cell.strip() for cell in line.split("|")[2:-1]]
    raise AssertionError(name)


OURS = "RequestTaskGroup"


def test_our_row() -> None:
    """Our row of the README's table is what happens."""
    assert [*outcome(with_request_task_group), in_a_request()] == row_of(OURS)


@pytest.mark.parametrize(
    ("whose", "name", "define", "last"),
    [
        ("CPython", "asyncio.create_task", with_create_task, None),
        ("starlette", "BackgroundTasks", with_background_tasks, None),
        ("anyio", "anyio.create_task_group", with_anyio, None),
        ("quattro", "quattro.TaskGroup", with_quattro, lambda: served_by(quattro.TaskGroup)),
    ],
)
def test_row_of_others(
    whose: str,
    name: str,
    define: Callable[[FastAPI, Children], None],
    last: Callable[[], str] | None,
    limitation: Limitation,
) -> None:
    """So are the rows of others, unless they have become as ours."""
    cells, stated = [*outcome(define), last() if last else ""], row_of(name)
    assert all(cell in pair for cell, *pair in zip(cells, stated, row_of(OURS), strict=True))
    what = f"({name}) does in a handler what the README says: {', '.join(filter(None, stated))}"
    limitation(whose, what, remains=cells == stated)
