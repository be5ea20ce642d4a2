"""The server's part of a test's client: the lifespan of an app, and the requests in it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import Any

from starlette.types import ASGIApp, Message

from quattro_web._app.run import AppRun
from quattro_web._pumps.run import PumpRun
from quattro_web._shutdown.test_hook import TEST_HOOK, AppTestHook
from quattro_web._util.exceptions import exc_info_of
from quattro_web.testing._connection import ServedConnection
from quattro_web.testing._leaks import watch_scope

logger = logging.getLogger("quattro_web.testing")

ENDED = "the app is no longer running"

# Passes of the event loop in which what a client's leaving ends has ended.
PASSES = 20


class Server:
    """Runs an app in the event loop of the test, with its lifespan and its requests.

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
        self._hook: AppTestHook[AppRun] = AppTestHook(
            every if isinstance(pumps, bool) else self._named
        )
        self._lifespan: LifespanTask | None = None
        self._open: list[ServedConnection] = []
        self._has_ended = False

    async def start(self) -> None:
        """Start the app up."""
        if self._lifespan is not None:
            msg = "this client has already run its app: create another AppClient"
            raise RuntimeError(msg)
        lifespan = self._lifespan = LifespanTask(self.app, self._hook)
        try:
            await lifespan.start()
        except BaseException:
            self._has_ended = True
            await self._abandon(lifespan)
            raise
        try:
            self._check_named()
        except LookupError:
            await self.end(skips_grace=True)
            raise

    @property
    def state(self) -> dict[str, Any]:
        """What the lifespan has yielded, for one request.

        Raises:
            RuntimeError: If the app does not run, or has ended by itself, as it does when a pump
                has failed: a server takes no request then.
        """
        lifespan = self._running()
        if lifespan.task.done() and self._hook.runs:
            raise RuntimeError(ENDED)
        return dict(lifespan.state)

    def keep(self, connection: ServedConnection) -> None:
        """Take in what is being served."""
        self._open = [
            other
            for other in self._open
            if not other._task.done() or other._unseen_error is not None
        ]
        self._open.append(connection)

    def signal(self) -> None:
        """Give the signal of a shutdown."""
        self.runs()
        self._hook.signal()

    async def end(self, *, skips_grace: bool = False) -> None:
        """End the app, unless it has ended: the requests, then the lifespan, as servers do."""
        if self._has_ended:
            return
        lifespan = self._running()
        self._has_ended = True
        try:
            is_heard = self._begin_shutdown()
            if skips_grace:
                self._hook.signal()
            if not is_heard:
                for _ in range(PASSES):  # nothing but the leaving of its clients ends its requests
                    await asyncio.sleep(0)
                self._cancel_requests()
            while (open_tasks := self._open_tasks()) and not lifespan.task.done():
                # The app ends by itself when the time of requests that do not end is over.
                await asyncio.wait(
                    {*open_tasks, lifespan.task}, return_when=asyncio.FIRST_COMPLETED
                )
            await lifespan.stop()
        finally:
            await self._abandon(lifespan)

    async def close(self, *, has_failed: bool) -> None:
        """Let all clients leave, and end; raise what has failed, and nobody was told of.

        Args:
            has_failed: Whether the test has: then nothing is waited for but clean-up.
        """
        for connection in self._open:
            connection._leave()
        failures: list[BaseException] = []
        try:
            await self.end(skips_grace=has_failed)
        except Exception as exc:
            if has_failed:
                raise
            failures.append(exc)
        if not has_failed:
            _raise_all("the app has failed", failures + self._unseen_errors())

    async def wait_work_done(self) -> None:
        """Wait for the work that was handed over."""
        while tasks := [task for run in self.runs() for task in run.handed_over.running]:
            await asyncio.wait(tasks)
        failures, self._hook.failures[:] = list(self._hook.failures), []
        if self.raises:
            _raise_all("handed-over work has failed", failures)

    def runs(self) -> list[AppRun]:
        """Return what runs as long as the app does: one, unless a lifespan is composed of more."""
        self._running()
        if not self._hook.runs:
            msg = f"{self.app!r} has no app group: call quattro_web.install(app)"
            raise RuntimeError(msg)
        return self._hook.runs

    def pump(self, name: str) -> PumpRun:
        """Return a pump that was not started."""
        not_started = {pump.name: pump for run in self.runs() for pump in run.pumps.not_started}
        if name not in not_started:
            known = self._pump_names()
            msg = (
                f"pump {name!r} is already running: AppClient(app, pumps=False) does not start it"
                if name in known
                else f"there is no pump {name!r}; the app has {known}"
            )
            raise LookupError(msg)
        return not_started[name]

    def _check_named(self) -> None:
        known = self._pump_names()  # of all that share the lifespan
        for name in self._named:
            if name not in known:
                msg = f"pumps={list(self._named)}: there is no pump {name!r}; the app has {known}"
                raise LookupError(msg)

    def _pump_names(self) -> list[str]:
        all_pumps = [run.pumps for run in self._hook.runs]
        return sorted(run.name for pumps in all_pumps for run in (*pumps.runs, *pumps.not_started))

    def _unseen_errors(self) -> list[BaseException]:
        if not self.raises:
            return []
        errors = [
            error for connection in self._open if (error := connection._unseen_error) is not None
        ]
        return errors + self._hook.failures

    def _running(self) -> LifespanTask:
        if self._lifespan is None or self._has_ended:
            msg = (
                ENDED
                if self._has_ended
                else "the app is not running: use `async with AppClient(app) as client`"
            )
            raise RuntimeError(msg)
        return self._lifespan

    def _begin_shutdown(self) -> bool:
        """Tell the app of the shutdown, unless it knows; return whether it ends its requests."""
        runs = self._hook.runs
        if runs and all(run.shutdown.has_begun for run in runs):
            return True  # a second signal would skip the grace periods
        return self._hook.signal()

    def _open_tasks(self) -> list[asyncio.Task[None]]:
        return [connection._task for connection in self._open if not connection._task.done()]

    def _cancel_requests(self) -> None:
        for task in self._open_tasks():
            task.cancel()

    async def _abandon(self, lifespan: LifespanTask) -> None:
        """Cancel what still runs, and wait until the lifespan has closed what it has opened."""
        self._cancel_requests()  # those that the app has given up may never end
        lifespan.task.cancel()
        await asyncio.wait((lifespan.task,))


