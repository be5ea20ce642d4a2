"""Pumps that run in one process of many, in an app."""

import asyncio
from pathlib import Path

import pytest
from starlette.applications import Starlette

from quattro_core import TaskStatus
from quattro_web import FileLock, Lease, Pump, PumpState, app_health, install
from tests.locks.fakes import Service
from tests.support.asgi import run
from tests.support.lifespan import Life


def app_with(*pumps: Pump) -> Starlette:
    app = Starlette()
    install(app, pumps=pumps)
    return app


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


def test_two_apps_of_one_process_share_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A7: FileLock needs nothing to be set up: two apps with a pump of one name share its lock."""
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))  # and with no other run of this test

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
