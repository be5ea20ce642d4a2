"""The code of `TaskGroup.gather`: several calls at once, and their results."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import Coroutine, Sequence
from functools import partial
from operator import methodcaller
from types import CoroutineType
from typing import Any, Protocol, cast

from quattro_core._limits import Slots
from quattro_core._returned import cancelled_error, returning_errors
from quattro_core._tasks import CoroutineOrFunction, Gathered, check_child, close, coroutine_of


class GatherGroup(Protocol):
    """What this needs of a task group."""

    _loop: asyncio.AbstractEventLoop
    _aborting: bool
    _slots: Slots | None
    _tasks: set[asyncio.Task[Any]]
    _returning: set[asyncio.Task[Any]] | None

    def create_task(self, coro: CoroutineOrFunction[Any]) -> asyncio.Task[Any]: ...
    @property
    def exceptions(self) -> tuple[BaseException, ...]: ...
    def _withdraw(self, tasks: list[asyncio.Task[Any]]) -> None: ...
    def _take_back_cancel(self, failure: BaseException) -> bool: ...
    def _is_cancelled(self, task: asyncio.Task[Any]) -> bool: ...
    def _returns_errors(self, task: asyncio.Task[Any]) -> None: ...
    def _is_returned(self, task: asyncio.Task[Any], error: BaseException) -> bool: ...


_RESULT, _CANCELLED = methodcaller("result"), methodcaller("cancelled")


async def gather(
    group: GatherGroup,
    coros: tuple[Gathered[Any], ...],
    *,
    return_exceptions: bool = False,
) -> tuple[Any, ...]:
    """Run the coroutines as children of the group; return their results, in that order.

    Args:
        group: The group.
        coros: The coroutines, functions that return one, or children that run already.
        return_exceptions: Whether an `Exception` of a child is its result, rather than a failure.
    """
    tasks: list[asyncio.Task[Any]] = []
    children: Sequence[Gathered[Any]] = coros
    first: asyncio.Task[Any] | None = None
    try:
        try:
            for coro in coros:
                if coro.__class__ is not CoroutineType:
                    _check(group, coro)
            if return_exceptions:
                children = [_returning_errors(group, coro) for coro in coros]
            for child in children:
                # Of create_task, only the standard library's signature is known here. Not
                # extend(): those that are made before an error must be known.
                tasks.append(child if isinstance(child, asyncio.Task) else group.create_task(child))  # noqa: PERF401  # see above
        except BaseException:
            await _withdraw(group, children, tasks)
            raise
        await _ended(group, tasks)
        try:
            # No comprehension: on 3.11 its frame would keep an error.
            results = tuple(map(_RESULT, tasks))
        except (Exception, CancelledError):  # noqa: BLE001 - it is raised below
            failed = [task for task in tasks if _has_failed(group, task)]
            if not failed:
                return tuple(map(_result, coros, tasks))
        else:
            coros = ()  # all have run to their ends
            return results
        failure = _first_failure(group, failed)
        if failure is None or not group._take_back_cancel(failure):
            # Who belongs to the group is cancelled by now, or in the next turn: when a child that
            # was cancelled with it has ended, or an eager one that has failed at once is known.
            try:
                await asyncio.sleep(0)
            except CancelledError:
                failure = _first_failure(group, failed)
                if failure is None or not group._take_back_cancel(failure):
                    raise
        if failure is not None:
            raise failure
        first = min(failed, key=_CANCELLED)
        if group._aborting or not (return_exceptions and first.cancelled()):
            return (first.result(),)
        # Somebody has cancelled the task of a child, and neither the group nor the caller.
        return tuple(map(_result, coros, tasks))
    finally:
        # An error that is raised here refers to this frame, which must not refer to it.
        tasks = failed = []
        failure = first = None
        if return_exceptions:
            for coro in coros:
                close(coro)  # it was never awaited if its task was cancelled before its first step


def _check(group: GatherGroup, child: Gathered[Any]) -> None:
    """Raise TypeError for what can't be gathered."""
    if not isinstance(child, asyncio.Task):
        check_child(child)
    elif child is asyncio.current_task():
        msg = f"{child!r} can't gather itself: it would wait for its own end"
        raise TypeError(msg)
    elif child not in group._tasks and not child.done():
        msg = (
            f"{child!r} is no child of this group that it waits for: await it, or call gather() "
            "with its coroutine, or with what create_task(...) of this group returns"
        )
        raise TypeError(msg)


