"""Supervision of a function that should run forever."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from types import FunctionType, TracebackType
from typing import Any, Literal, cast

from quattro_core._restart import RestartPolicy, Restarts, checked_restart

OnFailure = Literal["stop", "restart", "ignore"]
OnReturn = Literal["stop", "restart", "ok"]


class SupervisorState(StrEnum):
    """The state of a `Supervisor`'s function.

    .. versionadded:: 0.1
    """

    WAITING = "waiting"
    """`Supervisor.run` was not called yet."""
    STARTING = "starting"
    """It runs, but has not said yet that it is ready."""
    RUNNING = "running"
    BACKING_OFF = "backing off"
    """It has failed or returned, and restarts in a while."""
    RETURNED = "returned"
    FAILED = "failed"
    CANCELLED = "cancelled"


class TaskStatus:
    """Lets a supervised function report that it is ready; passed as its parameter ``task_status``.

    Compatible with anyio and trio: functions written for their ``start()`` can be supervised.

    .. versionadded:: 0.1
    """

    __slots__ = ("_loop", "_ready")

    def __init__(self, ready: Callable[[], None]) -> None:
        self._ready: Callable[[], None] | None = ready
        self._loop = asyncio.get_running_loop()

    def started(self, value: object = None) -> None:
        """Report that the function is ready. Only the first call in each run counts.

        Args:
            value: Ignored; accepted for compatibility with anyio.

        Raises:
            RuntimeError: If called outside the event loop's thread.

        .. versionadded:: 0.1
        """
        del value
        try:
            is_own = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            is_own = False
        if not is_own:
            msg = (
                "started() was called outside the event loop's thread: "
                "call loop.call_soon_threadsafe(task_status.started)"
            )
            raise RuntimeError(msg)
        ready, self._ready = self._ready, None
        if ready is not None:
            ready()


class TaskReturnedError(RuntimeError):
    """A supervised function returned, although it should run forever.

    .. versionadded:: 0.1
    """


class Supervisor:
    """Runs an async function that should run forever, and decides what happens when it ends.

    ::

        async with TaskGroup() as group:
            supervisor = Supervisor(poll, on_failure="restart")
            group.create_background_task(supervisor.run)
            await supervisor.wait_started(timeout=10)

    If a policy says ``"stop"``, `run` raises, and its caller decides what happens next.

    Args:
        function: An async function of no arguments. If it has a parameter named ``task_status``, it
            gets a `TaskStatus`, and counts as started once it calls ``task_status.started()``.
        name: Its name in logs and errors; by default the function's own name.
        on_failure: What to do after an error: ``"stop"`` raises it from `run`, ``"restart"`` starts
            the function again, ``"ignore"`` only logs it.
        on_return: What to do after a return. The default, ``"stop"``, raises `TaskReturnedError`: a
            function that should run forever is as dead after a return as after an error.
            ``"restart"`` starts it again; with ``"ok"``, `run` returns.
        restart: How often, and after which delay, ``"restart"`` starts the function again. None
            means the defaults of `RestartPolicy`.
        logger: The logger for restarts and ignored errors; by default ``quattro_core``.

    Attributes:
        name: The given name, or the function's own.

    Raises:
        TypeError: If *function* is not a function, yields, is a ``def`` function that is not
            annotated to return an awaitable, or needs other arguments; if *restart* is not a
            `RestartPolicy`.
        ValueError: If a policy is unknown, or if *restart* is given although no policy is
            ``"restart"``.

    .. versionadded:: 0.1
    """

    def __init__(
        self,
        function: Callable[..., Awaitable[object]],
        *,
        name: str | None = None,
        on_failure: OnFailure = "stop",
        on_return: OnReturn = "stop",
        restart: RestartPolicy | None = None,
        logger: logging.Logger | logging.LoggerAdapter[logging.Logger] | None = None,
    ) -> None:
        self._function = function
        self.name: str = name or name_of(function)
        self._takes_status = takes_status(function, self.name)
        self._on_failure = checked_policy("on_failure", on_failure, ("stop", "restart", "ignore"))
        self._on_return = checked_policy("on_return", on_return, ("stop", "restart", "ok"))
        policy = checked_restart(restart, on=(on_failure, on_return))
        self._recent = Restarts(self.name, policy)
        self._logger = logger or logging.getLogger("quattro_core")
        self._progress = Progress(self.name)
        self._restarts = 0

    @property
    def state(self) -> SupervisorState:
        """The state of the function.

        .. versionadded:: 0.1
        """
        return self._progress.state

    @property
    def since(self) -> datetime:
        """When the function entered this state, in UTC.

        .. versionadded:: 0.1
        """
        return self._progress.since

    @property
    def restarts(self) -> int:
        """How often the function was restarted.

        .. versionadded:: 0.1
        """
        return self._restarts

    @property
    def last_error(self) -> Exception | None:
        """Its last failure; None if there was none.

        .. versionadded:: 0.1
        """
        return self._progress.last_error

    async def run(self) -> None:
        """Run the function in the current task, repeatedly if its policy says so.

        A cancellation always ends it: the function is not restarted, and `run` raises whatever the
        function raises. If the function swallows the cancellation, `run` raises
        `asyncio.CancelledError` anyway, unless the function has called `asyncio.Task.uncancel`.

        Raises:
            RestartLimitError: If the function failed more often than its policy allows.
            TaskReturnedError: If the function returned, and *on_return* is ``"stop"``.
            RuntimeError: If something that the function awaited cancelled it; if the function
                raised something that is not an `Exception`, such as `SystemExit`; or if `run` was
                called before.
            Exception: Whatever the function raised, if *on_failure* is ``"stop"``.

        .. versionadded:: 0.1
        """
        if self.state is not SupervisorState.WAITING:
            msg = f"{self.name} was run before: a Supervisor runs once"
            raise RuntimeError(msg)
        try:
            while not await self._attempt():
                pass
        except asyncio.CancelledError as exc:
            self._progress.end(SupervisorState.CANCELLED, exc)
            raise
        except BaseException as exc:
            self._progress.end(SupervisorState.FAILED, exc)
            raise
        finally:
            self._recent.clear()

    async def wait_started(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  # its error tells
        """Wait until the function reports for the first time that it is ready.

        A function without a parameter ``task_status`` is ready as soon as it begins. If the
        function ends before it is ready, and its policy allows that, this returns too.

        Args:
            timeout: How many seconds to wait. None means no limit.

        Raises:
            TimeoutError: If the function was not ready in time.
            Exception: Whatever ended `run`, if that came first.

        .. versionadded:: 0.1
        """
        await self._progress.wait_started(timeout)

    # One run of the function

    async def _attempt(self) -> bool:
        """Call the function once, and return whether that was the last time."""
        task = current_task()
        cancelled = task.cancelling()
        self._recent.begin(asyncio.get_running_loop().time())
        error: Exception | None = None
        self._progress.set(SupervisorState.STARTING)
        try:
            await self._call()
        except KeyboardInterrupt:
            raise
        except BaseException as exc:  # its policy says what becomes of it
            if task.cancelling() > cancelled or is_closed(task):
                raise  # as it is: the answer to its cancellation
            error = self._progress.last_error = as_error(exc, self.name)
        if task.cancelling() > cancelled:
            raise asyncio.CancelledError  # it was swallowed
        try:
            return await self._ended(error)
        finally:
            error = None

    async def _call(self) -> None:
        if self._takes_status:
            awaitable = self._function(task_status=TaskStatus(self._progress.ready))
        else:
            self._progress.ready()
            awaitable = self._function()
        if not inspect.isawaitable(awaitable):
            msg = f"{self.name} is not an async function: it returned {awaitable!r}"
            raise TypeError(msg)
        await awaitable

    async def _ended(self, error: Exception | None) -> bool:
        policy = self._on_return if error is None else self._on_failure
        if policy == "restart":
            await self._back_off(error)
            return False
        if policy == "stop":
            if error is None:  # an error may well be false
                error = TaskReturnedError(f"{self.name} has returned, but should run forever")
            raise error
        if error is not None:
            self._logger.error(
                "%s failed, and is not restarted", self.name, exc_info=exc_info_of(error)
            )
        self._progress.end(SupervisorState.RETURNED if error is None else SupervisorState.FAILED)
        return True

    async def _back_off(self, error: Exception | None) -> None:
        counted = TaskReturnedError(f"{self.name} has returned") if error is None else error
        delay = self._recent.count(asyncio.get_running_loop().time(), counted)
        self._progress.set(SupervisorState.BACKING_OFF)
        self._logger.warning(
            "%s has returned, and restarts in %.2f s (restart %d)"
            if error is None
            else "%s failed, and restarts in %.2f s (restart %d)",
            self.name,
            delay,
            self._restarts + 1,
            exc_info=None if error is None else exc_info_of(error),
        )
        await asyncio.sleep(delay)
        self._restarts += 1


class Progress:
    """How far a supervised function has come.

    Args:
        name: The name of the function.

    Attributes:
        state: What it does.
        since: Since when, in UTC.
        last_error: Its last failure; None if there was none.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.state: SupervisorState = SupervisorState.WAITING
        self.since: datetime = datetime.now(UTC)
        self.last_error: Exception | None = None
        self._told = asyncio.Event()
        self._has_started = False
        self._raised: BaseException | None = None

    def set(self, state: SupervisorState) -> None:
        """Take note of what it does from now on."""
        self.state = state
        self.since = datetime.now(UTC)

    def ready(self) -> None:
        """Take note that it is ready, and tell those who wait for that."""
        self.set(SupervisorState.RUNNING)
        self._has_started = True
        self._told.set()

    def end(self, state: SupervisorState, exc: BaseException | None = None) -> None:
        """Take note of its end, and of what comes out of it: nothing more is to be waited for."""
        self.set(state)
        if not self._has_started:
            self._raised = exc
        self._told.set()

    async def wait_started(self, timeout: float | None) -> None:  # noqa: ASYNC109  # its error tells
        """Wait until it has been ready once, or has ended.

        Args:
            timeout: How many seconds to wait. None means no limit.

        Raises:
            TimeoutError: If it is not ready in time.
            Exception: What has come out of it, if that was before.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._told.wait()
        except TimeoutError:
            what = "called task_status.started()"
            if self.state is SupervisorState.WAITING:
                what = "been run: nobody has called run()"
            msg = f"{self._name} has not {what} within {timeout:g} s"
            if self.last_error is not None:
                msg += f"; its last error was {repr_of(self.last_error)}"
            raise TimeoutError(msg) from self.last_error
        if self._raised is not None:
            if isinstance(self._raised, asyncio.CancelledError):
                msg = f"{self._name} was cancelled before it has started"
                raise RuntimeError(msg)
            raise self._raised


def takes_status(function: Callable[..., object], name: str) -> bool:
    """Return whether a function has the parameter ``task_status``.

    Raises:
        TypeError: If it is not a function, yields, blocks, or needs other arguments.
    """
    if inspect.iscoroutine(function):
        function.close()
        msg = f"a Supervisor takes a function, got the coroutine {function!r}: leave out the call"
        raise TypeError(msg)
    if not callable(function):
        msg = f"a Supervisor takes an async function, got {function!r}"
        raise TypeError(msg)
    if inspect.isasyncgenfunction(function):
        msg = f"{name} is an async generator: nothing awaits it, leave out the yield"
        raise TypeError(msg)
    if _blocks(function):
        msg = (
            f"{name} is a def function, which would block the event loop: make it async def, with "
            "asyncio.to_thread(...) for what blocks; or, if it returns an awaitable, say so in its "
            "annotation"
        )
        raise TypeError(msg)
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # a builtin that tells nothing of itself
        return False
    own = [p for p in parameters if p.name == "task_status"]
    others = [
        p.name
        for p in parameters
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and p not in own
    ]
    if others:
        msg = f"{name} takes {', '.join(others)}: bind them with functools.partial"
        raise TypeError(msg)
    if own and own[0].kind is inspect.Parameter.POSITIONAL_ONLY:
        msg = f"{name} takes task_status by position only, but gets it by its name"
        raise TypeError(msg)
    return bool(own)


def name_of(function: object) -> str:
    """Return the name of a function, as its author knows it."""
    while isinstance(function, partial):
        function = function.func
    return getattr(function, "__qualname__", None) or repr(function)


def as_error(exc: BaseException, name: str) -> Exception:
    """Return an error for what is none: left as it is, it would end more than the function."""
    if isinstance(exc, Exception):
        return exc
    if isinstance(exc, asyncio.CancelledError):
        error = RuntimeError(f"{name} was cancelled by something it awaited")
    else:
        error = RuntimeError(f"{name} raised {repr_of(exc)}")
    error.__cause__ = exc
    return error


def repr_of(exc: BaseException) -> str:
    """Return what an error shows of itself, or its class if it fails to."""
    try:
        return repr(exc)
    except Exception:  # noqa: BLE001  # of its own method
        return f"<{type(exc).__name__}>"


def exc_info_of(
    exc: BaseException,
) -> tuple[type[BaseException], BaseException, TracebackType | None]:
    """Return the ``exc_info`` for a log entry: logging leaves out an error that is false."""
    return type(exc), exc, exc.__traceback__


def is_closed(task: asyncio.Task[Any]) -> bool:
    """Whether the coroutine of a task, which calls this, is being closed from outside.

    That is a GeneratorExit, or a RuntimeError if its clean-up awaits something.
    """
    try:
        return asyncio.current_task() is not task
    except RuntimeError:  # the event loop has ended
        return True


def current_task() -> asyncio.Task[Any]:
    """Return the current task, where there is one for sure."""
    return cast("asyncio.Task[Any]", asyncio.current_task())


def checked_policy(name: str, value: Any, choices: tuple[str, ...]) -> Any:
    """Return a policy that was given as argument *name*, if it is one of the choices."""
    if value not in choices:
        msg = f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}"
        raise ValueError(msg)
    return value


def _blocks(function: object) -> bool:
    """Tell whether a function does its work by being called, so that nothing could be awaited."""
    while isinstance(function, partial):
        function = function.func
    function = inspect.unwrap(function) if callable(function) else function
    return (
        isinstance(function, FunctionType)
        and function.__name__ != "<lambda>"
        and not inspect.iscoroutinefunction(function)
        and function.__annotations__.get("return") in (None, "None")
    )
