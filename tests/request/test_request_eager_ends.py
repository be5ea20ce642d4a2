"""Children of a request that end in the first step of an eager task."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PROGRAM = """
import asyncio

from starlette.applications import Starlette
from starlette.routing import Route

from quattro_web import install, request_task_group
from quattro_web.testing import AppClient, no_leaked_tasks


async def fail():
    raise ValueError


async def handler(request):
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    group = request_task_group(request)
    group.create_task(fail())
    group.create_task(fail())
    group.create_background_task(fail())
    await asyncio.sleep(1)


app = Starlette(routes=[Route("/", handler)])
install(app)


async def main():
    async with AppClient(app, raise_app_exceptions=False) as client:
        print((await client.get("/")).status_code)


with no_leaked_tasks():
    asyncio.run(main())
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_children_that_fail_at_once() -> None:
    """C10: Children that fail in the first step of an eager task are failures like any other; on
    Python 3.12.1 the process was ended by signal 11 (cpython 122332)."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "500\n"), ended.stderr
