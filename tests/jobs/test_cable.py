"""A cable that is pulled between Redis and a web process: nothing arrives, no connection ends.

`test_other_host` has a real one, between Redis and a worker, for those who are root.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest

pytest.importorskip("docket", reason="pydocket is missing: pip install 'quattro-web[docket]'")

from quattro_web.jobs import JobsUnavailableError
from tests.jobs.functions import Functions, log, until
from tests.jobs.test_children import again, working


class Cable:
    """Passes everything on to Redis while it is plugged in."""

    def __init__(self, url: str) -> None:
        where = urlsplit(url)
        self._host, self._port = where.hostname or "127.0.0.1", where.port or 6379
        self.plugged = asyncio.Event()
        self.plugged.set()
        self.url = ""

    @asynccontextmanager
    async def laid(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield
        finally:
            self.plugged.set()
            server.close()

    async def _connected(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        far, out = await asyncio.open_connection(self._host, self._port)
        await asyncio.gather(self._pass_on(near, out), self._pass_on(far, back))

    async def _pass_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                await self.plugged.wait()
                target.write(data)
        except ConnectionError:
            pass
        finally:
            target.close()


def test_cable_is_pulled(redis: str, name: str) -> None:
    """D2, D3: A request that has lost Redis gets an error, and its jobs are cancelled, those that
    wait included. With the cable back all goes on, and nothing that was given up runs again."""

    async def scene() -> None:
        cable = Cable(redis)
        async with cable.laid():
            web = Functions(cable.url, name, lease=3.0, timeout=1.5)
            far = Functions(redis, name, lease=3.0, timeout=1.5, concurrency=1)
            async with web.jobs.open(), working(far):
                assert await again(lambda: web.double.remote(1)) == 2  # all has been connected
                tasks = [asyncio.create_task(web.sleep.remote(60)) for _ in range(2)]
                await until(lambda: len(log) == 1)
                cable.plugged.clear()
                for task in tasks:
                    with pytest.raises(JobsUnavailableError):
                        await task
                await until(lambda: log[1:] == ["cancelled", "cleaned up"])
                cable.plugged.set()
                assert await again(lambda: web.double.remote(1)) == 2
                assert len(log) == 3

    asyncio.run(scene())
