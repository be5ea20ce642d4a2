"""The signals that begin a shutdown, and hurry it."""

import asyncio
import logging
import signal

import pytest
from starlette.applications import Starlette

from quattro_web import Pump, ShutdownGrace, install
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
