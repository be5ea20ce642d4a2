"""Pumps that run once and say when they are ready, and the start-up that waits for them."""

import asyncio

import pytest

from quattro_core import TaskStatus
from quattro_web import Pump, PumpState, ShutdownEvent, app_health
from quattro_web._locks.holder import OnceState
from quattro_web._pumps.run import PumpRun
from tests.locks.fakes import Service
from tests.pumps.test_once_pumps import app_with
from tests.support.asgi import run
from tests.support.lifespan import Life


async def never_ready(*, task_status: TaskStatus) -> None:
    await asyncio.Event().wait()


def test_start_up_waits_for_the_holder_and_not_for_the_others() -> None:
    """A2, A7: The start-up waits for the once-pump where it runs, and where another process has it,
    only until that is known."""
    service = Service()

    async def pump(*, task_status: TaskStatus) -> None:
        await asyncio.sleep(5)
        task_status.started()
        await asyncio.Event().wait()

    async def main() -> None:
        one, two = (app_with(Pump(pump, once=service.lock(name))) for name in ("one", "two"))
        loop = asyncio.get_running_loop()
        async with Life(one):
            assert loop.time() == 5
            async with Life(two):
                assert loop.time() == 5

    run(main())


@pytest.mark.parametrize("is_once", [True, False])
def test_saying_it_on_each_turn(*, is_once: bool) -> None:
    """A2, A7: A pump may say on each turn of its loop that it is ready, with `once` or without."""
    once = Service().lock("one") if is_once else None

    async def pump(*, task_status: TaskStatus) -> None:
        while True:
            task_status.started("a value, as anyio has it")
            await asyncio.sleep(1)

    async def main() -> None:
        app = app_with(Pump(pump, once=once, on_failure="ignore"))
        async with Life(app):
            await asyncio.sleep(3)
            [health] = app_health(app).pumps
            assert (health.state, health.last_error) == (PumpState.RUNNING, None)

    run(main())


def test_saying_again_that_it_is_ready_after_a_loss() -> None:
    """A2, A7: A pump that runs again since its lock was lost says so again."""
    service = Service()
    said = 0

    async def pump(*, task_status: TaskStatus) -> None:
        nonlocal said
        task_status.started()
        said += 1
        await asyncio.Event().wait()

    async def main() -> None:
        app = app_with(Pump(pump, once=service.lock("one")))
        async with Life(app):
            service.take_away()
            await asyncio.sleep(5)
            [health] = app_health(app).pumps
            assert (health.state, said) == (PumpState.RUNNING, 2)

    run(main())


def test_start_up_that_waits_for_a_lock_that_is_out_of_reach() -> None:
    """A2, A7, O3: A start-up that fails since a lock is unreachable says so, on one line."""
    service = Service()
    service.answers = lambda what: service.fail(f"{what}\nall is well")

    async def main() -> None:
        life = Life(app_with(Pump(never_ready, once=service.lock("one"))))
        async with life:
            pass
        assert isinstance(life.error, TimeoutError)
        [note] = [note for note in life.error.__notes__ if "unreachable" in note]
        assert note.endswith(r"unreachable: ConnectionRefusedError: acquire\nall is well")

    run(main())


def test_start_up_of_a_pump_that_is_late() -> None:
    """A2, A7: A start-up that fails since the pump is not ready in time blames no lock."""

    async def main() -> None:
        life = Life(app_with(Pump(never_ready, once=Service().lock("one"))))
        async with life:
            pass
        assert isinstance(life.error, TimeoutError)
        assert "unreachable" not in "".join(getattr(life.error, "__notes__", ()))

    run(main())


def test_what_is_known_of_a_lock_from_the_start_on() -> None:
    """A7: Before its lock has answered, nothing is said of it but that nothing is known."""
    service = Service()
    service.answers = service.hang

    async def main() -> None:
        shutdown = ShutdownEvent(asyncio.Event())
        pump_run = PumpRun(Pump(never_ready, once=service.lock("one")), "pump", {}, shutdown)
        assert pump_run.once == OnceState()
        assert PumpRun(Pump(never_ready), "pump", {}, shutdown).once is None

    run(main())
