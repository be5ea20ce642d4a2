"""What runs as long as the app does: the app group, in a supervising task of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextvars import Context
from typing import Any, TypeVar, cast

from quattro_core import TaskGroup
from quattro_web._pumps import Pump, name_of
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
        self._untold: list[Exception] = []

    @property
    def has_started(self) -> bool:
        """Whether the lifespan of the app has come to opening the group."""
        return self._supervisor is not None

    @property
    def has_pumps(self) -> bool:
        """Whether anything is to run by itself."""
        return bool(self._pumps)

    async def start(self, state: Mapping[str, Any]) -> None:
        """Start the pumps. They get *state*, which the user's lifespan has yielded."""
        if not _runs_on_asyncio():
            if self._pumps:
                msg = "pumps need asyncio: this app runs on another event loop"
                raise RuntimeError(msg)
            return  # under trio, an app that asks for no group never knows
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
            raise ExceptionGroup(msg, errors)

    def hand_over(
        self,
        work: Work[T],
        *,
        origin: str,
        name: str | None,
        context: Context | None,
    ) -> asyncio.Task[T | None]:
        """Run *work* until it is done, at shutdown too; its failure is logged with its origin."""
        if not (asyncio.iscoroutine(work) or callable(work)):
            msg = f"a coroutine was expected, or a function that returns one, got {work!r}"
            raise TypeError(msg)
        if self._supervisor is not None and self._supervisor.done():
            _close(work)
            msg = f"the app has shut down: it takes no more work, such as that of {origin}"
            raise RuntimeError(msg)
        guarded = _log_failure(work, origin)
        name = name or name_of(work)
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
            if not _is_cancelled():  # it must not die in silence
                self._failed(pump, _error("was cancelled by something it awaited", pump, exc))
            elif not self._is_ending:
                self._failed(pump, _error("was cancelled while the app is running", pump, exc))
            raise
        except KeyboardInterrupt:  # pragma: no cover  # the event loop ends with it
            raise
        except Exception as exc:  # noqa: BLE001  # it is logged, or raised at the end
            self._failed(pump, exc)
        except BaseException as exc:  # noqa: BLE001  # SystemExit would end the loop, not the app
            self._failed(pump, _error(f"raised {exc!r}", pump, exc))
        else:
            if not self._stopping.is_set():
                logger.warning("pump %s has returned, and does not run any more", pump.name)

    @property
    def _is_ending(self) -> bool:
        """Whether pumps are to end: at shutdown, or when the server is out of patience."""
        return self._stopping.is_set() or bool(self._supervisor and self._supervisor.cancelling())

    def _failed(self, pump: Pump, exc: Exception) -> None:
        if self._is_ending and _is_cancelled():
            logger.error("pump %s failed while it was being ended", pump.name, exc_info=exc)
        elif self._stopping.is_set():
            logger.error("pump %s failed during the shutdown", pump.name, exc_info=exc)
        else:
            logger.critical("pump %s failed: the server has to stop", pump.name, exc_info=exc)
            if stop_server():
                return
        self._untold.append(exc)


def _error(what: str, pump: Pump, cause: BaseException) -> Exception:
    """Return an error that may come out of the lifespan, for something that may not."""
    error = RuntimeError(f"pump {pump.name} {what}")
    error.__cause__ = cause
    return error


def _is_cancelled() -> bool:
    """Tell whether the current task was asked to end. A CancelledError alone does not say so."""
    return bool(_current_task().cancelling())


def _runs_on_asyncio() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _current_task() -> asyncio.Task[Any]:
    return cast("asyncio.Task[Any]", asyncio.current_task())


async def _log_failure(work: Work[T], origin: str) -> T | None:
    try:
        return await (work if asyncio.iscoroutine(work) else work())
    except asyncio.CancelledError as exc:
        if not _is_cancelled():
            _tell("%s, handed over by %s, was cancelled by something it awaited", origin, exc)
        raise
    except KeyboardInterrupt:  # pragma: no cover  # the event loop ends with it
        raise
    except BaseException as exc:  # noqa: BLE001  # it is logged
        _tell("%s, handed over by %s, failed", origin, exc)
        return None


def _tell(message: str, origin: str, exc: BaseException) -> None:
    logger.error(message, _current_task().get_name(), origin, exc_info=exc)


def _close(work: object) -> None:
    if asyncio.iscoroutine(work):
        work.close()
