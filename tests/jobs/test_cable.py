"""A cable that is pulled between Redis and one side: nothing arrives, and no connection ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest

pytest.importorskip("docket", reason="pydocket is missing: pip install 'quattro-web[docket]'")

from quattro_web.jobs import JobsUnavailableError, WorkerLostError
from tests.jobs.functions import Functions, log, until
from tests.jobs.test_children import working


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


@pytest.mark.parametrize("side", ["web", "worker"])
def test_cable_is_pulled(redis: str, name: str, side: str) -> None:
    """D2, D3: A worker that Redis is out of reach for cancels its jobs, and their requests learn of
    it; a request that has lost Redis gets an error, and its jobs are cancelled. With the cable back
    all goes on, and nothing that was given up runs again."""

    async def scene() -> None:
        cable = Cable(redis)
        async with cable.laid():
            web = Functions(cable.url if side == "web" else redis, name, lease=1.0, timeout=0.4)
            far = Functions(cable.url if side == "worker" else redis, name, lease=1.0, timeout=0.4)
            async with web.jobs.open(), working(far):
                task = asyncio.create_task(web.sleep.remote(60))
                await until(lambda: len(log) == 1)
                cable.plugged.clear()
                error = JobsUnavailableError if side == "web" else WorkerLostError
                with pytest.raises(error):
                    await task
                await until(lambda: log[1:] == ["cancelled", "cleaned up"])
                cable.plugged.set()
                while True:
                    try:
                        assert await web.double.remote(1) == 2
                        break
                    except JobsUnavailableError:
                        await asyncio.sleep(0.1)
                assert len(log) == 3

    asyncio.run(scene())
