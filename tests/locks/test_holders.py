"""Who holds a lock, as those see it that wait for it."""

from __future__ import annotations

import asyncio
import os
import socket
import uuid

import pytest

from tests.locks.kinds import lasting


@pytest.mark.parametrize("host", ["web-1", "host-" * 12 + "end"])
def test_holder_is_known_to_others(lock: str, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """A7, O1: Who waits for a lock knows the process that holds it, also if its host has a name as
    long as names may be; and nobody if nobody does."""
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    name = f"pump {uuid.uuid4().hex}"

    async def main() -> None:
        first, second = lasting(lock).claim(name), lasting(lock).claim(name)
        lease = await first.acquire()
        assert lease is not None
        assert await second.acquire() is None
        holder = await second.holder()
        assert holder is not None
        its_host, _, pid = holder.rpartition(":")
        assert pid == str(os.getpid())
        assert host.startswith(its_host)
        assert len(its_host) >= min(len(host), 40)
        await first.release()
        await second.release()

    asyncio.run(main())


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_holder_without_a_name(postgres: str, driver: str) -> None:
    """A7, O1: Of a session of PostgreSQL's that has no name, its number is known."""
    name = f"pump {uuid.uuid4().hex}"

    async def main() -> None:
        first, second = (lasting(f"{driver}={postgres}").claim(name) for _ in range(2))
        assert await first.acquire() is not None
        session = first._session  # type: ignore[attr-defined]
        await session.value("SELECT set_config('application_name', '', false)")
        backend = await session.value("SELECT pg_backend_pid()")
        assert await second.acquire() is None
        assert await second.holder() == f"backend {backend}"
        await first.release()
        await second.release()

    asyncio.run(main())
