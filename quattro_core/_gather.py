"""What `TaskGroup.gather` does: several calls at once, and what they return."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from functools import partial
from types import CoroutineType
from typing import Any, Protocol

from quattro_core._limits import Slots
from quattro_core._tasks import CoroutineOrFunction, check_child, close


class GatherGroup(Protocol):
    """What this needs of a task group."""

    _loop: asyncio.AbstractEventLoop
    _aborting: bool
    _slots: Slots | None

    def create_task(self, coro: CoroutineOrFunction[Any]) -> asyncio.Task[Any]: ...
    @property
    def exceptions(self) -> tuple[BaseException, ...]: ...
    def _withdraw(self, task: asyncio.Task[Any]) -> None: ...
    def _take_back_cancel(self, failure: BaseException) -> bool: ...


async def gather(
    group: GatherGroup, coros: tuple[CoroutineOrFunction[Any], ...]
) -> tuple[Any, ...]:
    """Run the coroutines as children of the group; return their results, in that order."""
    tasks: list[asyncio.Task[Any]] = []
    try:
        try:
            for coro in coros:
                if coro.__class__ is not CoroutineType:
                    check_child(coro)
            for coro in coros:
                # Of create_task, only the standard library's signature is known here. Not
                # extend(): those that are made before an error must be known.
                tasks.append(group.create_task(coro))  # noqa: PERF401  # see above
        except BaseException:
            await _withdraw(group, coros, tasks)
            raise
        await _ended(group, tasks)
        try:
            return tuple([task.result() for task in tasks])
        except (Exception, CancelledError):  # noqa: BLE001 - it is raised below
            failed = [task for task in tasks if task.cancelled() or task.exception() is not None]
        failure = _first_failure(group, failed)
        if failure is None:
            # Who belongs to the group is cancelled by now, but of an eager child that has failed
            # at once the group learns in the next turn.
            try:
                await asyncio.sleep(0)
            except CancelledError:
                failure = _first_failure(group, failed)
                if failure is None or not group._take_back_cancel(failure):
                    raise
        if failure is not None:
            raise failure
        return (min(failed, key=asyncio.Task.cancelled).result(),)
    finally:
        # An error that is raised here refers to this frame, which must not refer to it.
        tasks = failed = []
        failure = None


async def _withdraw(
    group: GatherGroup, coros: tuple[CoroutineOrFunction[Any], ...], tasks: list[asyncio.Task[Any]]
) -> None:
    """Close those that have not become tasks, and cancel those that have."""
    for coro in coros[len(tasks) :]:
        close(coro)
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
        for task in tasks:
            group._withdraw(task)


def _wake(ended: asyncio.Future[None], _: asyncio.Task[Any]) -> None:
    if not ended.done():
        ended.set_result(None)
