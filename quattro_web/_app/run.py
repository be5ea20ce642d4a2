"""One run of an app: its group, its pumps, its handed-over work, and how it shuts down."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass
from enum import StrEnum
from time import monotonic
from typing import Any, TypeVar, cast

from quattro_core import SharedLimit, TaskFuture
from quattro_core._workers import NO_WORKER, NotAWorkerError, call_in_loop, elsewhere
from quattro_web._app.drain import Drain, OpenRequest, OpenRequests, open_requests
from quattro_web._app.handed_over import (
    AppGroup,
    CoroutineOrFunction,
    HandedOverTasks,
    close_coroutine,
)
from quattro_web._pumps.pump import Pump, PumpFunction
from quattro_web._pumps.pumps import Pumps, freeze
from quattro_web._pumps.supervision import PumpSupervision
from quattro_web._shutdown.signals import ShutdownSignals
from quattro_web._shutdown.state import Shutdown, ShutdownGrace
from quattro_web._shutdown.test_hook import TEST_HOOK, AppTestHook
from quattro_web._util.arguments import checked_limit
from quattro_web._util.asyncio import current_loop, current_task, is_cancelled
from quattro_web._util.counts import SHUTDOWN_DURATIONS
from quattro_web._util.scope import Connection, told_run
from quattro_web._util.spans import CURRENT, Spans

T = TypeVar("T")

logger = logging.getLogger("quattro_web")

UNSEEN = (
    "the server waits for something that the app can't see, such as clients that do not "
    "read, or requests that bypass TaskGroupMiddleware because another app wraps it"
)


class LifespanPhase(StrEnum):
    """Which part of an app's lifespan is running.

    .. versionadded:: 0.1
    """

    START_UP = "start-up"
    """The app has not started yet."""
    SHUTDOWN = "shutdown"
    """Requests, handed-over work and pumps have ended, and the app is closing its resources."""


@dataclass(frozen=True)
class LifespanStage:
    """What the lifespan of an app does while it does not serve.

    Attributes:
        phase: The part that runs.
        task: The task that runs it.
        since: Since when, by `time.monotonic`.
    """

    phase: LifespanPhase
    task: asyncio.Task[Any]
    since: float


class AppRun:
    """One run of an app: its group, its pumps, and what was handed over to it.

    The pumps are the background tasks of the group, and what handlers hand over are its foreground
    children: at shutdown the group waits for those while the pumps go on, as any group does.

    The group lives in a separate task. In the task of the lifespan, a failure would cancel the
    server's wait for the shutdown: every server then goes on serving, without its pumps.

    Args:
        settings: The pumps, and the bounds.
        requests: The requests that are open, as they come and go.
    """

    def __init__(self, settings: AppSettings, requests: OpenRequests | None = None) -> None:
        self._settings = settings
        self._requests: OpenRequests = {} if requests is None else requests
        limit = settings.limit()
        self._group = AppGroup(limit)
        self.shutdown: Shutdown = Shutdown(settings.grace)
        self._test_hook: AppTestHook[AppRun] | None = TEST_HOOK.get()
        hook = self._test_hook
        self.handed_over: HandedOverTasks = HandedOverTasks(
            self._group, self.shutdown, limit, None if hook is None else hook.failures
        )
        self._stopping = asyncio.Event()
        self._stopped = False
        self._supervisor: asyncio.Task[None] | None = None
        self._owner: asyncio.Task[Any] | None = None  # of the lifespan
        self._signals = ShutdownSignals(
            self.shutdown, self._begin_shutdown, self._still_running, hook
        )
        self._drain: Drain | None = None
        # That of the lifespan: a shutdown may begin in the middle of any request.
        self._context = copy_context()
        self._is_closed = False
        # Whether its requests have it in their state, since the app has another run in this loop.
        self.is_told_by_state: bool = False
        self._is_stuck = False
        self.loop: asyncio.AbstractEventLoop | None = current_loop()
        self.lifespan: LifespanStage | None = None
        self.pumps: PumpSupervision = PumpSupervision(
            self._group,
            self.shutdown,
            stop_server=self._signals.stop_server,
            starts=None if hook is None else hook.starts,
        )

    @property
    def has_started(self) -> bool:
        """Whether the lifespan has opened the group."""
        return self._supervisor is not None

    @property
    def is_open(self) -> bool:
        """Whether the group is there: it has started, and has not ended."""
        return self._supervisor is not None and not self._supervisor.done()

    @property
    def is_alive(self) -> bool:
        """Whether its lifespan has not ended, and its event loop was not closed in its midst."""
        return not (self._is_closed or (self.loop is not None and self.loop.is_closed()))

    @property
    def has_pumps(self) -> bool:
        """Whether the app has pumps."""
        return bool(len(self._settings.pumps))

    def use_spans(self, chosen: Spans) -> None:
        """Let pumps, handed-over work and jobs be in spans as a tracer says.

        Args:
            chosen: What says so; for whatever the current task, that of the lifespan, starts.
        """
        self.handed_over.spans = self.pumps.spans = chosen
        CURRENT.set(chosen)

    def listen(self) -> None:
        """Listen to signals from now on, also while the app still starts."""
        if self.loop is not None:
            self.enter(LifespanPhase.START_UP)
            self._signals.listen()

    def enter(self, phase: LifespanPhase) -> None:
        """Take note that the lifespan, in this task, begins to start or to end the app."""
        self.lifespan = LifespanStage(phase, current_task(), monotonic())

    def announce_shutdown(self) -> None:
        """Begin the shutdown in the next turn of the event loop; any thread may call this."""
        self._signals.announce()

    async def start(self, state: Mapping[str, Any]) -> None:
        """Start the pumps, and wait until those that take ``task_status`` are ready.

        If the server was asked to stop before, no pump starts.

        Args:
            state: What the user's lifespan has yielded; pumps may take it.
        """
        if current_loop() is None:
            if self.has_pumps:
                msg = "pumps need asyncio: this app runs on another event loop"
                raise RuntimeError(msg)
            return  # under trio, an app that asks for no group never knows
        pumps = freeze(self._settings.pumps)
        if pumps and self.shutdown.has_begun:
            logger.info(
                "the server was asked to stop while the app was starting: no pump is started"
            )
            pumps = ()
        self.pumps.prepare(pumps, state)
        opened = asyncio.Event()
        self._owner = asyncio.current_task()
        self._supervisor = asyncio.create_task(self._supervise(opened), name="quattro_web app")
        self._supervisor.add_done_callback(self._group_ended)
        self._supervisor.add_done_callback(lambda _: opened.set())
        if self._test_hook is not None:
            self._test_hook.runs.append(self)
        try:
            await opened.wait()
            await self.pumps.wait_ready()
        except BaseException:
            self.pumps.startup_failed()
            self.shutdown.skip_grace()
            await self.stop()
            raise
        self.lifespan = None

    async def stop(self) -> None:
        """End what is open, in order: requests, handed-over work, pumps.

        A second call does nothing. A cancellation, such as that of a server that waits no longer,
        skips the grace periods.
        """
        if self._supervisor is None or self._stopped:
            return
        self._stopped = True
        is_running = not (self.shutdown.has_begun or self.pumps.is_starting)
        if is_running and is_cancelled() and not self._supervisor.cancelling():
            # Servers go on without the lifespan, and so without the pumps.
            self.pumps.group_ended(asyncio.CancelledError("something cancelled the lifespan"))
        self._begin_shutdown()
        ending = asyncio.create_task(self._shut_down(self._supervisor), name="quattro_web shutdown")
        cancelled: asyncio.CancelledError | None = None
        while not ending.done():
            try:
                await asyncio.wait((ending,))
            except asyncio.CancelledError as exc:
                self.shutdown.skip_grace()
                cancelled = exc
        self.enter(LifespanPhase.SHUTDOWN)
        if cancelled is not None:
            raise cancelled
        if ending.cancelled():
            logger.error("something cancelled the app's shutdown: it now waits for pumps only")
            await self._end_group(self._supervisor)
        else:
            ending.result()

    async def wait_stuck(self) -> None:
        """Wait until the time of the requests is over, while the server waits for one of them.

        From then on the app shuts down without the server, and the watchdog ends the process.
        """
        await self.shutdown.event.wait()
        await self._begin_shutdown().stuck.wait()
        self._is_stuck = True

    def close(self) -> None:
        """Listen to signals no more: the lifespan has ended, with all that it had opened."""
        if self.shutdown.has_begun and not self._is_closed:
            SHUTDOWN_DURATIONS.observe(self.shutdown.age, {})
        self._is_closed = True
        if self._drain is not None:
            self._drain.cancel()  # of an app that was asked to stop before it had started
        self._signals.close(all_has_ended=not (self._is_stuck or self._still_running()))

    def hand_over(
        self,
        coro: CoroutineOrFunction[T],
        *,
        scope: Connection,
        origin: str,
        name: str | None,
        context: Context | None,
    ) -> asyncio.Task[T | None]:
        """Run *coro* until it is done, at shutdown too; see `HandedOverTasks.create_task`.

        In a worker thread this returns a future of the task.
        """

        def create() -> tuple[asyncio.Task[T | None], ...]:
            self._check_open((coro,), origin)
            task = self.handed_over.create_task(
                coro, scope=scope, origin=origin, name=name, context=context
            )
            return (task,)

        return self._in_loop(create, (coro,), "create_task")[0]

    def hand_over_all(
        self,
        coros: Sequence[CoroutineOrFunction[T]],
        *,
        scope: Connection,
        origin: str,
        context: Context | None,
    ) -> tuple[asyncio.Task[T | None], ...]:
        """Run all of *coros*, or none, as `hand_over` does; see `HandedOverTasks.create_tasks`."""

        def create() -> tuple[asyncio.Task[T | None], ...]:
            self._check_open(coros, origin)
            return self.handed_over.create_tasks(coros, scope=scope, origin=origin, context=context)

        return self._in_loop(create, coros, "create_tasks")

    def _in_loop(
        self,
        create: Callable[[], tuple[asyncio.Task[T], ...]],
        coros: Iterable[object],
        method: str,
    ) -> tuple[asyncio.Task[T], ...]:
        """Create tasks in the event loop: from a worker thread, and return futures of them there.

        Raises:
            RuntimeError: In a thread that no task of this loop waits for.
        """
        loop = self.loop
        if loop is None or current_loop() is loop or not loop.is_running():
            return create()  # in the last case, the error that the app has shut down
        try:
            futures = call_in_loop(loop, lambda: tuple(map(TaskFuture, create())))
        except NotAWorkerError:
            for coro in coros:
                close_coroutine(coro)
            msg = elsewhere(method, NO_WORKER.format(method=method))
            raise RuntimeError(msg) from None
        # As in `TaskGroup.create_task`: callers know of asyncio's type.
        return cast("tuple[asyncio.Task[T], ...]", futures)

    def _check_open(self, coros: Iterable[object], origin: str) -> None:
        if self._supervisor is not None and (self._supervisor.done() or self._stopping.is_set()):
            for coro in coros:
                close_coroutine(coro)
            msg = f"the app has shut down: it takes no more work, such as from {origin}"
            raise RuntimeError(msg)

    async def _supervise(self, opened: asyncio.Event) -> None:
        try:
            async with self._group:
                self.handed_over.start()
                self.pumps.start()
                opened.set()
                await self._stopping.wait()
        except KeyboardInterrupt:
            pass  # a child's: it has left the event loop already, and would once more
        finally:
            await self.handed_over.wait_closed()

    def _group_ended(self, supervisor: asyncio.Task[None]) -> None:
        """Take note that the group has ended: nobody else watches it."""
        if not supervisor.cancelled():
            cause = supervisor.exception()
        elif self._stopping.is_set() or (self._owner is not None and self._owner.cancelling()):
            cause = None  # it was given up, or everything in the event loop is cancelled
        else:
            cause = asyncio.CancelledError("something cancelled its task")
        if cause is not None:
            self.pumps.group_ended(cause)

    def _begin_shutdown(self) -> Drain:
        self.shutdown.begin()
        self._signals.shutdown_begins()
        if self._drain is None:
            server = self._signals.server
            self._drain = self._context.run(
                Drain, self._requests, self.shutdown, server, self._serves
            )
        return self._drain

    def open_requests(self) -> dict[OpenRequest, Connection]:
        """Return its requests that are open, each with its scope; any thread may call this."""
        return {} if self.loop is None else open_requests(self._requests, self.loop, self._serves)

    def _serves(self, scope: Connection) -> bool:
        """Whether a request of this event loop belongs to this run, and to no other of the app."""
        return told_run(scope) is (self if self.is_told_by_state else None)

    async def _shut_down(self, supervisor: asyncio.Task[None]) -> None:
        drain = self._begin_shutdown()
        try:
            await drain.finish()
            await self.handed_over.drain()
            await self._end_group(supervisor)
        finally:
            drain.cancel()
            supervisor.cancel()

    async def _end_group(self, supervisor: asyncio.Task[None]) -> None:
        self._stopping.set()
        if self.handed_over.count:
            self._group.cancel()  # it would wait for what was given up
        if await self.pumps.end() and not self.handed_over.count:
            await asyncio.wait((supervisor,))

    def _still_running(self) -> list[str]:
        """Return what still runs, with where it hangs."""
        requests = self._drain.still_running() if self._drain is not None else []
        running = [*requests, *self.handed_over.still_running(), *self.pumps.still_running()]
        if self._is_stuck and not requests:
            running.append(UNSEEN)
        return running


class AppSettings:
    """The pumps of an app, the limits of the work that it takes over, and its shutdown's bounds.

    Raises:
        TypeError: If one of them is of another type.
        ValueError: If a limit is below 1, or if something may wait for no limit.
    """

    def __init__(
        self,
        *,
        pumps: Iterable[Pump | PumpFunction] = (),
        app_concurrency_limit: int | None = None,
        app_max_waiting: int | None = None,
        shutdown_grace: ShutdownGrace | None = None,
    ) -> None:
        self.pumps: Pumps = pumps if isinstance(pumps, Pumps) else Pumps(pumps)
        self.grace: ShutdownGrace = ShutdownGrace() if shutdown_grace is None else shutdown_grace
        if not isinstance(self.grace, ShutdownGrace):
            msg = f"shutdown_grace must be a ShutdownGrace or None, got {shutdown_grace!r}"
            raise TypeError(msg)
        if app_max_waiting is not None and app_concurrency_limit is None:
            msg = f"app_max_waiting={app_max_waiting!r} needs an app_concurrency_limit to wait for"
            raise ValueError(msg)
        self._limit = checked_limit("app_concurrency_limit", app_concurrency_limit)
        self._max_waiting = checked_limit("app_max_waiting", app_max_waiting, least=0)

    def limit(self) -> SharedLimit | None:
        """Return the limit for one run."""
        if self._limit is None:
            return None
        return SharedLimit(self._limit, max_waiting=self._max_waiting)
