"""The watch for tasks that are left behind, without pytest."""

import asyncio
import gc
import importlib.util
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse

from quattro_web.testing import AppClient, LeakedTaskError, no_leaked_tasks


async def forever() -> None:
    await asyncio.Event().wait()


async def leave() -> None:
    asyncio.create_task(forever())
    await asyncio.sleep(0)


def test_context_manager_does_the_same() -> None:
    """Without pytest, a context manager raises what the fixture says, with what to do about it."""
    with pytest.raises(
        LeakedTaskError, match=r"1 task was left.*:\n\nforever \(Task-\d+\)"
    ) as told:
        with no_leaked_tasks():
            asyncio.run(leave())
    assert "AppTaskGroup for those that outlive it" in str(told.value)
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
    # Not runpy: from 3.15 on it leaves globals without a loader, which a stack can't be made of.
    spec = importlib.util.spec_from_file_location("forgetful", package)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with no_leaked_tasks():
        asyncio.run(module.leave())


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


def test_task_of_a_lifespan_by_hand() -> None:
    """An app that is neither Starlette's nor FastAPI's is watched as well, by the client."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        asyncio.create_task(forever())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def main() -> None:
        async with AppClient(app):
            pass
        for _ in range(50):
            await asyncio.sleep(0)

    with pytest.raises(LeakedTaskError, match="running when the lifespan of the app had ended"):
        with no_leaked_tasks():
            asyncio.run(main())


def test_second_request_of_one_task() -> None:
    """Servers may serve all requests of a connection in one task: each of them is watched."""

    app = Starlette()

    async def endpoint(request: Any) -> Any:
        if request.url.path == "/leaks":
            request.app.state.task = asyncio.create_task(forever())
        return PlainTextResponse("ok")

    app.add_route("/{path}", endpoint)

    async def main() -> None:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            await client.get("/leaks-not")
            await client.get("/leaks")
        for _ in range(50):
            await asyncio.sleep(0)

    with pytest.raises(LeakedTaskError, match="running when GET /leaks had ended"):
        with no_leaked_tasks():
            asyncio.run(main())


def test_nothing_is_kept_alive() -> None:
    """A task that is done is freed as soon as without a watch."""

    async def main() -> None:
        task = asyncio.create_task(asyncio.sleep(0))
        seen = weakref.ref(task)
        await task
        del task
        await asyncio.sleep(0)
        gc.collect()
        assert seen() is None

    with no_leaked_tasks():
        asyncio.run(main())


def test_loop_that_ends_before_another() -> None:
    """The end of a loop is no end for the tasks of another one."""
    with asyncio.Runner() as runner:
        with no_leaked_tasks():
            task = runner.run(made())
            asyncio.run(asyncio.sleep(0))
            task.cancel()
            runner.run(asyncio.sleep(0))


async def made() -> asyncio.Task[None]:
    return asyncio.create_task(forever())


def test_task_that_another_thread_runs_just_now() -> None:
    """What a task has made is not left behind while another thread runs that task."""
    has_made, may_go_on = threading.Event(), threading.Event()

    async def maker() -> None:
        task = asyncio.create_task(asyncio.sleep(0))
        has_made.set()
        may_go_on.wait()  # its thread is in the middle of a step of it
        await task

    async def outer() -> None:
        await maker()

    thread = threading.Thread(target=lambda: asyncio.run(outer()))
    try:
        with no_leaked_tasks():
            thread.start()
            has_made.wait()
    finally:
        may_go_on.set()
        thread.join()
