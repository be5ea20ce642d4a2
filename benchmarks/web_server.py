"""A real uvicorn (httptools, uvloop) for each app, in a process of its own.

All of them are up at once, and get their load in turns.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess

import uvicorn
from starlette.types import ASGIApp

from benchmarks.measure import Samples, turn
from benchmarks.web_load import load

Make = Callable[[], ASGIApp]  # goes to another process: a function of a module, or a partial of one

# Imported once, and forked from there: dozens of servers are up in a second or two.
PRELOADED = ["benchmarks.web_server", "benchmarks.web_held", "benchmarks.web_variants"]
PRELOADED += ["uvloop", "uvicorn.protocols.http.httptools_impl", "uvicorn.lifespan.on"]


@dataclass(frozen=True)
class Server:
    """Where an app is served."""

    pid: int
    port: int


@contextmanager
def serving(makers: Mapping[str, Make], warm_up: int) -> Iterator[dict[str, Server]]:
    """Serve each of the apps with a process of its own, which has answered some requests."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    processes: list[ForkServerProcess] = []
    servers: dict[str, Server] = {}
    try:
        for name, make in makers.items():
            with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
                process = context.Process(target=serve, args=(make, listener), daemon=True)
                process.start()
                processes.append(process)
                assert process.pid is not None
                servers[name] = Server(process.pid, listener.getsockname()[1])
        for server in servers.values():
            asyncio.run(load(server.pid, server.port, 1, warm_up))
        yield servers
    finally:
        for process in processes:
            process.kill()  # there is nothing to shut down, and a peer's shutdown fails
        for process in processes:
            process.join()
            process.close()


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


def serve(make: Make, listener: socket.socket) -> None:
    """Serve an app until the process is killed."""
    config = uvicorn.Config(
        make(),
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
        lifespan="on",
    )
    uvicorn.Server(config).run(sockets=[listener])
