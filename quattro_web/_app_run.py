"""What runs as long as the app does: the app group, in a supervising task of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextvars import Context
from typing import Any, TypeVar

from quattro_core import TaskGroup
from quattro_web._app_settings import AppSettings
from quattro_web._collection import closed
from quattro_web._drain import Drain
from quattro_web._exchange import Exchange
from quattro_web._harness import HARNESS
from quattro_web._notice import Notice
from quattro_web._pumping import Pumping
from quattro_web._scope import Connection
from quattro_web._settings import current_loop
from quattro_web._shutdown import Shutdown
from quattro_web._work import HandedOver, Work, close

T = TypeVar("T")

logger = logging.getLogger("quattro_web")


class AppRun:
    """One run of an app: its group, its pumps, and what was handed over to it.

    The pumps are the background tasks of the group, and what handlers hand over are its foreground
    children: at shutdown the group waits for those while the pumps go on, as any group does.

    The group lives in a task of its own. In the task of the lifespan, a failure would cancel the
    server's wait for the shutdown: every server then goes on serving, without its pumps.

    Args:
        settings: The pumps, and the bounds.
        requests: The requests that are open, each with its scope, as they come and go.
    """

    def __init__(
        self, settings: AppSettings, requests: dict[Exchange, Connection] | None = None
    ) -> None:
        self._settings = settings
        self._requests = {} if requests is None else requests
        self._group = TaskGroup(shared_limit=settings.limit())
        self.shutdown: Shutdown = Shutdown(settings.grace)
        self._harness = harness = HARNESS.get()
        failures = None if harness is None else harness.failures
        self.work: HandedOver = HandedOver(self._group, self.shutdown, failures)
        self._stopping = asyncio.Event()
        self._stopped = False
        self._supervisor: asyncio.Task[None] | None = None
        self._notice = Notice(self.shutdown, self._begin, self._report, harness)
        self._drain: Drain | None = None
        self.is_alive: bool = True
        self._is_late = False
        self.loop: asyncio.AbstractEventLoop | None = current_loop()
        stop_server = self._notice.stop_server
        self.pumping: Pumping = Pumping(self._group, self.shutdown, stop_server, harness)

    @property
    def has_started(self) -> bool:
        """Whether the lifespan of the app has come to opening the group."""
        return self._supervisor is not None

    @property
    def has_pumps(self) -> bool:
        """Whether anything is to run by itself."""
        return bool(len(self._settings.pumps))

    def listen(self) -> None:
        """Learn of a shutdown from now on, also while the app still starts."""
        if self.loop is not None:
            self._notice.listen()

    async def start(self, state: Mapping[str, Any]) -> None:
        """Start the pumps, and wait until those that say so are ready.

        Where the server was asked to stop before, none is started only to be cancelled.

        Args:
            state: What the user's lifespan has yielded; pumps may take it.
        """
        if current_loop() is None:
            if self.has_pumps:
                msg = "pumps need asyncio: this app runs on another event loop"
                raise RuntimeError(msg)
            return  # under trio, an app that asks for no group never knows
        pumps = closed(self._settings.pumps)
        if pumps and self.shutdown.has_begun:
            logger.info("the server was asked to stop while the app starts: no pump is started")
            pumps = ()
        self.pumping.prepare(pumps, state)
        opened = asyncio.Event()
        self._supervisor = asyncio.create_task(self._supervise(opened), name="quattro_web app")
        if self._harness is not None:
            self._harness.runs.append(self)
        try:
            await opened.wait()
            await self.pumping.wait_ready()
        except BaseException:
            self.shutdown.hurry()
            await self.stop()
            raise

    async def stop(self) -> None:
        """End what is open, in order: requests, handed-over work, pumps.

        Once is enough, twice does no harm. A cancellation, such as that of a server that is out of
        patience, hurries.
        """
        if self._supervisor is None or self._stopped:
            return
        self._stopped = True
        self._begin()
        ending = asyncio.create_task(self._end(self._supervisor), name="quattro_web shutdown")
        cancelled: asyncio.CancelledError | None = None
        while not ending.done():
            try:
                await asyncio.wait((ending,))
            except asyncio.CancelledError as exc:
                self.shutdown.hurry()
                cancelled = exc
        if cancelled is not None:
            raise cancelled

    async def wait_stuck(self) -> None:
        """Wait until the time of the requests is over: the server waits for what never ends.

        From then on the app is shut down without it, and the last resort ends the process.
        """
        await self.shutdown.event.wait()
        await self._begin().stuck.wait()
        self._is_late = True

    def close(self) -> None:
        """Be done: the lifespan of the app has ended, with all that it had opened."""
        self.is_alive = False
        if self._drain is not None:
            self._drain.cancel()  # of an app that was asked to stop before it had started
        self._notice.close(all_has_ended=not (self._is_late or self._report()))

    def hand_over(
        self, work: Work[T], *, origin: str, name: str | None, context: Context | None
    ) -> asyncio.Task[T | None]:
        """Run *work* until it is done, at shutdown too; see `HandedOver.take`."""
        if self._supervisor is not None and (self._supervisor.done() or self._stopping.is_set()):
            close(work)
            msg = f"the app has shut down: it takes no more work, such as that of {origin}"
            raise RuntimeError(msg)
        return self.work.take(work, origin=origin, name=name, context=context)

    async def _supervise(self, opened: asyncio.Event) -> None:
        try:
            async with self._group:
                self.work.start()
                self.pumping.start()
                opened.set()
                await self._stopping.wait()
        except KeyboardInterrupt:
            pass  # a child's: it has left the event loop already, and would once more

    def _begin(self) -> Drain:
        self.shutdown.begin()
        self._notice.begins()
        if self._drain is None:
            self._drain = Drain(self._requests, self.shutdown)
        return self._drain

    async def _end(self, supervisor: asyncio.Task[None]) -> None:
        drain = self._begin()
        try:
            await drain.finish()
            await self.work.drain()
            self._stopping.set()
            if self.work.count:
                self._group.cancel()  # it would wait for what was given up
            if await self.pumping.end() and not self.work.count:
                await supervisor
        finally:
            drain.cancel()
            supervisor.cancel()

    def _report(self) -> list[str]:
        """Return what still runs, with where it hangs."""
        requests = self._drain.left() if self._drain is not None else []
        return [*requests, *self.work.left(), *self.pumping.left()]
