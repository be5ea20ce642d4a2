"""Tests, run by another pytest, that leave a task behind without any app; the line is marked."""

import asyncio
import types
from typing import Any

import pytest
import uvloop

pytestmark = pytest.mark.usefixtures("no_leaked_tasks")


async def forever() -> None:
    await asyncio.Event().wait()


def test_run__by_test() -> None:
    async def main() -> None:
        asyncio.create_task(forever())  # left by test
        await asyncio.sleep(0)

    asyncio.run(main())


def test_never_started__by_test() -> None:
    async def main() -> None:
        asyncio.create_task(forever())  # left by test

    asyncio.run(main())


def test_uvloop__by_test() -> None:
    async def main() -> None:
        asyncio.get_running_loop().create_task(forever())  # left by test
        await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_closed_loop__by_test() -> None:
    async def main() -> None:
        kept.append(asyncio.create_task(forever()))  # left by test
        await asyncio.sleep(0)

    kept: list[Any] = []
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    kept[0]._log_destroy_pending = False


@pytest.mark.asyncio
async def test_pytest_asyncio__by_test() -> None:
    asyncio.create_task(forever())  # left by test
    await asyncio.sleep(0)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
async def test_anyio__by_test() -> None:
    asyncio.create_task(forever())  # left by test
    await asyncio.sleep(0)


def test_callback__by_test() -> None:
    async def main() -> None:
        later = lambda: kept.append(asyncio.create_task(forever()))  # noqa: E731  # left by test
        asyncio.get_running_loop().call_soon(later)
        await asyncio.sleep(0)

    kept: list[Any] = []
    asyncio.run(main())


def test_child_of_a_left_one__by_test() -> None:
    """The one that is left is named, and not those that it waits for."""

    async def parent() -> None:
        await asyncio.gather(forever(), forever())

    async def main() -> None:
        asyncio.create_task(parent())  # left by test
        await asyncio.sleep(0.01)

    asyncio.run(main())


if hasattr(asyncio, "eager_task_factory"):  # pragma: no branch

    def test_eager__by_test() -> None:
        async def main() -> None:
            factory: Any = getattr(asyncio, "eager_task_factory")  # noqa: B009  # not before 3.12
            asyncio.get_running_loop().set_task_factory(factory)
            asyncio.create_task(forever())  # left by test

        asyncio.run(main())


def test_two_of_them__by_test() -> None:
    @types.coroutine
    def bare() -> Any:
        yield from asyncio.Event().wait().__await__()

    async def old() -> None:
        await bare()

    async def main() -> None:
        asyncio.create_task(forever())  # left by test
        asyncio.create_task(old(), name="old one")
        await asyncio.sleep(0)

    asyncio.run(main())


def test_one_that_is_kept_by_a_left_one__by_test() -> None:
    """Who has made it would have come back to it."""

    async def parent() -> None:
        child = asyncio.create_task(forever())
        await forever()
        await child

    async def main() -> None:
        asyncio.create_task(parent())  # left by test
        await asyncio.sleep(0.01)

    asyncio.run(main())
