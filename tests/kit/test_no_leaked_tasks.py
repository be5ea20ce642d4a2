"""The watch for tasks that are left behind, without pytest."""

import asyncio
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import uvloop
from starlette.applications import Starlette

from quattro_web.testing import LeakedTaskError, no_leaked_tasks


async def forever() -> None:
    await asyncio.Event().wait()


async def leave() -> None:
    asyncio.create_task(forever())
    await asyncio.sleep(0)


def test_context_manager_does_the_same() -> None:
    """Without pytest, a context manager raises what the fixture says."""
    with pytest.raises(LeakedTaskError, match=r"1 task was left behind:\n\nforever \(Task-\d+\)"):
        with no_leaked_tasks():
            asyncio.run(leave())
    with no_leaked_tasks():
        asyncio.run(asyncio.sleep(0))


def test_failure_of_the_block_is_not_hidden() -> None:
    """A block that fails by itself raises that, whatever it has left."""
    with pytest.raises(ZeroDivisionError), no_leaked_tasks():
        asyncio.run(leave())
        raise ZeroDivisionError


def test_everything_is_put_back() -> None:
    """After the test, loops and apps are as they were before."""

    def state() -> list[object]:
        loop = asyncio.BaseEventLoop
        methods = [loop.create_task, loop.run_forever, loop.run_until_complete, loop.close]
        added = [vars(owner).keys() for owner in (asyncio.SelectorEventLoop, uvloop.Loop)]
        return [*methods, Starlette.__call__, *map(frozenset, added)]

    before = state()
    with pytest.raises(LeakedTaskError), no_leaked_tasks():
        assert state() != before
        asyncio.run(leave())
    assert state() == before


def test_task_of_a_test_that_goes_on_in_its_loop() -> None:
    """A task is left also where the loop outlives the test, as a loop of a whole session does."""
    with asyncio.Runner() as runner:
        runner.run(asyncio.sleep(0))
        with pytest.raises(LeakedTaskError, match="when the test ended"), no_leaked_tasks():
            runner.run(leave())


def test_tasks_of_installed_packages(tmp_path: Path) -> None:
    """What a package that is installed leaves behind is its own affair."""
    package = tmp_path / "site-packages" / "forgetful.py"
    package.parent.mkdir()
    package.write_text(
        "import asyncio\nasync def leave():\n    asyncio.create_task(asyncio.sleep(10))\n"
    )
    with no_leaked_tasks():
        asyncio.run(runpy.run_path(str(package))["leave"]())


def test_code_without_a_file() -> None:
    """Code that was typed in is the user's, though its line can't be shown."""
    program = """
import asyncio
from quattro_web.testing import no_leaked_tasks
async def leave():
    asyncio.create_task(asyncio.sleep(10))
with no_leaked_tasks():
    asyncio.run(leave())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "made in leave, <string>:5" in done.stderr


def test_callback_in_a_loop_that_goes_on() -> None:
    """What a callback makes there may be anybody's: it is not the test's."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: kept.append(asyncio.create_task(forever())))
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    kept: list[asyncio.Task[None]] = []
    with asyncio.Runner() as runner:
        runner.run(asyncio.sleep(0))
        with no_leaked_tasks():
            runner.run(main())
        assert not kept[0].done()
