"""What comes from a client, where it gets into log entries and into the text of errors."""

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from quattro_web import app_task_group, install, request_task_group, set_deadline
from quattro_web._shutdown import watchdog
from quattro_web._util.escaping import escaped
from quattro_web._util.scope import describe
from quattro_web.testing import (
    AppClient,
    DeadlockError,
    LeakedTaskError,
    VirtualClockLoop,
    no_leaked_tasks,
)
from tests.support.apps import settle
from tests.support.asgi import Socket, run
from tests.support.lifespan import Life

# A line feed, a colour, a C1 control, bidi controls, the separators of Unicode, a zero-width space,
# a surrogate alone.
PATH = "/café \n2026-01-31 all is lost\r\x1b[31m\x9b2J\u202e\u2066\u2028\u2029\u200b\ud800"
SHOWN = r"/café \n2026-01-31 all is lost\r\x1b[31m\x9b2J\u202e\u2066\u2028\u2029\u200b\ud800"
SHOWN_PATH = SHOWN.replace(" ", "%20")
ID = r"1\x1b[2J\x85"


def check(text: str) -> None:
    assert text.isprintable(), text
    assert len(text) < 3000


async def fail() -> None:
    raise ZeroDivisionError


async def hang() -> None:
    await asyncio.Event().wait()


async def child(conn: HTTPConnection) -> None:
    request_task_group(conn).create_task(hang(), name=conn.scope["path"])


async def cancelled_child(conn: HTTPConnection) -> None:
    async def wait() -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    request_task_group(conn).create_task(wait(), name=conn.scope["path"])


async def failing_work(conn: HTTPConnection) -> None:
    app_task_group(conn).create_task(fail(), name=conn.scope["path"])


async def slow_work(conn: HTTPConnection) -> None:
    app_task_group(conn).create_task(hang(), name=conn.scope["path"])


Start = Callable[[HTTPConnection], Coroutine[Any, Any, None]]


def app_of(start: Start, deadline: float | None = None) -> Starlette:
    async def endpoint(request: Request) -> Response:
        await start(request)
        return PlainTextResponse("")

    app = Starlette(routes=[Route("/{name}", endpoint)])
    install(app, deadline=deadline, cancel_on_disconnect=True)
    return app


def serve(app: Starlette, path: str = PATH, *, leaves: bool = False, request_id: str = "") -> None:
    """Serve a request for a second, and shut down."""

    async def main() -> None:
        async with Life(app) as life, asyncio.TaskGroup() as group:
            exchange = life.exchange()
            exchange.scope["path"] = path
            exchange.scope["headers"] = [(b"x-request-id", request_id.encode("latin-1"))]
            group.create_task(exchange.run())
            await asyncio.sleep(1)
            if leaves:
                exchange.disconnect()
                await settle()
            group.create_task(life.stop())

    run(main())


@pytest.mark.parametrize(
    ("start", "options", "begin"),
    [
        (child, {"leaves": True}, f"GET {SHOWN_PATH}: the client has left"),
        (child, {"deadline": 0.5}, f"GET {SHOWN_PATH} has passed its deadline"),
        (child, {}, "the shutdown cancels everything that is still open"),
        (failing_work, {}, f"{SHOWN}, handed over by GET {SHOWN_PATH} (request id '{ID}')"),
        (slow_work, {}, "the shutdown cancels handed-over work"),
    ],
    ids=["client left", "deadline", "shutdown", "work fails", "work is cancelled"],
)
def test_log_entries(
    caplog: pytest.LogCaptureFixture, start: Start, options: dict[str, Any], begin: str
) -> None:
    """O3: A path, a request id and the name of a task get into the log on the line of their entry,
    as printable characters: nobody can add an entry to it, or speak to a terminal."""
    app = app_of(start, options.pop("deadline", None))
    with caplog.at_level(logging.INFO, "quattro_web"):
        serve(app, request_id="1\x1b[2J\x85", **options)
    entries = [record.getMessage() for record in caplog.records if record.name == "quattro_web"]
    assert any(entry.startswith(begin) and SHOWN_PATH in entry for entry in entries), entries
    for entry in entries:
        check(entry)


def test_backslash() -> None:
    """O3: What looks like an escaped character is told from one."""
    assert escaped("a\\nb\n") == r"a\\nb\n"
    assert escaped("a\\nb") == r"a\\nb"


@pytest.mark.parametrize("blank", "\u115f\u1160\u2800\u3164\uffa0")
def test_letters_that_look_like_spaces(blank: str) -> None:
    """O3: Nor does a path go on like an entry, with letters for the spaces that it can't have."""
    shown = describe({"method": "GET", "path": f"/a{blank}has{blank}failed"})
    assert shown == rf"GET /a\u{ord(blank):04x}has\u{ord(blank):04x}failed"


