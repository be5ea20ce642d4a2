"""The signals that begin a shutdown, and hurry it."""

import asyncio
import logging
import signal

import pytest
from starlette.applications import Starlette

from quattro_web import Pump, ShutdownGrace, _signals, install
from quattro_web._hypercorn import HypercornWorker
from tests.app.apps import settle, soon
from tests.app.shutting import Scene
from tests.support.asgi import Exchange, run
from tests.support.lifespan import Life
from tests.support.signals import send, server_handlers

GRACE = ShutdownGrace(requests=10, resources=None)  # the last resort would end the tests


def live(scene: Scene, *signals: tuple[float, signal.Signals]) -> Exchange:
    """Serve a slow request while signals come, each some seconds after the one before it."""

    async def main() -> Exchange:
        life = Life(scene.app, log=scene.log)
        with server_handlers() as got:
            await life.start()
            serving = asyncio.create_task(Exchange(scene.app, "/slow").run())
            await settle()
            for seconds, number in signals:
                await asyncio.sleep(seconds)
                await send(number)
            scene.note("signalled")
            slow = await serving
            await life.stop()
        assert got == [number for _, number in signals]
        return slow

    return run(main())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_server_gets_its_signals(number: signal.Signals) -> None:
    """A6: The server's own handler is called as ever, and the requests are told as well."""
    scene = Scene(GRACE)
    live(scene, (0, number))
    assert "10 s: cancelled: the server is shutting down" in scene.log


def test_second_signal_hurries() -> None:
    """A6: A second signal ends the patience: what is open is cancelled at once."""
    scene = Scene(GRACE)
    live(scene, (0, signal.SIGTERM), (3, signal.SIGTERM))
    assert "3 s: cancelled: the server is shutting down" in scene.log


def test_impatient_user_is_heard_at_once() -> None:
    """A6: Two times Ctrl-C, one right after the other, are two signals."""
    scene = Scene(GRACE)
    live(scene, (0, signal.SIGINT), (0.1, signal.SIGINT))
    assert "0.1 s: cancelled: the server is shutting down" in scene.log


def test_signal_that_a_parent_passes_on_is_no_second_one() -> None:
    """A6: A Ctrl-C that reaches a worker from the terminal, and then as a SIGTERM from its parent,
    is one signal."""
    scene = Scene(GRACE)
    live(scene, (0, signal.SIGINT), (0.6, signal.SIGTERM))
    assert "10 s: cancelled: the server is shutting down" in scene.log


def test_another_signal_later_hurries() -> None:
    """A6: Another signal that comes some seconds later is a second one."""
    scene = Scene(GRACE)
    live(scene, (0, signal.SIGINT), (3, signal.SIGTERM))
    assert "3 s: cancelled: the server is shutting down" in scene.log


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


def test_server_that_loses_its_patience(errors: list[logging.LogRecord]) -> None:
    """A6: A server that cancels the lifespan has all that is open cancelled, in order."""
    scene = Scene(GRACE)

    async def main() -> None:
        life = Life(scene.app, log=scene.log)
        await life.start()
        serving = asyncio.create_task(Exchange(scene.app, "/slow").run())
        stopping = asyncio.create_task(life.stop())
        await settle()
        await life.give_up()
        scene.note("given up")
        await stopping
        assert (await serving).status == 503

    run(main())
    order = ["cancelled: the server is shutting down", "pump ends", "given up"]
    events = [line.rpartition(" s: ")[2] for line in scene.log]
    assert [event for event in events if event in order] == order


def test_worker_of_hypercorn_holds_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A6: The SIGTERM by which hypercorn ends its other workers, when one of them has ended, does
    not hurry the shutdown of a worker: it still has its grace."""

    class Event:
        def is_set(self) -> bool:
            return True

    worker = HypercornWorker(Event(), 0)
    monkeypatch.setattr(_signals, "hypercorn_worker", lambda: worker)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    told: list[int] = []

    async def main() -> None:
        listener = _signals.SignalListener(told.append, lambda: None)
        listener.start()
        signal.raise_signal(signal.SIGTERM)
        await asyncio.sleep(0)
        listener.stop()

    try:
        asyncio.run(main())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert signal.SIGTERM not in told


def test_two_pumps_that_fail_ask_once() -> None:
    """A3: Two pumps that fail at once ask the server to stop once: a second signal would count as
    one of the user's."""

    async def broken() -> None:
        await soon()
        raise ZeroDivisionError

    async def main() -> list[int]:
        app = Starlette()
        pumps = [Pump(broken, name="one"), Pump(broken, name="two")]
        install(app, pumps=pumps, shutdown_grace=GRACE)
        with server_handlers() as got:
            async with Life(app):
                await settle()
            return got

    assert run(main()) == [signal.SIGTERM]
