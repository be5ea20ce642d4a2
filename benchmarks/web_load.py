"""A load client for HTTP/1.1 in a few lines, so that no tool is needed that may not be there."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

HAS_CLOCKS = sys.platform == "linux"  # of other processes: `cpu_seconds`


class Client(asyncio.Protocol):
    """One connection that asks again as soon as it has its answer, while there is work left."""

    def __init__(self, left: list[int], path: str = "/") -> None:
        self._left = left
        self._request = f"GET {path} HTTP/1.1\r\nhost: localhost\r\naccept: */*\r\n\r\n".encode()
        self._buffer = b""
        self._done: asyncio.Future[None] | None = None

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
        if self._done is not None and not self._done.done():
            self._done.set_exception(exc or ConnectionError("the server did not answer with a 200"))

    def work(self) -> asyncio.Future[None]:
        """Make requests as long as there are some left to be made."""
        self._done = asyncio.get_running_loop().create_future()
        self._ask()
        return self._done

    def _ask(self) -> None:
        assert self._done is not None
        if self._left[0] > 0:
            self._left[0] -= 1
            self.transport.write(self._request)
        else:
            self._done.set_result(None)


@asynccontextmanager
async def connected(
    port: int, connections: int, left: list[int], path: str = "/"
) -> AsyncIterator[list[Client]]:
    """Open connections, which share the requests that are left to be made."""
    loop = asyncio.get_running_loop()
    clients: list[Client] = []
    try:
        for _ in range(connections):
            _, client = await loop.create_connection(lambda: Client(left, path), "127.0.0.1", port)
            clients.append(client)
        yield clients
    finally:
        for client in clients:
            client.transport.close()


async def load(pid: int, port: int, connections: int, count: int) -> float:
    """Return the CPU seconds that the server needs for *count* requests.

    All connections are open by then: each has made one request that does not count.
    """
    left = [connections]
    async with connected(port, connections, left) as clients:
        await asyncio.gather(*(client.work() for client in clients))
        before = cpu_seconds(pid)
        left[0] = count
        await asyncio.gather(*(client.work() for client in clients))
        return cpu_seconds(pid) - before


async def fetch(port: int, path: str) -> Any:
    """Return the JSON that a request is answered with."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), answer
    return json.loads(body)


def cpu_seconds(pid: int) -> float:
    """Return the time that all threads of a process were on a CPU, to the nanosecond.

    Linux's clock of a process is named by its number: clock_getcpuclockid(3), which Python lacks.
    """
    return time.clock_gettime(~pid << 3 | 2)
