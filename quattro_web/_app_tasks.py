"""What runs as long as the app does: the app group, in a supervising task of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextvars import Context
from typing import Any, TypeVar, cast

from quattro_core import TaskGroup

from quattro_web._pumps import Pump
from quattro_web._stop import stop_server

T = TypeVar("T")

Work = Coroutine[Any, Any, T] | Callable[[], Coroutine[Any, Any, T]]

logger = logging.getLogger("quattro_web")


class AppTasks:
    """One run of an app: its group, its pumps, and what was handed over to it.

    The pumps are the background tasks of the group, and what handlers hand over are its foreground
    children: at shutdown the group waits for those while the pumps go on, as any group does.

    The group lives in a task of its own. In the task of the lifespan, a failure would cancel the
    server's wait for the shutdown: every server then goes on serving, without its pumps.
    """

    def __init__(self, pumps: tuple[Pump, ...]) -> None:
        self._pumps = pumps
        self._group = TaskGroup()
        self._stopping = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None
        self._untold: list[BaseException] = []

    @property
    def has_pumps(self) -> bool:
        """Whether anything is to run by itself."""
        return bool(self._pumps)

    async def start(self, state: Mapping[str, Any]) -> None:
        """Start the pumps. They get *state*, which the user's lifespan has yielded."""
        opened = asyncio.Event()
        self._supervisor = asyncio.create_task(self._supervise(state, opened), name="quattro_web")
        await opened.wait()

    async def stop(self) -> None:
        """Wait for what was handed over, then end the pumps. Once is enough, twice does no harm.

        A cancellation, such as that of a server that is out of patience, cancels all of them.
        """
        self._stopping.set()
        cancelled: asyncio.CancelledError | None = None
        while self._supervisor is not None and not self._supervisor.done():
            try:
                await asyncio.wait((self._supervisor,))
            except asyncio.CancelledError as exc:
                self._supervisor.cancel()
                cancelled = exc
        if cancelled is not None:
            raise cancelled

    def raise_untold(self) -> None:
        """Raise the failures of pumps that no server could be told of."""
        errors, self._untold = self._untold, []
        if len(errors) == 1:
            raise errors[0]
        if errors:
            msg = "pumps have failed"
            raise BaseExceptionGroup(msg, errors)

    def hand_over(
        self,
        work: Work[T],
        *,
        origin: str,
        name: str | None,
        context: Context | None,
    ) -> asyncio.Task[T | None]:
        """Run *work* until it is done, at shutdown too; its failure is logged with its origin."""
        name = name or getattr(work, "__qualname__", None)
        guarded = _log_failure(work, origin)
        try:
            task = self._group.create_task(guarded, name=name, context=context)
        except BaseException:
            guarded.close()
            _close(work)
            raise
        # One that is cancelled before its first step has not come to awaiting the work.
        task.add_done_callback(lambda _: _close(work))
        return task

    async def _supervise(self, state: Mapping[str, Any], opened: asyncio.Event) -> None:
        async with self._group as group:
            for pump in self._pumps:
                group.create_background_task(self._run(pump, state), name=f"pump {pump.name}")
            opened.set()
            await self._stopping.wait()

    async def _run(self, pump: Pump, state: Mapping[str, Any]) -> None:
        try:
            await pump.run(state)
        except asyncio.CancelledError as exc:
            if not self._is_ending():  # it must not die in silence because something it awaited did
                self._failed(pump, exc)
            raise
        except Exception as exc:
            self._failed(pump, exc)
        else:
            if not self._stopping.is_set():
                logger.warning("pump %s has returned, and does not run any more", pump.name)

    def _is_ending(self) -> bool:
        return self._stopping.is_set() or bool(self._supervisor and self._supervisor.cancelling())

    def _failed(self, pump: Pump, exc: BaseException) -> None:
        if self._is_ending():
            logger.error("pump %s failed while it was being ended", pump.name, exc_info=exc)
            self._untold.append(exc)
            return
        logger.critical("pump %s failed: the server has to stop", pump.name, exc_info=exc)
        if not stop_server():
            self._untold.append(exc)


async def _log_failure(work: Work[T], origin: str) -> T | None:
    try:
        return await (work if asyncio.iscoroutine(work) else work())  # type: ignore[operator,misc]
    except Exception:
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        logger.exception("%s, handed over by %s, failed", task.get_name(), origin)
        return None


def _close(work: object) -> None:
    if asyncio.iscoroutine(work):
        work.close()
