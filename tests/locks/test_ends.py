"""How a once-pump ends by itself: just as one that runs in each process."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from starlette.applications import Starlette

from quattro_core import RestartLimitError, RestartPolicy
from quattro_web import LockLostError, OnceLock, Pump, PumpState, app_health, install
from tests.locks.fakes import Service
from tests.locks.process import Process, play
from tests.support.asgi import run
from tests.support.lifespan import Life

Work = Callable[[], Coroutine[Any, Any, None]]


async def exits() -> None:
    raise SystemExit(3)


async def is_cancelled() -> None:
    """Await something that is cancelled meanwhile."""
    task = asyncio.create_task(asyncio.sleep(100))
    asyncio.get_running_loop().call_later(0.1, task.cancel)
    await task


async def raises_cancelled() -> None:
    raise asyncio.CancelledError


async def says_that_a_lock_is_lost() -> None:
    msg = "another one, of its own"
    raise LockLostError(msg)


@pytest.fixture(params=["once", "in each process"])
def once(request: pytest.FixtureRequest) -> OnceLock | None:
    """A lock, and none: both have to do the same."""
    return Service().lock("one") if request.param == "once" else None


def life_of(pump: Pump) -> tuple[Starlette, Life]:
    app = Starlette()
    install(app, pumps=[pump])
    return app, Life(app)


@pytest.mark.parametrize(
    ("work", "error"),
    [
        (exits, "pump work raised SystemExit(3)"),
        (is_cancelled, "pump work was cancelled by something it awaited"),
        (raises_cancelled, "pump work was cancelled by something it awaited"),
        (says_that_a_lock_is_lost, "another one, of its own"),
    ],
)
@pytest.mark.parametrize("on_return", ["stop", "ok"])
def test_odd_end_is_a_failure(work: Work, error: str, on_return: Any, once: OnceLock) -> None:
    """A3, A7: A pump that calls sys.exit(), is cancelled by what it awaits, or raises an error that
    looks like one of the lock's, has failed, with or without `once`: it is restarted, with its
    backoff and its limit, and never takes the event loop with it."""

    async def main() -> None:
        pump = Pump(
            work,
            name="work",
            once=once,
            on_failure="restart",
            on_return=on_return,
            restart=RestartPolicy(base=10, max_restarts=3, within=1000),
        )
        app, life = life_of(pump)
        async with life:
            await asyncio.sleep(600)
            [health] = app_health(app).pumps
            assert (health.state, health.restarts) == (PumpState.FAILED, 3)
            assert health.token is None
        assert isinstance(life.error, RestartLimitError)
        assert [str(each) for each in life.error.errors] == [error] * 4

    run(main())


@pytest.mark.parametrize("work", [exits, is_cancelled, says_that_a_lock_is_lost])
def test_odd_end_can_be_let_go(
    work: Work, once: OnceLock, caplog: pytest.LogCaptureFixture
) -> None:
    """A3, A7: on_failure="ignore" lets such a pump go, with an error in the log."""

    async def main() -> None:
        app, life = life_of(Pump(work, name="work", once=once, on_failure="ignore"))
        async with life:
            await asyncio.sleep(5)
            [health] = app_health(app).pumps
            assert (health.state, health.is_up) == (PumpState.FAILED, True)
        assert life.error is None

    run(main())
    assert "pump work failed, and is not restarted" in caplog.text


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, LockLostError])
def test_error_comes_out_when_the_lock_was_given_back(error: type[BaseException]) -> None:
    """A7: Whatever the pump raises comes out where it is supervised, and not out of the loop."""

    async def scene(service: Service, log: list[str]) -> None:
        one = Process(service, "one", log)
        one.task.cancel()  # it is run here instead

        async def work() -> None:
            await asyncio.sleep(1)
            raise error

        one.work = work
        with pytest.raises(error):
            await one.run()
        assert service.owner is None

    assert play(scene) == ["0 one begins with 1", "1 one ends"]


def test_cancellation_that_the_pump_answers_with_an_error() -> None:
    """A7: A pump that is told to end, and fails instead, has failed, with its own error."""

    async def scene(service: Service, log: list[str]) -> None:
        one = Process(service, "one", log)

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                raise ZeroDivisionError

        one.work = work
        await asyncio.sleep(1)
        one.task.cancel()
        with pytest.raises(ZeroDivisionError):
            await one.task
        assert service.owner is None

    play(scene)


def test_failure_whose_lock_is_still_being_given_back() -> None:
    """A3, A7: A pump that has failed, and is told to end while its lock is being given back, has
    failed with its own error."""

    async def scene(service: Service, log: list[str]) -> None:
        one = Process(service, "one", log)

        async def work() -> None:
            await asyncio.sleep(1)
            raise ZeroDivisionError

        async def slow(what: str) -> None:
            if what == "release":
                await asyncio.sleep(0.5)

        one.work = work
        service.answers = slow
        await asyncio.sleep(1.2)
        assert not one.task.done()
        one.task.cancel()
        with pytest.raises(ZeroDivisionError):
            await one.task

    play(scene)


def test_loss_while_the_pump_is_cancelled_by_itself() -> None:
    """A7: A pump that is cancelled for its lost lock has not failed: it runs again."""

    async def scene(service: Service, log: list[str]) -> None:
        one = Process(service, "one", log)
        await asyncio.sleep(1)
        service.take_away()
        await asyncio.sleep(3)
        assert not one.task.done()
        await one.stop()

    assert play(scene) == [
        "0 one begins with 1", "2 one ends", "2 one begins with 2", "4 one ends"
    ]  # fmt: skip


def test_proof_that_is_cancelled_is_none() -> None:
    """A7: A proof that is cancelled by something it awaits, as a driver's bug may do, ends neither
    the pump, as long as the last proof is good, nor the proving."""

    async def cancelled(what: str) -> None:
        raise asyncio.CancelledError

    async def scene(service: Service, log: list[str]) -> None:
        one = Process(service, "one", log)
        await asyncio.sleep(3)
        service.answers = cancelled
        await asyncio.sleep(4)
        service.answers = None
        await asyncio.sleep(4)
        assert log == ["0 one begins with 1"]
        service.take_away()
        await asyncio.sleep(3)
        assert log[1:] == ["12 one ends", "12 one begins with 2"]
        service.answers = cancelled
        await asyncio.sleep(30)
        assert isinstance(one.states[-1].error, ConnectionError)
        service.answers = None
        await one.stop()

    play(scene)
