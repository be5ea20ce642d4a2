"""The order of a shutdown, and the bounds of its parts."""

import asyncio
import logging

import pytest

from quattro_web import ShutdownGrace
from quattro_web._app.handed_over import AppGroup, HandedOverTasks
from quattro_web._shutdown.state import Shutdown
from tests.shutdown.shutting import Scene
from tests.support.apps import settle
from tests.support.asgi import Exchange, run
from tests.support.lifespan import Life

GRACE = ShutdownGrace(requests=10, tasks=5, pumps=3)


def test_defaults_fit_into_the_time_of_an_orchestrator() -> None:
    """A6: The defaults together stay below 25 s, for the 30 s of Kubernetes."""
    total = ShutdownGrace().total
    assert total is not None
    assert total < 25


def test_total_counts_every_part() -> None:
    """A6: All bounds together are one bound: that of the parts, and of what is cancelled."""
    assert ShutdownGrace(requests=1, tasks=2, pumps=3, resources=4).total == 12
    assert ShutdownGrace(resources=None).total is None


@pytest.mark.parametrize("name", ["requests", "tasks", "pumps", "resources"])
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
def test_bad_grace(name: str, value: float) -> None:
    """A6: A grace that is no time is an error that names it."""
    with pytest.raises(ValueError, match=f"{name} must be a number of seconds .*got {value!r}"):
        ShutdownGrace(**{name: value})


@pytest.mark.parametrize("value", [True, "5", None])
def test_grace_of_a_wrong_type(value: object) -> None:
    """A6: A grace that is no number is an error that names it."""
    with pytest.raises(TypeError, match="tasks must be a number of seconds, got"):
        ShutdownGrace(tasks=value)  # type: ignore[arg-type]


def test_grace_of_a_number() -> None:
    """A6: A number instead of a ShutdownGrace is an error that names the argument."""
    with pytest.raises(TypeError, match="shutdown_grace must be a ShutdownGrace or None, got 10"):
        Scene(10)  # type: ignore[arg-type]


async def hand_over(life: Life, work: object, name: str = "work") -> None:
    (await life.group()).create_task(work, name=name)  # type: ignore[arg-type]


def test_work_may_finish_while_the_pumps_run() -> None:
    """A5: Work that was handed over is waited for at shutdown, while the pumps go on."""
    scene = Scene(GRACE)

    async def work() -> None:
        await asyncio.sleep(4)
        scene.note("work ends")

    async def main() -> None:
        async with Life(scene.app, log=scene.log) as life:
            await hand_over(life, work)

    run(main())
    assert scene.log[-4:] == ["4 s: work ends", "pump ends", "resource closes", "shutdown.complete"]


def test_work_is_cancelled_after_its_grace(errors: list[logging.LogRecord]) -> None:
    """A5, A6: Work that goes on is cancelled when its grace is over, and is named in the log."""
    scene = Scene(GRACE)

    async def work() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            scene.note("work is cancelled")

    async def main() -> None:
        async with Life(scene.app, log=scene.log) as life:
            await hand_over(life, work, "a long mail")

    run(main())
    assert scene.log[-4:] == [
        "16 s: work is cancelled", "pump ends", "resource closes", "shutdown.complete"
    ]  # fmt: skip
    [record] = errors
    assert "a long mail, handed over by GET / " in record.getMessage()
    assert "work, " in record.getMessage()


def test_requests_take_no_time_of_the_work() -> None:
    """A6: Each part has its own grace, counted from the signal: work goes on while requests do."""
    scene = Scene(GRACE)

    async def work() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            scene.note("work is cancelled")

    async def main() -> None:
        async with Life(scene.app, log=scene.log) as life:
            await hand_over(life, work)
            slow = asyncio.create_task(Exchange(scene.app, "/slow").run())
            await settle()
        assert slow.done()

    run(main())
    cancelled = "10 s: cancelled: the server is shutting down"
    assert scene.log.index(cancelled) < scene.log.index("16 s: work is cancelled")


@pytest.mark.parametrize("what", ["work", "pump"])
def test_what_is_deaf_is_given_up(what: str, errors: list[logging.LogRecord]) -> None:
    """A6: Work or a pump that answers no cancellation is given up, by name, and the resources are
    closed: the shutdown ends within its bound."""
    released = asyncio.Event()

    async def deaf() -> None:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue

    scene = Scene(GRACE, pumps=[deaf] if what == "pump" else [])
    bound = GRACE.total
    assert bound is not None

    async def main() -> None:
        life = Life(scene.app, log=scene.log)
        await life.start()
        if what == "work":
            await hand_over(life, deaf, "deaf")
        await life.stop()
        assert scene.time() <= bound
        released.set()
        await settle()

    run(main())
    assert scene.log[-3:] == ["pump ends", "resource closes", "shutdown.complete"]
    [message] = [each.getMessage() for each in errors if each.levelno == logging.ERROR]
    assert "the shutdown no longer waits for" in message
    assert "deaf" in message


def test_work_of_work_is_waited_for() -> None:
    """A5: Work that is handed over by work, at shutdown, is waited for as well."""
    scene = Scene(GRACE)

    async def main() -> None:
        async with Life(scene.app, log=scene.log) as life:
            group = await life.group()

            async def second() -> None:
                await asyncio.sleep(1)
                scene.note("second ends")

            async def first() -> None:
                await asyncio.sleep(1)
                group.create_task(second)

            group.create_task(first)

    run(main())
    assert "2 s: second ends" in scene.log


def test_work_comes_too_late_for_an_app_that_has_ended() -> None:
    """A5: An app that has shut down refuses work with a clear error: nothing is lost silently."""
    scene = Scene(GRACE)

    async def main() -> None:
        async with Life(scene.app) as life:
            group = await life.group()
        with pytest.raises(RuntimeError, match="the app has shut down: it takes no more work"):
            group.create_task(asyncio.sleep(0))

    run(main())


def test_work_that_ends_as_it_is_looked_at() -> None:
    """A6: Work that ends in the very step of the event loop in which the shutdown looks at it does
    not keep it from going on."""

    async def work() -> None: ...

    async def main() -> None:
        shutdown = Shutdown(GRACE)
        shutdown.begin()
        async with AppGroup(None) as group:
            handed_over = HandedOverTasks(group, shutdown)
            handed_over.create_task(work, scope={}, origin="a test", name=None, context=None)
            assert await asyncio.create_task(handed_over.drain()) == []

    run(main())
