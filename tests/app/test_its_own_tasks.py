"""What the package itself runs, as a debugger shows it."""

import asyncio
import threading

import pytest
from starlette.applications import Starlette

from quattro_web import install
from quattro_web._shutdown.hypercorn import HypercornWorker
from quattro_web._shutdown.signals import SignalListener
from tests.support.apps import pump_of
from tests.support.asgi import run
from tests.support.lifespan import Life


def test_name_of_the_task_of_the_app() -> None:
    """A1: The task of the app group says by its name what it is, as that of each pump does."""
    app = Starlette()
    install(app, pumps=[pump_of([], "feed")])

    async def main() -> None:
        async with Life(app):
            names = {task.get_name() for task in asyncio.all_tasks()}
            assert "quattro_web app" in names

    run(main())


def test_name_of_the_thread_of_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """A6: The thread that looks for the shutdown of hypercorn says by its name whose it is."""

    class Event:
        def is_set(self) -> bool:
            return False

    worker = HypercornWorker(Event(), 0)
    monkeypatch.setattr("quattro_web._shutdown.signals.hypercorn_worker", lambda: worker)
    monkeypatch.setattr(worker, "ignore_sigterm", lambda: None)

    async def main() -> None:
        before = threading.enumerate()
        listener = SignalListener(lambda number: None, lambda: None)
        listener.start()
        names = [thread.name for thread in threading.enumerate() if thread not in before]
        listener.stop()
        assert names == ["quattro_web signals"]

    asyncio.run(main())
