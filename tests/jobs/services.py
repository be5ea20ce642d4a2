"""A Redis that a test may kill, and that forgets nothing."""

from __future__ import annotations

from tests.locks.services import RedisService


class DurableRedis(RedisService):
    """A Redis that forgets nothing, so that what is lost was not lost by it."""

    def _command(self) -> list[str]:
        return [
            *(part if part != "no" else "yes" for part in super()._command()),
            "--appendfsync",
            "always",
        ]