def _returning_errors(group: GatherGroup, coro: Gathered[Any]) -> Gathered[Any]:
    if isinstance(coro, asyncio.Task):
        group._returns_errors(coro)
        return coro
    name = _name_of(coro)
    child: Any = returning_errors(group, name, coroutine_of, coro)
    child.__qualname__ = name  # what asyncio's logs show
    return cast("Coroutine[Any, Any, Any]", child)


def _name_of(coro: Gathered[Any]) -> str:
    return getattr(coro, "__qualname__", "child")


def _has_failed(group: GatherGroup, task: asyncio.Task[Any]) -> bool:
    """Tell whether the end of a child is no result."""
    if task.cancelled():
        return True
    error = task.exception()
    try:
        return error is not None and not group._is_returned(task, error)
    finally:
        del error  # it refers to this frame


def _result(coro: Gathered[Any], task: asyncio.Task[Any]) -> Any:
    """Return the result of a child whose errors are results.

    Somebody may have cancelled it, and nobody of the group.
    """
    error: BaseException | None = None
    try:
        error = task.exception()
        return task.result() if error is None else error
    except CancelledError as exc:
        error = exc
        return cancelled_error(f"{_name_of(coro)} was cancelled", exc)
    finally:
        del error  # it refers to this frame


async def _withdraw(
    group: GatherGroup,
    children: Sequence[Gathered[Any]],
    tasks: list[asyncio.Task[Any]],
) -> None:
    """Close those that have not become tasks, and cancel those that have."""
    for child in children[len(tasks) :]:
        if not isinstance(child, asyncio.Task):
            close(child)
        elif child in group._tasks and child is not asyncio.current_task():
            tasks.append(child)
    _cancel_all(group, tasks)
    await _ended(group, tasks)
    if tasks:
        await asyncio.sleep(0)  # an eager child may have cancelled us: that goes first


async def _ended(group: GatherGroup, tasks: list[asyncio.Task[Any]]) -> None:
    """Wait until all have ended; if that is cancelled, cancel them once, and go on waiting."""
    cancelled: CancelledError | None = None
    slots, lender = group._slots, None
    try:
        for task in tasks:
            # One after the other: most end at much the same time, and each callback has its price,
            # as that of `asyncio.wait` for every task has.
            while not task.done():
                if slots is not None and lender is None:
                    lender = asyncio.current_task()
                    assert lender is not None
                    slots.lend(lender)
                ended = group._loop.create_future()
                task.add_done_callback(partial(_wake, ended))
                try:
                    await ended
                except CancelledError as exc:
                    if cancelled is None:
                        cancelled = exc
                        _cancel_all(group, [other for other in tasks if not other.done()])
        if cancelled is not None:
            # Who is told by it that one of them has failed is better told of the failure.
            failure = _first_failure(group, tasks)
            if failure is not None and group._take_back_cancel(failure):
                raise failure
            raise cancelled
        if slots is not None and lender is not None:
            await slots.come_back(lender)
    finally:
        if slots is not None and lender is not None:
            slots.hurry_back(lender)
        cancelled = failure = None  # they refer to this frame


def _first_failure(group: GatherGroup, tasks: list[asyncio.Task[Any]]) -> BaseException | None:
    """Return the error of the first of them that has failed, in the order of time."""
    errors = {id(task.exception()) for task in tasks if not task.cancelled()}
    return next((error for error in group.exceptions if id(error) in errors), None)


def _cancel_all(group: GatherGroup, tasks: list[asyncio.Task[Any]]) -> None:
    if not group._aborting:  # which has cancelled them already
        group._withdraw(tasks)


def _wake(ended: asyncio.Future[None], _: asyncio.Task[Any]) -> None:
    if not ended.done():
        ended.set_result(None)
