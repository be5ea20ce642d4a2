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
        self._named = () if isinstance(pumps, bool) else tuple(pumps)
        self.app = app
        self.raises = raises
        self._harness = Harness(every if isinstance(pumps, bool) else self._named)
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
            await self._abandon(life)
            raise
        try:
            self._check_named()
        except LookupError:
            await self.end(hurries=True)
            raise

    @property
    def state(self) -> dict[str, Any]:
        """What the lifespan has yielded, for one request."""
        return dict(self._running().state)

    def keep(self, serving: Serving) -> None:
        """Take in what is being served."""
        self._open = [
            other for other in self._open if not other._task.done() or other._untold is not None
        ]
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
            is_heard = self._tell_of_end()
            if hurries:
                self._harness.signal()
            if not is_heard:
                for _ in range(PASSES):  # nothing but the leaving of its clients ends its requests
                    await asyncio.sleep(0)
                self._cancel_requests()
            while (open_tasks := self._open_tasks()) and not life.task.done():
                # The app ends by itself when the time of requests that do not end is over.
                await asyncio.wait({*open_tasks, life.task}, return_when=asyncio.FIRST_COMPLETED)
            await life.stop()
        finally:
            await self._abandon(life)

    async def close(self, *, has_failed: bool) -> None:
        """Let all clients leave, and end; raise what has failed, and nobody was told of.

        Args:
            has_failed: Whether the test has: then nothing is waited for but clean-up.
        """
        for serving in self._open:
            serving._leave()
        failures: list[BaseException] = []
        try:
            await self.end(hurries=has_failed)
        except Exception as exc:
            if has_failed:
                raise
            failures.append(exc)
        if not has_failed:
            _raise_all("the app has failed", failures + self._untold())

    async def wait_work_done(self) -> None:
        """Wait for the work that was handed over."""
        while tasks := [task for run in self.runs() for task in run.work.running]:
            await asyncio.wait(tasks)
        failures, self._harness.failures[:] = list(self._harness.failures), []
        if self.raises:
            _raise_all("handed-over work has failed", failures)

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
            known = self._pump_names()
            msg = (
                f"pump {name!r} runs already: AppClient(app, pumps=False) does not start it"
                if name in known
                else f"there is no pump {name!r}; the app has {known}"
            )
            raise LookupError(msg)
        return held_back[name]

    def _check_named(self) -> None:
        known = self._pump_names()  # of all that share the lifespan
        for name in self._named:
            if name not in known:
                msg = f"pumps={list(self._named)}: there is no pump {name!r}; the app has {known}"
                raise LookupError(msg)

    def _pump_names(self) -> list[str]:
        pumpings = [run.pumping for run in self._harness.runs]
        return sorted(run.name for each in pumpings for run in (*each.runs, *each.held_back))

    def _untold(self) -> list[BaseException]:
        if not self.raises:
            return []
        errors = [error for serving in self._open if (error := serving._untold) is not None]
        return errors + self._harness.failures

    def _running(self) -> Life:
        if self._life is None or self._has_ended:
            msg = (
                "the app does not run any more"
                if self._has_ended
                else "the app does not run: use `async with AppClient(app) as client`"
            )
            raise RuntimeError(msg)
        return self._life

    def _tell_of_end(self) -> bool:
        """Tell the app of the shutdown, unless it knows; return whether it ends its requests."""
        runs = self._harness.runs
        if runs and all(run.shutdown.has_begun for run in runs):
            return True  # a second signal would hurry it
        return self._harness.signal()

    def _open_tasks(self) -> list[asyncio.Task[None]]:
        return [serving._task for serving in self._open if not serving._task.done()]

    def _cancel_requests(self) -> None:
        for task in self._open_tasks():
            task.cancel()

    async def _abandon(self, life: Life) -> None:
        """Cancel what still runs, and wait until the lifespan has closed what it has opened."""
        self._cancel_requests()  # those that the app has given up may never end
        life.task.cancel()
        await asyncio.wait((life.task,))


def _raise_all(message: str, errors: list[BaseException]) -> None:
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise BaseExceptionGroup(message, errors)
