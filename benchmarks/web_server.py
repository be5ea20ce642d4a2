"""The same comparison over a real uvicorn: CPU time of the server for a request.

Each variant is served by a process of its own; all of them are up at once, and get their load in
turns. The client is a few lines of our own, so that it needs no tool that may not be there.
"""

from __future__ import annotations

import asyncio
import random
import socket
import subprocess
import sys
from pathlib import Path

import uvicorn

from benchmarks.web_apps import VARIANTS

CONNECTIONS = 50
REQUEST = b"GET / HTTP/1.1\r\nhost: localhost\r\naccept: */*\r\n\r\n"


class Client(asyncio.Protocol):
    """One connection that asks again as soon as it has its answer, while there is work left."""

    def __init__(self, left: list[int]) -> None:
        self._left = left
        self._buffer = b""
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._next()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        if len(body) == length:
            self._buffer = b""
            if not head.startswith(b"HTTP/1.1 200"):
                self._transport.close()
                return
            self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server did not answer with a 200"))

    def _next(self) -> None:
        if self._left[0] > 0:
            self._left[0] -= 1
            self._transport.write(REQUEST)
        else:
            self.done.set_result(None)
            self._transport.close()


async def load(port: int, count: int) -> None:
    loop = asyncio.get_running_loop()
    left = [count]
    clients = [
        (await loop.create_connection(lambda: Client(left), "127.0.0.1", port))[1]
        for _ in range(CONNECTIONS)
    ]
    await asyncio.gather(*(client.done for client in clients))


def start(index: int) -> tuple[subprocess.Popen[bytes], int]:
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        fd = listener.fileno()
        command = [sys.executable, "-m", "benchmarks.web_server", str(index), str(fd)]
        return subprocess.Popen(command, pass_fds=[fd]), listener.getsockname()[1]


def cpu_seconds(pid: int) -> float:
    """Return the time that the process's main thread was on a CPU."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def served(*, quick: bool) -> dict[str, list[float]]:
    """Return microseconds of the server's CPU for a request, one of each variant per round."""
    if not Path("/proc/self/schedstat").exists():
        sys.exit("--server reads the CPU time of a process from /proc, as Linux has it")
    rounds, count = (5, 1000) if quick else (15, 2000)
    samples: dict[str, list[float]] = {variant.name: [] for variant in VARIANTS}
    servers = [(variant.name, *start(index)) for index, variant in enumerate(VARIANTS)]
    try:
        for _, _, port in servers:
            asyncio.run(load(port, 500))
        for _ in range(rounds):
            random.shuffle(servers)
            for name, process, port in servers:
                before = cpu_seconds(process.pid)
                asyncio.run(load(port, count))
                samples[name].append((cpu_seconds(process.pid) - before) / count * 1e6)
    finally:
        for _, process, _ in servers:
            process.terminate()
        for _, process, _ in servers:
            process.wait()
    return samples


def serve(index: int, fd: int) -> None:
    app = VARIANTS[index].make()
    config = uvicorn.Config(
        app, loop="uvloop", http="httptools", log_level="warning", access_log=False, lifespan="on"
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=fd)])


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))
