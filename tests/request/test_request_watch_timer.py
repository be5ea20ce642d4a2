"""Which requests are watched, and what that costs those that are not."""

import asyncio
import gc
import logging
import sys
import threading
import weakref
from contextvars import ContextVar
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from quattro_web import (
    TaskGroupMiddleware,
    cancel_on_disconnect,
    install,
    request_task_group,
    set_deadline,
    uninterrupted,
)
from quattro_web._request.watch import WatchTimer
from tests.request.watched import app_of, hang
from tests.support.asgi import Exchange, Socket, run
from tests.support.clock import VirtualClockLoop


async def leave(app: Any, path: str = "/", *, after: float) -> None:
    await Exchange(app, path).disconnect_after(after).run()


def timers() -> int:
    return len(asyncio.get_running_loop()._scheduled)  # type: ignore[attr-defined]


def test_one_timer_stands_for_all_requests() -> None:
    """R9: Watching costs one timer for all requests that are open, and none when there are none."""
    before: list[int] = []

    async def endpoint(request: Request) -> Response:
        before.append(timers())
        return PlainTextResponse("hello")

    app = app_of(endpoint)

    async def main() -> None:
        for _ in range(50):
            await Exchange(app).run()
        await asyncio.sleep(1)
        assert timers() == 0

    run(main())
    assert before == [1] * 50


def test_requests_that_begin_one_after_the_other() -> None:
    """R7: Each of many requests that overlap is cancelled within 100 ms of its client's leaving."""
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        await hang(log, "handler")
        raise AssertionError

    app = app_of(endpoint)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(Exchange(app).disconnect_after(0).run())
                await asyncio.sleep(0.007)

    run(main())
    seconds = [float(line.split(" after ")[1].split(" s")[0]) for line in log]
    assert len(seconds) == 20
    for number, after in enumerate(seconds):
        assert 0.05 <= round(after - number * 0.007, 3) + 0.005 <= 0.1


def test_many_requests_that_begin_in_short_order() -> None:
    """R9: However many requests begin, there is a look at them every 10 ms, and no more."""
    looks: set[float] = set()

    class Noting(Exchange):
        async def receive(self) -> Message:
            looks.add(round(asyncio.get_running_loop().time(), 4))
            return await super().receive()

    async def endpoint(request: Request) -> Response:
        await asyncio.sleep(1)
        return Response()

    app = app_of(endpoint)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(100):
                group.create_task(Noting(app).run())
                await asyncio.sleep(0.001)

    run(main())
    assert 9 <= len(looks) <= 11


def test_requests_that_last_are_not_looked_at_again() -> None:
    """R9: A look meets the requests that have begun since the one before, and not the many that
    last."""

    class Counted:
        """What the timer needs of a request, which has ended when it is to be watched."""

        watch = watch_timer = parent = conn = group = None
        expires = 0.0
        has_lasted = False
        looks = 0

        @property
        def innermost(self) -> Any:
            return self

        def runs_in(self, loop: asyncio.AbstractEventLoop) -> bool:
            self.looks += 1
            return True

    requests: dict[Any, Any] = {}
    timer = WatchTimer(requests)

    async def main() -> None:
        for _ in range(100):
            request: Any = Counted()
            requests[request] = {}
            timer.begin(request)
            await asyncio.sleep(0.01)
        await asyncio.sleep(1)

    run(main())
    assert max(request.looks for request in requests) < 10


def test_request_that_says_no_before_it_is_watched() -> None:
    """R7: A route that has turned it off is not watched, also where the app asks for it."""
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        cancel_on_disconnect(request, on=False)
        await asyncio.sleep(1)
        log.append("done")
        return PlainTextResponse("hello")

    run(leave(app_of(endpoint), after=0.1))
    assert log == ["done"]


def test_deadline_and_patience_together() -> None:
    """R7, R8: A request with a deadline of its own is watched all the same."""
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        set_deadline(request, 30)
        await hang(log, "handler")
        raise AssertionError

    run(leave(app_of(endpoint), after=0.2))
    assert log == ["handler cancelled after 0.20 s: the client has disconnected"]


def test_sub_app_is_watched_from_inside() -> None:
    """R7: The client of a request in a sub-app with a middleware of its own is watched, though only
    the app around it asks for that."""
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        await hang(log, "handler")
        raise AssertionError

    inner = Starlette(routes=[Route("/", endpoint)])
    install(inner)

    async def copying(scope: Any, receive: Any, send: Any) -> None:
        await inner({**scope, "path": "/", "root_path": ""}, receive, send)

    for app in (inner, copying):
        outer = Starlette(routes=[Mount("/inner", app)])
        install(outer, cancel_on_disconnect=True)
        run(leave(outer, "/inner/", after=0.2))
    assert log == ["handler cancelled after 0.20 s: the client has disconnected"] * 2


