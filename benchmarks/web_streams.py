"""Many event streams and WebSockets open at once, each with a task that feeds it."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from benchmarks.goals import Goal
from benchmarks.measure import Samples, ratio, spread, turn
from benchmarks.report import Report
from benchmarks.size import Size
from benchmarks.web_load import HAS_CLOCKS, cpu_seconds, fetch
from benchmarks.web_server import PATIENCE, Server, serve, serving
from benchmarks.web_telemetry import LOOK
from quattro_web import ShutdownGrace, install, request_task_group
from quattro_web.tasks import app_tasks

BY_HAND, OURS, SSE = "by hand", "ours", "sse-starlette"
STREAMS, SOCKETS = "event streams", "WebSockets"
KINDS = {STREAMS: (BY_HAND, OURS, SSE), SOCKETS: (BY_HAND, OURS)}
LOOKS = {"ms for a snapshot": 500, "ms for all of it": None}  # of so many tasks
FEW = 20  # opened first, so that what is made once is made
AT_ONCE = 200  # that connect
HELLO = "hello"
GOAL = 1.1  # of by hand

HTTP = b"GET /stream HTTP/1.1\r\nhost: localhost\r\n\r\n"
UPGRADE = (
    b"GET /socket HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
CLOSE, CLOSED = b"\x88", b"\x88\x80\x00\x00\x00\x00"


# The apps: what feeds a stream says hello, and then nothing for as long as it lives


async def feed(queue: asyncio.Queue[str]) -> None:
    await queue.put(f"data: {HELLO}\n\n")
    await asyncio.Event().wait()


async def fed(queue: asyncio.Queue[str]) -> AsyncIterator[str]:
    while True:
        yield await queue.get()


async def stream_by_hand(_: Request) -> Response:
    async def events() -> AsyncIterator[str]:
        queue: asyncio.Queue[str] = asyncio.Queue(10)
        feeder = asyncio.create_task(feed(queue))
        try:
            while True:
                yield await queue.get()
        finally:
            feeder.cancel()

    return StreamingResponse(events(), media_type="text/event-stream")


async def stream_ours(request: Request) -> Response:
    queue: asyncio.Queue[str] = asyncio.Queue(10)
    request_task_group(request).create_background_task(feed(queue))
    return StreamingResponse(fed(queue), media_type="text/event-stream")


async def stream_sse(_: Request) -> Response:
    queue: asyncio.Queue[str] = asyncio.Queue(10)
    return EventSourceResponse(fed(queue), data_sender_callable=partial(feed, queue))


async def greet(websocket: WebSocket) -> None:
    await websocket.send_text(HELLO)
    await asyncio.Event().wait()


async def listen(websocket: WebSocket) -> None:
    async for _ in websocket.iter_text():
        pass


async def socket_by_hand(websocket: WebSocket) -> None:
    await websocket.accept()
    feeder = asyncio.create_task(greet(websocket))
    try:
        await listen(websocket)
    finally:
        feeder.cancel()


async def socket_ours(websocket: WebSocket) -> None:
    await websocket.accept()
    request_task_group(websocket).create_background_task(greet(websocket))
    await listen(websocket)


def open_app(kind: str) -> Starlette:
    """Return an app, with our middleware or without; at a shutdown, none of them has any grace."""
    raise_file_limit()
    # Whatever is logged is written, though not here: each stream that is cancelled is told of.
    logging.basicConfig(filename=os.devnull)

    async def hello(_: Request) -> Response:
        return PlainTextResponse(HELLO)

    async def look(_: Request) -> Response:
        asked = LOOKS if kind == OURS else {}
        return JSONResponse({name: milliseconds(app, most) for name, most in asked.items()})

    stream = {BY_HAND: stream_by_hand, OURS: stream_ours, SSE: stream_sse}[kind]
    socket = socket_ours if kind == OURS else socket_by_hand
    app = Starlette(
        routes=[
            Route("/", hello),
            Route("/stream", stream),
            Route("/look", look),
            WebSocketRoute("/socket", socket),
        ]
    )
    if kind == OURS:
        install(app, shutdown_grace=ShutdownGrace(requests=0))
    return app


def milliseconds(app: Starlette, most: int | None) -> float:
    """Return what a snapshot takes."""
    begin = time.process_time()
    app_tasks(app, most=most)
    return (time.process_time() - begin) * 1000


# The clients


class Client(asyncio.Protocol):
    """One that waits for the first event, and for the end."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._buffer = b""
        self.greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self.greeted.done():
            if data.startswith(CLOSE):
                self.transport.write(CLOSED)
            return
        self._buffer += data
        if HELLO.encode() in self._buffer:
            self._buffer = b""
            self.greeted.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.greeted.done():
            self.greeted.set_exception(exc or ConnectionError(f"no event: {self._buffer!r}"))


