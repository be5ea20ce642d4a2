"""The server's part of a test's client: one run of an app, and the requests in it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

from starlette.types import ASGIApp

from quattro_web._app_run import AppRun
from quattro_web._harness import Harness
from quattro_web._pump_run import PumpRun
from quattro_web.testing._life import Life
from quattro_web.testing._serving import Serving

# Passes of the event loop in which what a client's leaving ends has ended.
PASSES = 20


class Server:
    """One run of an app, in the event loop of the test.

    Args:
        app: The app.
        pumps: Whether the pumps start, or the names of those that do.
        raises: Whether what the app raises is raised to the test.
    """

    def __init__(self, app: ASGIApp, *, pumps: bool | Collection[str], raises: bool) -> None:
        if isinstance(pumps, str):
            msg = f"pumps must be a bool or a collection of names, got {pumps!r}: say [{pumps!r}]"
            raise TypeError(msg)
        every = None if pumps else ()
        self.app = app
        self.raises = raises
        self._harness = Harness(every if isinstance(pumps, bool) else pumps)
        self._life: Life | None = None
        self._open: list[Serving] = []
        self._has_ended = False

    async def start(self) -> None:
        """Start the app up."""
        if self._life is not None:
            msg = "this client has run its app already: make another AppClient"
            raise RuntimeError(msg)
        life = self._life = Life(self.app, self._harness)
        try:
            await life.start()
        except BaseException:
            self._has_ended = True
            self._abandon()
            raise

    @property
    def state(self) -> dict[str, Any]:
        """What the lifespan has yielded, for one request."""
        return dict(self._running().state)

    def keep(self, serving: Serving) -> None:
        """Take in what is being served."""
        self._open = [other for other in self._open if not other.task.done() or other.untold()]
        self._open.append(serving)

    def signal(self) -> None:
        """Give the signal of a shutdown."""
        self.runs()
        self._harness.signal()

    async def end(self, *, hurries: bool = False) -> None:
        """End the app, unless it has ended: the requests, then the lifespan, as servers do."""
        if self._has_ended:
            return
        life = self._running()
        self._has_ended = True
        try:
            is_heard = self._harness.signal()
            if hurries:
                self._harness.signal()
            if not is_heard:
                for _ in range(PASSES):  # nothing but the leaving of its clients ends its requests
                    await asyncio.sleep(0)
                self._cancel_requests()
            while (open_tasks := self._open_tasks()) and life.task and not life.task.done():
                # The app ends by itself when the time of requests that do not end is over.
                everything = {*open_tasks, life.task}
                await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
            await life.stop()
        finally:
            self._abandon()

    def leave_all(self) -> None:
        """Let all clients leave."""
        for serving in self._open:
            serving.leave()

    async def work_done(self) -> None:
        """Wait for the work that was handed over."""
        while tasks := [task for run in self.runs() for task in run.work.running]:
            await asyncio.wait(tasks)
        failures, self._harness.failures[:] = list(self._harness.failures), []
        if self.raises:
            _raise_all("handed-over work has failed", failures)

    def raise_untold(self) -> None:
        """Raise what has failed, and nobody was told of."""
        if self.raises:
            errors = [error for serving in self._open if (error := serving.untold()) is not None]
            _raise_all("requests and work of the app have failed", errors + self._harness.failures)

    def runs(self) -> list[AppRun]:
        """Return what runs as long as the app does: one, unless a lifespan is composed of more."""
        self._running()
        if not self._harness.runs:
            msg = f"{self.app!r} has no app group: call quattro_web.install(app)"
            raise RuntimeError(msg)
        return self._harness.runs

    def pump(self, name: str) -> PumpRun:
        """Return a pump that was not started."""
        held_back = {pump.name: pump for run in self.runs() for pump in run.pumping.held_back}
        if name not in held_back:
            running = [pump.name for run in self.runs() for pump in run.pumping.runs]
            msg = (
                f"pump {name!r} runs already: AppClient(app, pumps=False) does not start it"
                if name in running
                else f"there is no pump {name!r}; the app has {sorted([*held_back, *running])}"
            )
            raise LookupError(msg)
        return held_back[name]

    def _running(self) -> Life:
        if self._life is None or self._has_ended:
            msg = "the app does not run: use `async with AppClient(app) as client`"
            raise RuntimeError(msg)
        return self._life

    def _open_tasks(self) -> list[asyncio.Task[None]]:
        return [serving.task for serving in self._open if not serving.task.done()]

    def _cancel_requests(self) -> None:
        for task in self._open_tasks():
            task.cancel()

    def _abandon(self) -> None:
        self._cancel_requests()
        if self._life is not None and self._life.task is not None:
            self._life.task.cancel()


def _raise_all(message: str, errors: list[BaseException]) -> None:
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise BaseExceptionGroup(message, errors)
