"""Clients that complete, and clients that do not: many at once, of every bad habit."""

from __future__ import annotations

import asyncio
import random
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

Visit = Callable[["Client"], Awaitable[None]]


class Client:
    """One connection, and how it behaves.

    Args:
        port: The port of the server on 127.0.0.1.
        chance: What decides; seeded, so that a run can be repeated.
    """

    def __init__(self, port: int, chance: random.Random) -> None:
        self.port = port
        self.chance = chance
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def visit(self, behave: Visit) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            await behave(self)
        finally:
            self.writer.close()
            with suppress(OSError):
                await self.writer.wait_closed()

    def ask(self, path: str, method: str = "GET", *headers: str) -> None:
        head = "".join(f"{header}\r\n" for header in headers)
        self.writer.write(f"{method} {path} HTTP/1.1\r\nhost: here\r\n{head}\r\n".encode())

    async def answer(self) -> int:
        """Read a response to its end, and return its status."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        status = int(head.split()[1])
        if "transfer-encoding: chunked" in head:
            while size := int(await self.reader.readline(), 16):
                await self.reader.readexactly(size + 2)
            await self.reader.readline()
        elif "content-length: " in head:
            await self.reader.readexactly(int(head.split("content-length: ")[1].split("\r\n")[0]))
        return status

    def reset(self) -> None:
        """Close with a reset, as a client does that has crashed."""
        connection = self.writer.get_extra_info("socket")
        connection.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SOL_SOCKET, SO_LINGER


async def completes(client: Client) -> None:
    paths = ["/fan", "/refuse", "/raise", "/stream", "/late"]
    for path in client.chance.sample(paths, 3):
        client.ask(path)
        status = await client.answer()
        expected = {"/refuse": 409, "/raise": 403, "/late": 504}.get(path, 200)
        assert status == expected, f"{path} was answered with {status}"


async def pipelines(client: Client) -> None:
    for path in ("/fan", "/raise", "/fan"):
        client.ask(path)
    assert [await client.answer() for _ in range(3)] == [200, 403, 200]


async def uploads_slowly(client: Client) -> None:
    client.ask("/upload", "POST", "content-length: 40000")
    for _ in range(8):
        client.writer.write(b"x" * 5000)
        await asyncio.sleep(0.02)
    assert await client.answer() == 200


async def leaves_in_mid_upload(client: Client) -> None:
    client.ask("/upload", "POST", "content-length: 40000")
    client.writer.write(b"x" * 5000)
    await asyncio.sleep(client.chance.random() / 10)


async def leaves_in_mid_request(client: Client) -> None:
    client.ask(client.chance.choice(["/slow", "/fan", "/late"]))
    await asyncio.sleep(client.chance.random() / 5)


async def leaves_in_mid_stream(client: Client) -> None:
    client.ask("/stream")
    await client.reader.readexactly(2000)


async def resets(client: Client) -> None:
    client.ask(client.chance.choice(["/slow", "/stream"]))
    await asyncio.sleep(client.chance.random() / 5)
    client.reset()


async def half_closes(client: Client) -> None:
    client.ask("/fan")
    client.writer.write_eof()
    await client.reader.read()


async def hands_over(client: Client) -> None:
    client.ask("/later", "POST", "content-length: 0")
    assert await client.answer() == 200


async def talks(client: Client) -> None:
    with suppress(WebSocketException):
        async with connect(f"ws://127.0.0.1:{client.port}/socket") as websocket:
            await websocket.recv()
            if client.chance.random() < 0.5:
                await websocket.send("stop")
                async for _ in websocket:
                    pass


async def drops_a_websocket(client: Client) -> None:
    websocket = await connect(f"ws://127.0.0.1:{client.port}/socket")
    await websocket.recv()
    websocket.transport.abort()


HABITS: list[Visit] = [
    completes,
    pipelines,
    uploads_slowly,
    leaves_in_mid_upload,
    leaves_in_mid_request,
    leaves_in_mid_stream,
    resets,
    half_closes,
    hands_over,
    talks,
    drops_a_websocket,
]


async def crowd(port: int, *, seconds: float, at_once: int, seed: int = 1) -> Counter[str]:
    """Let clients come and go, *at_once* of them at a time; return how many of each there were.

    A client that gets something else than it should raises.
    """
    chance = random.Random(seed)
    visits: Counter[str] = Counter()
    until = asyncio.get_running_loop().time() + seconds

    async def keep_coming() -> None:
        while asyncio.get_running_loop().time() < until:
            behave = chance.choice(HABITS)
            await Client(port, chance).visit(behave)
            visits[behave.__name__] += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(keep_coming())
    return visits