def test_sub_app_of_an_app_with_deadlines() -> None:
    """R7: That of an app which has deadlines alone is not: who reads that its client has left goes
    on."""
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        with pytest.raises(ClientDisconnect):
            await request.body()
        await asyncio.sleep(1)
        log.append("done")
        return Response()

    inner = Starlette(routes=[Route("/", endpoint)])
    install(inner)
    outer = Starlette(routes=[Mount("/inner", inner)])
    install(outer, deadline=60)

    async def main() -> None:
        await Exchange(outer, "/inner/", unfinished=True).disconnect_after(0.2).run()

    run(main())
    assert log == ["done"]


def test_loop_that_ended_does_not_keep_the_next_from_watching() -> None:
    """R7: An app that runs in another event loop later watches there."""
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        if request.query_params:
            return PlainTextResponse("hello")
        await hang(log, "handler")
        raise AssertionError

    app = app_of(endpoint)
    run(Exchange(app, "/?quick=1").run())  # its loop ends before the timer is due
    run(leave(app, after=0.2))
    assert log == ["handler cancelled after 0.20 s: the client has disconnected"]


def test_app_that_reads_of_it_first() -> None:
    """R7: An app that reads of its client's leaving before that is watched is cancelled for it."""
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        request_task_group(request).create_task(hang(log, "child"))
        while (await request.receive())["type"] != "http.disconnect":
            pass
        await hang(log, "handler")
        raise AssertionError

    inner = app_of(endpoint)
    outer = Starlette(routes=[Mount("/inner", inner)])
    install(outer, cancel_on_disconnect=True)
    for app, path in ((inner, "/"), (outer, "/inner/")):
        log.clear()
        run(leave(app, path, after=0.01))
        assert sorted(log) == [
            f"{who} cancelled after 0.01 s: the client has disconnected"
            for who in ("child", "handler")
        ]


def test_app_that_waits_for_it_while_it_is_watched(caplog: pytest.LogCaptureFixture) -> None:
    """R7: An app that waits for the news itself is cancelled once, and logged once."""
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        await request.body()
        assert (await request.receive())["type"] == "http.disconnect"
        await hang(log, "handler")
        raise AssertionError

    with caplog.at_level(logging.INFO, "quattro_web"):
        run(leave(app_of(endpoint), after=0.2))
    assert log == ["handler cancelled after 0.20 s: the client has disconnected"]
    assert [record.getMessage() for record in caplog.records] == [
        "GET /: the client has left, its handler is cancelled"
    ]


def test_handler_that_changes_its_mind() -> None:
    """R7: A request that has turned it on and off again is not watched: nothing is read of it."""

    async def endpoint(request: Request) -> Response:
        cancel_on_disconnect(request)
        cancel_on_disconnect(request, on=False)
        await asyncio.sleep(1)
        return Response()

    exchange = Unread(app_of(endpoint, cancel_on_disconnect=False))
    assert run(exchange.run()).status == 200
    assert not exchange.was_read


def test_request_that_is_answered_before_it_is_watched() -> None:
    """R7, R10: Nothing is read of a request that has turned it on and was answered in time: what
    comes on its connection then is of the next one."""

    async def endpoint(request: Request) -> Response:
        cancel_on_disconnect(request)
        return Response()

    exchange = Unread(app_of(endpoint, cancel_on_disconnect=False))

    async def main() -> None:
        await exchange.run()
        await asyncio.sleep(1)

    run(main())
    assert not exchange.was_read


def test_task_that_reads_when_its_request_has_ended() -> None:
    """R7, R10: A task that outlives its request, and reads that the client has left, gets this
    message as from the server: nothing is left to be cancelled."""
    tasks: list[asyncio.Task[Message]] = []

    async def endpoint(request: Request) -> Response:
        await request.body()
        tasks.append(asyncio.create_task(request.receive()))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        return Response()

    async def main() -> None:
        exchange = await Exchange(app_of(endpoint)).run()
        exchange.disconnect()
        assert (await tasks[0])["type"] == "http.disconnect"

    run(main())


class Unread(Exchange):
    was_read = False

    async def receive(self) -> Message:
        self.was_read = True
        return await super().receive()


def test_sub_app_of_a_request_that_has_turned_it_on(caplog: pytest.LogCaptureFixture) -> None:
    """R7: A request that has turned it on before its mounted app is called is cancelled there, and
    that is logged once."""
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        await hang(log, "handler")
        raise AssertionError

    inner = app_of(endpoint, cancel_on_disconnect=False)

    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        cancel_on_disconnect(scope)
        await inner(scope, receive, send)

    with caplog.at_level(logging.INFO, "quattro_web"):
        run(leave(TaskGroupMiddleware(outer), after=0.2))
    assert log == ["handler cancelled after 0.20 s: the client has disconnected"]
    assert len(caplog.records) == 1


