"""What is answered does not leave, since the server waits for ever to send it."""

import asyncio
import signal

import pytest
from fastapi import FastAPI
from starlette.types import Message

from quattro_web import ShutdownGrace, install
from quattro_web.fastapi import RequestTaskGroup
from tests.support.apps import settle
from tests.support.asgi import Exchange, run
from tests.support.lifespan import Life
from tests.support.signals import send, server_handlers


def app_of(log: list[str]) -> FastAPI:
    """Return an app whose handlers, with and without a child, note when they are cancelled."""
    app = FastAPI()
    install(
        app,
        cancel_on_disconnect=True,
        deadline_header="x-deadline",
        shutdown_grace=ShutdownGrace(requests=10, resources=None),
    )

    async def hang(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.1)
            log.append(f"{name} ends")

    @app.get("/handler")
    async def handler() -> None:
        await hang("handler")

    @app.get("/child")
    async def child(tg: RequestTaskGroup) -> None:
        tg.create_task(hang("child"))

    return app


async def never(message: Message) -> None:
    """Wait for ever, as hypercorn does on a connection of HTTP/2 that is closed."""
    await asyncio.Event().wait()


@pytest.mark.parametrize("what", ["handler", "child"])
def test_client_that_has_left(what: str) -> None:
    """R7: A request whose client has left ends, also where the server would wait for ever to send
    what it is answered with."""
    log: list[str] = []

    async def main() -> tuple[Exchange, float]:
        exchange = Exchange(app_of(log), f"/{what}", on_send=never, log=log)
        await exchange.disconnect_after(1).run()
        return exchange, asyncio.get_running_loop().time()

    exchange, end = run(main())
    assert exchange.error is None
    assert log == [f"{what} ends", "start 499"]
    assert end == pytest.approx(11.1)  # ten seconds after the clean-up


@pytest.mark.parametrize("what", ["handler", "child"])
def test_shutdown(what: str, caplog: pytest.LogCaptureFixture) -> None:
    """A6: A shutdown does not wait until the answer of a request that it has cancelled leaves,
    where the server would wait for that for ever."""
    log: list[str] = []
    app = app_of(log)

    async def main() -> float:
        life = Life(app)
        with server_handlers():
            await life.start()
            exchange = Exchange(app, f"/{what}", on_send=never, log=log)
            serving = asyncio.create_task(exchange.run())
            await settle()
            await send(signal.SIGTERM)
            await serving
            end = asyncio.get_running_loop().time()
            await life.stop()
            return end

    end = run(main())
    assert log == [f"{what} ends", "start 503"]
    assert end == pytest.approx(10.6, abs=0.1)
    assert "no longer waits" not in caplog.text


def test_client_that_is_slow_to_read_a_deadlines_answer() -> None:
    """R8: A client that is still there has the time it takes to read what is answered."""
    log: list[str] = []

    async def slow(message: Message) -> None:
        await asyncio.sleep(5)
        log.append("has read")

    async def main() -> None:
        app = app_of(log)
        await Exchange(app, "/child", on_send=slow, log=log, headers=[("x-deadline", "1")]).run()

    run(main())
    assert log[:3] == ["child ends", "start 504", "has read"]
    assert log[4:] == ["has read"]
