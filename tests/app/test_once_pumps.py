"""Pumps that run in one process of many, in an app."""

import asyncio

import pytest
from starlette.applications import Starlette

from quattro_core import TaskStatus
from quattro_web import FileLock, Lease, Pump, PumpState, ShutdownEvent, app_health, install
from quattro_web._once_state import OnceState
from quattro_web._pump_run import PumpRun
from tests.once.fakes import Service
from tests.support.asgi import run
from tests.support.lifespan import Life


def app_with(*pumps: Pump) -> Starlette:
    app = Starlette()
    install(app, pumps=pumps)
    return app


async def never_ready(*, task_status: TaskStatus) -> None:
    await asyncio.Event().wait()


def test_health_tells_who_runs_it() -> None:
    """A7: Health names the holder of a once-pump's lock, with its token where it runs; the app that
    stands by is as ready as the other."""
    service = Service()

    async def pump() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        one, two = (app_with(Pump(pump, once=service.lock(name))) for name in ("one", "two"))
        async with Life(one):
            async with Life(two):
                await asyncio.sleep(1.5)
                [here], [there] = app_health(one).pumps, app_health(two).pumps
                assert (here.state, here.holder, here.token) == (PumpState.RUNNING, "one", 1)
                assert (there.state, there.holder, there.token) == (PumpState.STANDBY, "one", None)
                assert app_health(one).is_ready
                assert app_health(two).is_ready

    run(main())


def test_pump_gets_its_lease_and_the_state() -> None:
    """A7: A once-pump gets its lease, and all that other pumps get."""
    got: list[object] = []

    async def pump(state: dict[str, str], *, lease: Lease, task_status: TaskStatus) -> None:
        got.extend((dict(state), lease.token, lease.holder))
        task_status.started()
        got.append("ready")
        await asyncio.Event().wait()

    async def main() -> None:
        async with Life(app_with(Pump(pump, once=Service().lock("one")))):
            assert got == [{}, 1, "one", "ready"]

    run(main())


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
def test_saying_twice_that_it_is_ready(*, is_once: bool) -> None:
    """A2, A7: A pump that says twice that it is ready has failed, with `once` or without."""
    once = Service().lock("one") if is_once else None

    async def pump(*, task_status: TaskStatus) -> None:
        task_status.started("a value, as anyio has it")
        await asyncio.sleep(1)
        task_status.started()

    async def main() -> None:
        app = app_with(Pump(pump, once=once, on_failure="ignore"))
        async with Life(app):
            await asyncio.sleep(2)
            [health] = app_health(app).pumps
            assert health.state is PumpState.FAILED
            assert "started() was called before" in str(health.last_error)

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
    """A2, A7: A start-up that fails since a lock is out of reach says so."""
    service = Service()
    service.answers = service.fail

    async def main() -> None:
        life = Life(app_with(Pump(never_ready, once=service.lock("one"))))
        async with life:
            pass
        assert isinstance(life.error, TimeoutError)
        assert any("out of reach: ConnectionRefused" in note for note in life.error.__notes__)

    run(main())


def test_start_up_of_a_pump_that_is_late() -> None:
    """A2, A7: A start-up that fails since the pump is not ready in time blames no lock."""

    async def main() -> None:
        life = Life(app_with(Pump(never_ready, once=Service().lock("one"))))
        async with life:
            pass
        assert isinstance(life.error, TimeoutError)
        assert "out of reach" not in "".join(getattr(life.error, "__notes__", ()))

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


def test_taking_over_after_a_loss() -> None:
    """A7: An app whose lock was lost runs the pump again when it has the lock again: that is no
    restart, and no failure."""
    service = Service()
    begins: list[int | None] = []

    async def pump(*, lease: Lease) -> None:
        begins.append(lease.token)
        await asyncio.Event().wait()

    async def main() -> None:
        app = app_with(Pump(pump, once=service.lock("one")))
        async with Life(app) as life:
            await asyncio.sleep(1)
            service.take_away()
            await asyncio.sleep(5)
            [health] = app_health(app).pumps
            assert (health.state, health.restarts, health.token) == (PumpState.RUNNING, 0, 2)
        assert life.error is None

    run(main())
    assert begins == [1, 2]


def test_failed_holder_makes_room() -> None:
    """A3, A7: A once-pump that fails gives its lock back before it is restarted."""
    service = Service()
    failures = 0

    async def pump() -> None:
        nonlocal failures
        if failures < 1:
            failures += 1
            raise ZeroDivisionError
        await asyncio.Event().wait()

    async def main() -> None:
        app = app_with(Pump(pump, once=service.lock("one"), on_failure="restart"))
        async with Life(app):
            await asyncio.sleep(60)
            [health] = app_health(app).pumps
            assert (health.state, health.restarts, health.token) == (PumpState.RUNNING, 1, 2)

    run(main())


def test_two_apps_of_one_process_share_the_file() -> None:
    """A7: FileLock needs nothing to be set up: two apps with a pump of one name share its lock."""

    async def pump() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        one, two = (
            app_with(Pump(pump, name="shared", once=FileLock(app="test_once_pumps")))
            for _ in range(2)
        )
        async with Life(one), Life(two):
            await asyncio.sleep(3)
            states = {app_health(app).pumps[0].state for app in (one, two)}
            assert states == {PumpState.RUNNING, PumpState.STANDBY}

    run(main())


def test_lock_that_is_out_of_reach_is_not_ready() -> None:
    """A3, A7: While nobody can tell where a pump runs, the app is not ready; then it is again. One
    that waits for a former holder's end stands by, and is."""
    service = Service()
    service.answers = service.fail

    async def pump() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        app = app_with(Pump(pump, once=service.lock("one", settle=3.0)))
        async with Life(app):
            await asyncio.sleep(2)
            [health] = app_health(app).pumps
            assert (health.state, health.is_up) == (PumpState.UNKNOWN, False)
            assert isinstance(health.last_error, ConnectionRefusedError)
            assert not app_health(app).is_ready
            service.answers = None
            await asyncio.sleep(1.5)
            assert app_health(app).pumps[0].state is PumpState.STANDBY
            assert app_health(app).is_ready
            await asyncio.sleep(3)
            assert app_health(app).pumps[0].state is PumpState.RUNNING

    run(main())
