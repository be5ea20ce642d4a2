"""Tests, run by another pytest, that make tasks without any app, and leave none of them behind."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from quattro_core import TaskGroup

pytestmark = pytest.mark.usefixtures("no_leaked_tasks")


async def forever() -> None:
    await asyncio.Event().wait()


def test_own_tasks() -> None:
    async def main() -> None:
        async with TaskGroup() as group:
            group.create_background_task(forever())
        task = asyncio.create_task(forever())
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(main())


def test_loop_of_ones_own() -> None:
    """Who runs a loop by hand has its tasks in hand."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(forever())
    loop.run_until_complete(asyncio.sleep(0))
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()


def test_cancelled_when_the_loop_does_not_run() -> None:
    """As the teardown of a fixture does, before the loop is ended."""

    async def make() -> asyncio.Task[None]:
        return asyncio.create_task(forever())

    with asyncio.Runner() as runner:
        runner.run(make()).cancel()


def test_tasks_of_another_kind() -> None:
    """A task factory may return what it likes."""

    class Nothing(asyncio.Future[None]):
        def set_name(self, name: object) -> None:
            """Have none."""

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> Any:
        coro.close()
        return Nothing(loop=loop)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(factory)
        asyncio.create_task(forever())
        loop.set_task_factory(None)

    asyncio.run(main())


@pytest.fixture
async def server() -> AsyncIterator[None]:
    task = asyncio.create_task(forever())
    yield
    task.cancel()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
async def test_anyio(server: None) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(asyncio.sleep, 0)
    await asyncio.wait_for(asyncio.sleep(0), 1)


def test_trio() -> None:
    async def main() -> None:
        with anyio.move_on_after(0.01):
            await anyio.sleep_forever()

    anyio.run(main, backend="trio")


def test_made_before_the_loop_runs() -> None:
    """It is in the hands of whoever runs the loop."""
    with asyncio.Runner() as runner:
        task = runner.get_loop().create_task(forever())
        runner.run(asyncio.sleep(0))
        assert not task.done()


def test_work_from_another_thread() -> None:
    """No line of the loop's thread has made it."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        await asyncio.to_thread(asyncio.run_coroutine_threadsafe, forever(), loop)
        await asyncio.sleep(0.01)

    asyncio.run(main())


def test_cancelled_before_the_loop_is_closed() -> None:
    async def main() -> asyncio.Task[None]:
        return asyncio.create_task(forever())

    loop = asyncio.new_event_loop()
    task: Any = loop.run_until_complete(main())
    task.cancel()
    loop.close()
    task._log_destroy_pending = False
    task.get_coro().close()


if hasattr(asyncio, "eager_task_factory"):  # pragma: no branch

    def test_eager_that_is_done() -> None:
        async def main() -> None:
            factory: Any = getattr(asyncio, "eager_task_factory")  # noqa: B009  # not before 3.12
            asyncio.get_running_loop().set_task_factory(factory)
            assert asyncio.create_task(at_once()).done()

        async def at_once() -> None:
            """Never wait."""

        asyncio.run(main())