class LifespanTask:
    """The lifespan of an app, run as by a server.

    Args:
        app: The app.
        hook: What stands in for the server's signals.

    Attributes:
        state: What the app's lifespan has yielded.
        task: The task that it runs in.
    """

    def __init__(self, app: ASGIApp, hook: AppTestHook[Any]) -> None:
        self._app = app
        self._hook = hook
        self.state: dict[str, Any] = {}
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._from_app: asyncio.Queue[Message | None] = asyncio.Queue()
        self._has_answered = False
        self._error: BaseException | None = None
        self.task = asyncio.create_task(self._run(), name="lifespan")

    async def start(self) -> None:
        """Start the app up; raise what keeps it from starting."""
        self._raise(await self._ask("startup"))

    async def stop(self) -> None:
        """Shut the app down, if it has not done so by itself; raise what fails then."""
        answer = None if self.task.done() else await self._ask("shutdown")
        await asyncio.wait((self.task,))
        self._raise(answer)

    async def _ask(self, what: str) -> Message | None:
        self._to_app.put_nowait({"type": f"lifespan.{what}"})
        return await self._from_app.get()

    def _raise(self, answer: Message | None) -> None:
        if self._error is not None:
            raise self._error
        if answer is not None and str(answer["type"]).endswith(".failed"):
            raise RuntimeError(answer.get("message") or answer["type"])

    async def _run(self) -> None:
        TEST_HOOK.set(self._hook)
        asgi = {"version": "3.0", "spec_version": "2.0"}
        scope = {"type": "lifespan", "asgi": asgi, "state": self.state}
        try:
            with watch_scope(scope):
                await self._app(scope, self._to_app.get, self._send)
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:  # it is raised to the test
            if self._has_answered:
                self._error = exc
            else:  # as an app may refuse a lifespan that it does not have: servers go on without
                logger.warning("the app has not answered its lifespan", exc_info=exc_info_of(exc))
        finally:
            self._from_app.put_nowait(None)

    async def _send(self, message: Message) -> None:
        self._has_answered = True
        self._from_app.put_nowait(message)


def _raise_all(message: str, errors: list[BaseException]) -> None:
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise BaseExceptionGroup(message, errors)
