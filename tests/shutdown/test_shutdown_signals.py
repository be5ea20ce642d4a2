"""The signals that begin a shutdown, and hurry it."""

import asyncio
import logging
import signal
from contextvars import ContextVar

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from quattro_web import Pump, ShutdownGrace, app_task_group, install
from tests.shutdown.shutting import Scene
from tests.support.apps import settle, soon
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
    """A6: A server that cancels the lifespan has all that is open cancelled at once, in order."""
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
    assert "0 s: cancelled: the server is shutting down" in scene.log


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


TRACE: ContextVar[str] = ContextVar("trace", default="none")


class Traces(logging.Handler):
    """The context in which each entry of the log is made, as that of a tracing library's."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append((TRACE.get(), record.getMessage()))


@pytest.mark.parametrize("begins", ["a signal", "the lifespan"])
def test_log_of_a_shutdown_has_no_trace_of_a_request(begins: str) -> None:
    """A6: What a shutdown writes to the log is in the context of the lifespan, and not in that of a
    request which the signal has interrupted: its trace is another matter."""
    log, told, never = Traces(), asyncio.Event(), asyncio.Event()

    async def endpoint(request: Request) -> Response:
        TRACE.set("request")
        app_task_group(request).create_task(never.wait())
        if begins == "a signal":
            signal.raise_signal(signal.SIGTERM)
        told.set()
        await never.wait()
        return Response()

    async def main() -> None:
        app = Starlette(routes=[Route("/", endpoint)])
        install(app, shutdown_grace=GRACE)
        with server_handlers():
            life = Life(app)
            await life.start()
            serving = asyncio.create_task(life.get())
            await told.wait()
            await life.stop()
            await serving

    logger = logging.getLogger("quattro_web")
    logger.addHandler(log)
    try:
        run(main())
    finally:
        logger.removeHandler(log)
    assert [message.partition(" after ")[0] for _, message in log.found] == [
        "the shutdown cancels everything that is still open",
        "the shutdown cancels handed-over work that is still running",
    ]
    assert {trace for trace, _ in log.found} == {"none"}
