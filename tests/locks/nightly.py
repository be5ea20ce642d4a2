"""One process of several that have a pump with `catch_up`: a call of it is two lines in a file."""

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette

from quattro_web import Pump, task_group_lifespan
from tests.locks.kinds import make

Lifespan = Callable[[Starlette], AbstractAsyncContextManager[Mapping[str, Any]]]


def note(what: str) -> None:
    with Path(sys.argv[2]).open("ab", buffering=0) as file:
        file.write(f"{os.getpid()} {what}\n".encode())


async def work() -> None:
    note("begin")
    if sys.argv[4] == "hangs":
        await asyncio.Event().wait()
    note("end")


async def main() -> None:
    # It comes at the beginning of the year only, and is late whenever this is run.
    pump = Pump(
        work,
        name=sys.argv[3],
        cron="0 0 1 1 *",
        once=make(sys.argv[1]),
        catch_up=366 * 24 * 3600.0,
    )
    lifespan: Lifespan = task_group_lifespan(pumps=[pump])
    async with lifespan(Starlette()):
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    asyncio.run(main())
