"""One process of several that have the same once-pump: each beat of it is a line in a file."""

import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette

from quattro_web import Lease, Pump, task_group_lifespan
from tests.locks.kinds import make

Lifespan = Callable[[Starlette], AbstractAsyncContextManager[Mapping[str, Any]]]

LOG = Path(sys.argv[2])
BEAT = 0.005


def note(what: str, token: int | None) -> None:
    with LOG.open("ab", buffering=0) as file:  # whole lines, in the order in which they are written
        file.write(f"{time.monotonic():.4f} {os.getpid()} {token} {what}\n".encode())


async def beat(*, lease: Lease) -> None:
    note("begin", lease.token)
    try:
        while True:
            note("beat", lease.token)
            await asyncio.sleep(BEAT)
    finally:
        note("end", lease.token)


async def main() -> None:
    pump = Pump(beat, name=sys.argv[3], once=make(sys.argv[1]))
    lifespan: Lifespan = task_group_lifespan(pumps=[pump])
    async with lifespan(Starlette()):
        os.write(1, b"ready\n")
        await asyncio.get_running_loop().run_in_executor(None, wait_for_the_end)


def wait_for_the_end(_: Any = None) -> None:
    sys.stdin.read()  # the tests have gone, or say goodbye


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    asyncio.run(main())
