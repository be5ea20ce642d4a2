"""A shutdown that begins before the app has started."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.applications import Starlette

from quattro_core import TaskStatus
from quattro_web import ShutdownGrace, app_health, install, task_group_lifespan
from tests.support.apps import settle
from tests.support.asgi import run
from tests.support.lifespan import Life
from tests.support.signals import send, server_handlers

GRACE = ShutdownGrace(requests=10, resources=None)


@pytest.mark.parametrize("by_hand", [True, False])
def test_signal_while_the_app_starts(by_hand: bool, errors: list[logging.LogRecord]) -> None:
    """A6: A signal that comes while the app's own lifespan still opens begins the shutdown: what
    was opened is closed, and no pump is started only to be cancelled."""
    log: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        log.append("opens")
        await asyncio.sleep(3)
        log.append("is open")
        yield
        log.append("closes")

    async def pump(*, task_status: TaskStatus) -> None:
        raise AssertionError  # pragma: no cover - it is not started

    if by_hand:
        app = Starlette(lifespan=task_group_lifespan(lifespan, pumps=[pump], shutdown_grace=GRACE))
    else:
        app = Starlette(lifespan=lifespan)
        install(app, pumps=[pump], shutdown_grace=GRACE)

    async def main() -> None:
        life = Life(app)
        with server_handlers() as got:
            starting = asyncio.create_task(life.start())
            await asyncio.sleep(1)
            await send()
            assert app_health(app).is_shutting_down
            assert await starting == "startup.complete"
            assert await life.stop() == "shutdown.complete"
            assert got == [signal.SIGTERM]
        await settle()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())
    assert log == ["opens", "is open", "closes"]
    assert not errors


def test_start_up_that_fails_after_a_signal() -> None:
    """A6: Nothing is left of a shutdown that has begun in a start-up that failed."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await asyncio.sleep(3)
        raise ZeroDivisionError
        yield  # pragma: no cover - makes it a generator

    app = Starlette(lifespan=lifespan)
    install(app, shutdown_grace=GRACE)

    async def main() -> None:
        life = Life(app)
        with server_handlers():
            starting = asyncio.create_task(life.start())
            await asyncio.sleep(1)
            await send()
            assert await starting == "startup.failed"
            await life.stop()
        await settle()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())
