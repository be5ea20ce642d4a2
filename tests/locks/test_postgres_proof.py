"""What proves to a session of PostgreSQL that it holds a lock."""

import asyncio
import uuid
from typing import Any

import pytest

from quattro_web import LockLostError
from quattro_web.postgres import PostgresLock


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_lock_of_another_session_is_no_proof(driver: Any, postgres: str) -> None:
    """A7: A session that has lost the lock, and whose connection lives, learns so by its next
    proof, also when another session has taken it by then."""
    lock = PostgresLock(postgres, driver=driver, app=uuid.uuid4().hex)

    async def main() -> None:
        one: Any = lock.claim("pump")
        two = lock.claim("pump")
        try:
            assert await one.acquire() is not None
            await one.prove()
            await one._session.value("SELECT pg_advisory_unlock_all()")
            assert await two.acquire() is not None
            await two.prove()
            with pytest.raises(LockLostError, match="another session holds it"):
                await one.prove()
        finally:
            await one.release()
            await two.release()

    asyncio.run(main())
