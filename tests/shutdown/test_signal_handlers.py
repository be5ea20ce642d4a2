"""The handlers of signals: the server's, and ours in front of them."""

import asyncio
import signal
from typing import Any

import pytest

from quattro_web import ShutdownGrace, app_health
from quattro_web._shutdown import signals
from quattro_web._shutdown.hypercorn import HypercornWorker
from tests.shutdown.shutting import Scene
from tests.support.apps import settle
from tests.support.asgi import run
from tests.support.lifespan import Life
from tests.support.signals import send, server_handlers

GRACE = ShutdownGrace(requests=10, resources=None)  # the last resort would end the tests


def test_handlers_are_put_back() -> None:
    """A6: When the app has ended, the signal handlers are those that it has found."""
    scene = Scene(GRACE)

    async def main() -> None:
        with server_handlers():
            before = signal.getsignal(signal.SIGTERM)
            async with Life(scene.app):
                assert signal.getsignal(signal.SIGTERM) is not before
            assert signal.getsignal(signal.SIGTERM) is before

    run(main())


def test_two_apps_at_once() -> None:
    """A6: Of two apps in one process both are told, in whatever order they have begun and end."""
    first, second = Scene(GRACE), Scene(GRACE)

    async def main() -> None:
        one, two = Life(first.app), Life(second.app)
        with server_handlers() as got:
            before = signal.getsignal(signal.SIGTERM)
            await one.start()
            await two.start()
            told = [asyncio.create_task(life.get("/told")) for life in (one, two)]
            await settle()
            await send()
            assert [(await each).body for each in told] == [b"goodbye"] * 2
            await one.stop()
            await two.stop()
            assert signal.getsignal(signal.SIGTERM) is before
            assert got == [signal.SIGTERM]

    run(main())


def test_two_servers_at_once() -> None:
    """A6: Of two servers in one process, the second of which has installed its handlers over the
    first one's, each gets its signals as it does without us, and each app is told with its own."""
    first, second = Scene(GRACE), Scene(GRACE)

    async def main() -> None:
        one, two = Life(first.app), Life(second.app)
        with server_handlers() as got_first:
            before = signal.getsignal(signal.SIGTERM)
            await one.start()
            with server_handlers() as got_second:
                await two.start()
                told = [asyncio.create_task(life.get("/told")) for life in (one, two)]
                await settle()
                await send()
                assert (await told[1]).body == b"goodbye"
                await two.stop()
            assert (got_first, got_second) == ([], [signal.SIGTERM])
            assert not told[0].done()
            await send()  # as uvicorn does, when it has put back the handlers that it had found
            assert (await told[0]).body == b"goodbye"
            assert got_first == [signal.SIGTERM]
            await one.stop()
            assert signal.getsignal(signal.SIGTERM) is before

    run(main())


def test_second_server_that_ends_last() -> None:
    """A6: The handlers of the first of two servers are there as long as it is, and no longer."""
    first, second = Scene(GRACE), Scene(GRACE)

    async def main() -> None:
        one, two = Life(first.app), Life(second.app)
        with server_handlers() as got_first:
            await one.start()
            with server_handlers() as got_second:
                await two.start()
                await one.stop()
                await send()
                await two.stop()
            await send()
            assert (got_first, got_second) == ([signal.SIGTERM], [signal.SIGTERM])

    run(main())


def test_runner_that_ends_before_the_app() -> None:
    """A6: The handler that `asyncio.Runner` has for Ctrl-C is not put back when the runner's task
    has ended: from then on, Ctrl-C is Python's again."""
    life = Life(Scene(GRACE).app)
    # Whoever starts the tests in the background may have it ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with asyncio.Runner() as runner:
            runner.run(life.start())  # the lifespan runs on, until the loop cancels it
            assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_process_without_a_server_is_left_alone() -> None:
    """A6: Where no server has installed a handler, as in a test, none is installed."""
    scene = Scene(GRACE)

    async def main() -> None:
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        async with Life(scene.app):
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

    run(main())


def test_handler_that_the_server_has_put_back_stays() -> None:
    """A6: A handler that somebody installs meanwhile is not replaced at the end."""
    scene = Scene(GRACE)

    async def main() -> None:
        with server_handlers():
            async with Life(scene.app):
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN

    run(main())


def test_worker_of_hypercorn_holds_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A6: The SIGTERM by which hypercorn ends its other workers, when one of them has ended, does
    not hurry the shutdown of a worker: it still has its grace."""

    class Event:
        def is_set(self) -> bool:
            return True

    worker = HypercornWorker(Event(), 0)
    monkeypatch.setattr(signals, "hypercorn_worker", lambda: worker)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    told: list[int] = []

    async def main() -> None:
        listener = signals.SignalListener(told.append, lambda: None)
        listener.start()
        signal.raise_signal(signal.SIGTERM)
        await asyncio.sleep(0)
        listener.stop()

    try:
        asyncio.run(main())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert signal.SIGTERM not in told


def test_handler_of_the_apps_own() -> None:
    """A6: A handler for a signal by which no server stops, such as one that writes stacks at a
    SIGQUIT, is the app's own: it stays where it is, and nothing is told of a shutdown."""
    scene = Scene(GRACE)

    async def main() -> None:
        with server_handlers(signal.SIGTERM, signal.SIGQUIT) as got:
            own = signal.getsignal(signal.SIGQUIT)
            async with Life(scene.app) as life:
                assert signal.getsignal(signal.SIGQUIT) is own
                await send(signal.SIGQUIT)
                assert not app_health(scene.app).is_shutting_down
                assert (await life.get("/quick")).status == 200
            assert got == [signal.SIGQUIT]

    run(main())


def test_signals_of_a_worker_of_gunicorn() -> None:
    """A6: A worker of gunicorn stops by SIGQUIT as well: it is known by what is on the stack."""
    ask = signals.stopping_signals
    arbiter: dict[str, Any] = {"__name__": "gunicorn.arbiter", "ask": ask}
    exec("def spawn_worker(): return ask()", arbiter)  # a function of that module
    assert signal.SIGQUIT in arbiter["spawn_worker"]()
    assert signal.SIGQUIT not in ask()