def test_websocket_that_takes_note_of_its_end_and_returns() -> None:
    """R6, R7: A handler that returns when its client has left is no failure, though the clean-up of
    its children takes a while."""
    log: list[str] = []

    async def talk() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            log.append("child ends")

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        request_task_group(websocket).create_task(talk())
        await asyncio.sleep(0)
        while (await websocket.receive())["type"] != "websocket.disconnect":
            pass

    app = Starlette(routes=[WebSocketRoute("/", endpoint)])
    install(app, cancel_on_disconnect=True)

    async def main(seconds: float) -> None:
        socket = Socket(app)
        asyncio.get_running_loop().call_later(seconds, socket.leave)
        await socket.run()
        assert socket.error is None

    for seconds in (0.01, 0.2):
        run(main(seconds))
    assert log == ["child ends"] * 2


def test_section_in_a_sub_app_that_must_not_be_cut() -> None:
    """R7: A section of a sub-app that must not be cut is not, though it is the app around it that
    asks for its client to be watched."""
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        with uninterrupted(request):
            await asyncio.sleep(1)
            log.append("paid")
        await hang(log, "handler")
        raise AssertionError

    inner = Starlette(routes=[Route("/", endpoint)])
    install(inner)
    outer = Starlette(routes=[Mount("/inner", inner)])
    install(outer, cancel_on_disconnect=True)
    run(leave(outer, "/inner/", after=0.2))
    assert log == ["paid", "handler cancelled after 1.00 s: the client has disconnected"]


def test_event_loop_that_was_closed_is_not_kept() -> None:
    """R9: An app that goes on in another event loop does not keep one that was closed meanwhile."""

    async def endpoint(request: Request) -> Response:
        return Response()

    app = app_of(endpoint)
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        runner.run(Exchange(app).run())
        closed = weakref.ref(runner.get_loop())
    del runner
    run(Exchange(app).run())
    gc.collect()
    assert closed() is None


def test_event_loops_in_turns() -> None:
    """R7: The client of a request is watched also if another event loop has begun one after it."""
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        await hang(log, "handler")
        raise AssertionError

    app = app_of(endpoint)

    async def begin() -> tuple[Exchange, asyncio.Task[Exchange]]:
        exchange = Exchange(app)
        task = asyncio.create_task(exchange.run())
        await asyncio.sleep(0.01)
        return exchange, task

    async def end(exchange: Exchange, task: asyncio.Task[Exchange]) -> None:
        await asyncio.sleep(0.1)
        exchange.disconnect()
        await task

    with asyncio.Runner(loop_factory=VirtualClockLoop) as one:
        with asyncio.Runner(loop_factory=VirtualClockLoop) as other:
            first, second = one.run(begin()), other.run(begin())
            one.run(end(*first))
            other.run(end(*second))
    assert log == ["handler cancelled after 0.11 s: the client has disconnected"] * 2


def test_event_loop_that_has_no_requests_any_more() -> None:
    """R7: The clients of an app that runs in several event loops are watched in each of them, also
    if one has no more requests just when the first one of another comes."""
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        if not request.query_params:
            await hang(log, "handler")
        return Response()

    app = app_of(endpoint)

    class Loop(VirtualClockLoop):
        """One that goes on in a thread while a request of another loop looks at it."""

        def is_closed(self) -> bool:
            if meanwhile:
                thread = meanwhile.pop()
                thread.start()
                thread.join()
            return super().is_closed()

    meanwhile: list[threading.Thread] = []
    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(Exchange(app, "/?quick=1").run())
        meanwhile.append(threading.Thread(target=runner.run, args=(asyncio.sleep(1),)))
        run(leave(app, after=0.2))
        runner.run(leave(app, after=0.2))
    assert not meanwhile
    assert [line.partition(":")[0] for line in log] == [
        f"handler cancelled after {seconds} s" for seconds in ("0.20", "1.20")
    ]


def test_log_has_the_trace_of_the_request_itself(caplog: pytest.LogCaptureFixture) -> None:
    """R7, R11: What is logged of a client that has left is in the context of its own request, and
    never in that of another one. Python 3.11 does not tell whose it is: there it is in none."""
    trace: ContextVar[str] = ContextVar("trace", default="none")
    traces: list[str] = []

    class Traces(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            traces.append(trace.get())
            return True

    async def endpoint(request: Request) -> Response:
        await hang([], "handler")
        raise AssertionError

    async def visit(name: str) -> None:
        trace.set(name)  # as a middleware around the app does
        await leave(app, after=0.2)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(visit("one"))
            group.create_task(visit("other"))

    app = app_of(endpoint)
    logger, log = logging.getLogger("quattro_web"), Traces()
    logger.addFilter(log)
    try:
        with caplog.at_level(logging.INFO, "quattro_web"):
            run(main())
    finally:
        logger.removeFilter(log)
    own = ["none", "none"] if sys.version_info < (3, 12) else ["one", "other"]
    assert traces == own
