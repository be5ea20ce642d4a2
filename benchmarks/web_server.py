"""A real uvicorn (httptools, uvloop) or granian for each app, in a process of its own.

All of them are up at once, and get their load in turns.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import uvicorn
from granian import Granian
from granian.constants import Interfaces
from starlette.types import ASGIApp

from benchmarks.measure import Samples, turn
from benchmarks.web_load import load

Make = Callable[[], ASGIApp]  # goes to another process: a function of a module, or a partial of one

# Imported once, and forked from there: dozens of servers are up in a second or two.
PRELOADED = ["benchmarks.web_server", "benchmarks.web_held", "benchmarks.web_variants"]
PRELOADED += ["benchmarks.web_streams", "uvloop", "uvicorn.protocols.http.httptools_impl"]
PRELOADED += ["benchmarks.web_wrk", "uvicorn.lifespan.on"]


@dataclass(frozen=True)
class Server:
    """Where an app is served."""

    pid: int  # of what runs the app
    port: int
    process: ForkServerProcess


def serve(
    make: Make, listener: socket.socket, *, grace: int | None = None, log_level: str = "warning"
) -> None:
    """Serve an app by uvicorn until the process is killed."""
    config = uvicorn.Config(
        make(),
        loop="uvloop",
        http="httptools",
        log_level=log_level,
        access_log=False,
        lifespan="on",
        timeout_graceful_shutdown=grace,
    )
    uvicorn.Server(config).run(sockets=[listener])


def serve_by_granian(make: Make, listener: socket.socket) -> None:
    """Serve an app by granian, which opens its port itself, and has a process for its worker."""
    port = listener.getsockname()[1]
    listener.close()
    multiprocessing.set_start_method("fork", force=True)  # or it would import everything anew
    server = Granian("app", port=port, interface=Interfaces.ASGI, log_enabled=False)
    server.serve(target_loader=make, wrap_loader=False)


Serve = Callable[[Make, socket.socket], None]
SERVERS: dict[str, Serve] = {"uvicorn": serve, "granian": serve_by_granian}
PATIENCE = 300.0  # seconds


@contextmanager
def serving(
    makers: Mapping[str, Make], warm_up: int, serve: Serve = serve
) -> Iterator[dict[str, Server]]:
    """Serve each of the apps with a process of its own, which has answered some requests."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    processes: list[ForkServerProcess] = []
    servers: dict[str, Server] = {}
    ports: dict[str, int] = {}
    try:
        for name, make in makers.items():
            with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
                process = context.Process(target=serve, args=(make, listener))
                process.start()
                processes.append(process)
                ports[name] = listener.getsockname()[1]
        for process, (name, port) in zip(processes, ports.items(), strict=True):
            assert process.pid is not None
            servers[name] = Server(warm(process.pid, port, warm_up), port, process)
        yield servers
    finally:
        # There is nothing to shut down, and a peer's shutdown fails.
        for process in processes:
            assert process.pid is not None
            for pid in (process.pid, *children_of(process.pid)):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for process in processes:
            process.join()
            process.close()


def warm(pid: int, port: int, count: int) -> int:
    """Wait until a server answers; return the process that does."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            asyncio.run(load(pid, port, 1, count))
        except OSError:  # it has not opened its port yet
            if time.monotonic() > end:
                raise
            time.sleep(0.02)
        else:
            return next(iter(children_of(pid)), pid)


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started from its main thread."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in text.split()]


def served(
    servers: Mapping[str, Server], connections: int, count: int, rounds: Iterable[int]
) -> Samples:
    """Return microseconds of the server's CPU for a request, one of each app per round."""
    samples: Samples = {name: [] for name in servers}
    for number in rounds:
        for name in turn(list(servers), number):
            server = servers[name]
            seconds = asyncio.run(load(server.pid, server.port, connections, count))
            samples[name].append(seconds / count * 1e6)
    return samples