def test_long_path(errors: list[logging.LogRecord]) -> None:
    """O3: Of a path, a name or an id without end, an entry shows the beginning and the length."""
    serve(app_of(failing_work), "/" + "\x00" * 65536, request_id="x" * 65536)
    [record] = errors
    check(record.getMessage())
    assert "(65541 characters)" in record.getMessage()  # with its method
    assert f"(request id '{'x' * 200}... (65536 characters)')" in record.getMessage()


def test_quote_in_a_request_id(errors: list[logging.LogRecord]) -> None:
    """O3: A quote in a request id does not end it: what follows is no part of the entry."""
    serve(app_of(failing_work), "/work", request_id="1') failed. GET /other (request id '2")
    [record] = errors
    assert r"(request id '1\') failed. GET /other (request id \'2')" in record.getMessage()


@pytest.mark.parametrize("deadline", [None, 0.5])
def test_many_children(caplog: pytest.LogCaptureFixture, deadline: float | None) -> None:
    """O3: Of a request with more children than anybody reads, an entry names some, and says how
    many there are."""

    async def children(conn: HTTPConnection) -> None:
        for _ in range(1000):
            request_task_group(conn).create_task(hang())

    serve(app_of(children, deadline), "/work")
    [entry] = [record.getMessage() for record in caplog.records if "hang" in record.getMessage()]
    check(entry)
    assert entry.endswith(", and 981 more")  # the handler is one


def test_much_handed_over_work(caplog: pytest.LogCaptureFixture) -> None:
    """O3, A5: So it is with handed-over work that is lost, but all of it is named."""

    async def work(conn: HTTPConnection) -> None:
        for number in range(50):
            app_task_group(conn).create_task(hang(), name=f"work {number}")

    serve(app_of(work), "/work")
    entries = [record.getMessage() for record in caplog.records if "cancels" in record.getMessage()]
    assert [entry.count("handed over by GET /work") for entry in entries] == [20, 20, 10]
    assert all(f"work {number}, " in "".join(entries) for number in range(50))


def test_error_that_names_a_child() -> None:
    """O3: So it is in the text of an error that names a child."""
    app = app_of(cancelled_child)
    seen: list[str] = []

    async def main() -> None:
        async with Life(app) as life:
            exchange = life.exchange()
            exchange.scope["path"] = PATH
            seen.append(str((await exchange.run()).error))

    run(main())
    assert seen == [f"{SHOWN} was cancelled by something that it awaited"]


def test_websocket(caplog: pytest.LogCaptureFixture) -> None:
    """O3: So it is with the path of a WebSocket."""

    async def endpoint(websocket: WebSocket) -> None:
        set_deadline(websocket, 1)
        await child(websocket)
        await websocket.accept()
        await hang()

    app = Starlette(routes=[WebSocketRoute("/{name}", endpoint)])
    install(app)
    with caplog.at_level(logging.INFO, "quattro_web"):
        socket = Socket(app)
        socket.scope["path"] = PATH
        run(socket.run())
    [entry] = [record.getMessage() for record in caplog.records]
    assert entry.startswith(f"WebSocket {SHOWN_PATH} has passed its deadline")
    check(entry)


def test_testing_kit() -> None:
    """O3: So it is in what the testing kit says of a request."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("")(scope, receive, send)

    async def main() -> None:
        async with AppClient(app) as client, client.start("GET", "/%0a%1b[2J%C2%9B") as exchange:
            assert "GET /\\n\\x1b[2J\\x9b" in repr(exchange)
            await exchange.wait_finished()

    run(main())


def test_testing_kit_and_tasks() -> None:
    """O3: So it is with the names of tasks that a test leaves behind, or that wait for ever."""

    async def leave() -> None:
        asyncio.create_task(hang(), name=PATH)
        await asyncio.sleep(0)

    async def deadlock() -> None:
        await asyncio.create_task(hang(), name=PATH)

    with pytest.raises(LeakedTaskError) as leaked, no_leaked_tasks():
        asyncio.run(leave())
    assert f"({SHOWN})" in str(leaked.value)
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        with pytest.raises(DeadlockError) as stuck:
            runner.run(deadlock())
    assert f"{SHOWN} (" in str(stuck.value)


def test_threads() -> None:
    """O3: So it is with the name of a thread that keeps a process from ending."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait, name=PATH)
    thread.start()
    try:
        assert any(line.startswith(f"thread {SHOWN} (") for line in watchdog._threads())
    finally:
        done.set()
        thread.join()