@asynccontextmanager
async def opened(port: int, count: int, request: bytes) -> AsyncIterator[None]:
    """Have so many connections open, each of which has had its first event."""
    loop = asyncio.get_running_loop()
    clients: list[Client] = []

    async def connect() -> None:
        _, client = await loop.create_connection(lambda: Client(request), "127.0.0.1", port)
        clients.append(client)
        await client.greeted

    try:
        for begin in range(0, count, AT_ONCE):
            await asyncio.gather(*(connect() for _ in range(min(AT_ONCE, count - begin))))
        yield
    finally:
        for client in clients:
            client.transport.close()


def raise_file_limit() -> int:
    """Let this process have as many open files as it may; return how many these are."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


# What is measured


def resident(pid: int) -> int:
    """Return the bytes of memory that a process has."""
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


async def end(pid: int) -> dict[str, float]:
    """Return the seconds from SIGTERM to the end of a process, and those of its CPU."""
    ended = asyncio.Event()
    process = os.pidfd_open(pid)
    try:
        asyncio.get_running_loop().add_reader(process, ended.set)
        begin, busy = time.perf_counter(), cpu_seconds(pid)
        last = busy
        os.kill(pid, signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            while not ended.is_set():
                with suppress(OSError):  # it has gone meanwhile
                    last = cpu_seconds(pid)
                await asyncio.sleep(0.01)
        return {"end": time.perf_counter() - begin, "busy": last - busy}
    finally:
        asyncio.get_running_loop().remove_reader(process)
        os.close(process)


async def whole(server: Server, request: bytes, count: int, idle: float) -> dict[str, float]:
    """Have so many open, and return what each figure is."""
    async with opened(server.port, FEW, request):
        pass
    await asyncio.sleep(idle)  # the server has to see that they have left
    before = resident(server.pid)
    async with opened(server.port, count, request):
        # At least a page, where so few are open that they fit into what there was.
        memory = max(resource.getpagesize(), resident(server.pid) - before) / count
        busy = cpu_seconds(server.pid)
        await asyncio.sleep(idle)
        busy = cpu_seconds(server.pid) - busy
        looks: dict[str, float] = await fetch(server.port, "/look")
        ending = await end(server.pid)
        return {"memory": memory, "idle": busy / idle * 1000, **looks, **ending}


def streams(report: Report, size: Size) -> None:
    """Have many event streams open in one process, and then many WebSockets."""
    if not HAS_CLOCKS:
        return  # as said already
    measure_open(report, "streams", STREAMS, size.streams, HTTP, size)
    measure_open(report, "sockets", SOCKETS, size.sockets, UPGRADE, size)


def measure_open(
    report: Report, key: str, what: str, count: int, request: bytes, size: Size
) -> None:
    """Open so many of one kind, in each app, round by round."""
    if (most := raise_file_limit() - 200) < count:
        report.note(f"{what}: {most} instead of {count}, for more files may not be open: ulimit -n")
        count = most
    kinds = KINDS[what]
    found: dict[str, dict[str, list[float]]] = {kind: {} for kind in kinds}
    for number in range(size.few):
        for kind in turn(kinds, number):
            # One at a time, or the memory of all of them would be needed.
            grace = None if kind == OURS else 0  # ours ends them by itself
            server = partial(serve, grace=grace, log_level="critical")
            with serving({kind: partial(open_app, kind)}, size.warm_up, server) as servers:
                figures = asyncio.run(whole(servers[kind], request, count, size.idle))
                process = servers[kind].process
                process.join()
                if process.exitcode != -signal.SIGTERM:  # uvicorn sends it to itself at last
                    report.note(f"{count} {what}, {kind}: it exited with {process.exitcode}.")
            for name, value in figures.items():
                found[kind].setdefault(name, []).append(value)
    tell(report, key, f"{count} {what}", found)


def tell(
    report: Report, key: str, what: str, found: Mapping[str, Mapping[str, list[float]]]
) -> None:
    """Report what came out, with the goals."""

    def of(name: str) -> Samples:
        return {kind: figures[name] for kind, figures in found.items()}

    rows = []
    for kind in found:
        memory, ending = (ratio(of(name), kind, BY_HAND) for name in ("memory", "end"))
        own = {name: spread(values) for name, values in found[kind].items()}
        looks = [f"{own[name].median:.1f}" if name in own else "" for name in LOOKS]
        rows.append(
            [
                kind,
                f"{own['memory'].median / 1024:.1f}",
                str(memory),
                f"{own['idle'].median:.1f}",
                f"{own['end'].median:.2f}",
                str(ending),
                f"{own['busy'].median:.2f}",
                *looks,
            ]
        )
        if kind == OURS:
            report.goal(Goal(what, "memory of each, of by hand", GOAL, memory))
            report.goal(Goal(what, "time from SIGTERM to the end, of by hand", GOAL, ending))
            look = own[next(iter(LOOKS))]
            report.goal(Goal(what, "milliseconds for a snapshot", LOOK, look, digits=1))
    header = ["", "KiB each", "of by hand", "ms of CPU a second, idle"]
    header += ["seconds to the end", "of the end by hand", "CPU seconds of it", *LOOKS]
    title = f"{what}, each with a task that feeds it, in one process of uvicorn"
    report.table(key, title, header, rows)
