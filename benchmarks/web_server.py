"""Requests over a real uvicorn (httptools, uvloop): CPU time of the server for a request.

Each variant is served by a process of its own; all of them are up at once, and get their load in
turns. The client is a few lines of our own, so that it needs no tool that may not be there.
"""

from __future__ import annotations

import asyncio
import random
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from benchmarks.web_variants import Variant, spawning, unused

REQUEST = b"GET / HTTP/1.1\r\nhost: localhost\r\naccept: */*\r\n\r\n"
WARM_UP = 100

Servers = list[tuple[Variant, int, int]]  # each with its process and its port


class Client(asyncio.Protocol):
    """One connection that asks again as soon as it has its answer, while there is work left."""

    def __init__(self, left: list[int]) -> None:
        self._left = left
        self._buffer = b""
        self._done: asyncio.Future[None]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        if len(body) == length:
            self._buffer = b""
            if not head.startswith(b"HTTP/1.1 200"):
                self.transport.close()
                return
            self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(exc or ConnectionError("the server did not answer with a 200"))

    def work(self) -> asyncio.Future[None]:
        """Make requests as long as there are some left to be made."""
        self._done = asyncio.get_running_loop().create_future()
        self._ask()
        return self._done

    def _ask(self) -> None:
        if self._left[0] > 0:
            self._left[0] -= 1
            self.transport.write(REQUEST)
        else:
            self._done.set_result(None)


async def load(pid: int, port: int, connections: int, count: int) -> float:
    """Return the CPU seconds that the server needs for *count* requests.

    All connections are open by then: each has made one request that does not count.
    """
    loop = asyncio.get_running_loop()
    left = [connections]
    clients = [
        (await loop.create_connection(lambda: Client(left), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    await asyncio.gather(*(client.work() for client in clients))
    before = cpu_seconds(pid)
    left[0] = count
    await asyncio.gather(*(client.work() for client in clients))
    seconds = cpu_seconds(pid) - before
    for client in clients:
        client.transport.close()
    return seconds


def cpu_seconds(pid: int) -> float:
    """Return the time that the process's main thread was on a CPU."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


@contextmanager
def serving(variants: Sequence[Variant]) -> Iterator[Servers]:
    """Serve each of them with a process of its own."""
    processes: list[subprocess.Popen[bytes]] = []
    servers: Servers = []
    try:
        for variant in variants:
            with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
                fd = listener.fileno()
                what = (variant.framework, str(variant.children), variant.label, str(fd))
                process = subprocess.Popen(
                    [sys.executable, "-m", "benchmarks.web_server", *what], pass_fds=[fd]
                )
                processes.append(process)
                servers.append((variant, process.pid, listener.getsockname()[1]))
        for _, pid, port in servers:
            asyncio.run(load(pid, port, 1, WARM_UP))
        yield servers
    finally:
        for process in processes:
            process.kill()  # there is nothing to shut down, and a peer's shutdown fails
        for process in processes:
            process.wait()


def served(servers: Servers, connections: int, count: int, rounds: int) -> dict[str, list[float]]:
    """Return microseconds of the server's CPU for a request, one of each variant per round."""
    samples: dict[str, list[float]] = {variant.name: [] for variant, _, _ in servers}
    order = list(servers)
    for _ in range(rounds):
        random.shuffle(order)
        for variant, pid, port in order:
            seconds = asyncio.run(load(pid, port, connections, count))
            samples[variant.name].append(seconds / count * 1e6)
    return samples


def serve(variant: Variant, fd: int) -> None:
    config = uvicorn.Config(
        variant.make(),
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
        lifespan="on",
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=fd)])


def main(framework: str, children: str, label: str, fd: str) -> None:
    """Serve one variant, in a process of its own."""
    count = int(children)
    apps = spawning(framework, count) if count else unused(framework)
    serve(next(app for app in apps if app.label == label), int(fd))


if __name__ == "__main__":
    main(*sys.argv[1:])
