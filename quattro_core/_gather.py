"""The task group: several different calls at once, and what they return."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import Coroutine
from functools import partial
from types import CoroutineType
from typing import Any, TypeVar, cast, overload

from quattro_core import _child
from quattro_core._child import CoroutineOrFunction
from quattro_core._lifecycle import Lifecycle

T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")
T6 = TypeVar("T6")
T7 = TypeVar("T7")
T8 = TypeVar("T8")


class Gathering(Lifecycle):
    """How a group makes a few calls at once, and collects what they return."""

    @overload
    async def gather(self) -> tuple[()]: ...
    @overload
    async def gather(self, coro1: CoroutineOrFunction[T1], /) -> tuple[T1]: ...
    @overload
    async def gather(
        self,
        coro1: CoroutineOrFunction[T1],
        coro2: CoroutineOrFunction[T2],
        /,
    ) -> tuple[T1, T2]: ...
    @overload
    async def gather(
        self,
        coro1: CoroutineOrFunction[T1],
        coro2: CoroutineOrFunction[T2],
        coro3: CoroutineOrFunction[T3],
        /,
    ) -> tuple[T1, T2, T3]: ...
    @overload
    async def gather(
        self,
        coro1: CoroutineOrFunction[T1],
        coro2: CoroutineOrFunction[T2],
        coro3: CoroutineOrFunction[T3],
        coro4: CoroutineOrFunction[T4],
        /,
    ) -> tuple[T1, T2, T3, T4]: ...
    @overload
    async def gather(
        self,
        coro1: CoroutineOrFunction[T1],
        coro2: CoroutineOrFunction[T2],
        coro3: CoroutineOrFunction[T3],
        coro4: CoroutineOrFunction[T4],
        coro5: CoroutineOrFunction[T5],
        /,
    ) -> tuple[T1, T2, T3, T4, T5]: ...
    @overload
    async def gather(
        self,
        coro1: CoroutineOrFunction[T1],
        coro2: CoroutineOrFunction[T2],
        coro3: CoroutineOrFunction[T3],
        coro4: CoroutineOrFunction[T4],
        coro5: CoroutineOrFunction[T5],
        coro6: CoroutineOrFunction[T6],
        /,
    ) -> tuple[T1, T2, T3, T4, T5, T6]: ...
    @overload
    async def gather(
        self,
        coro1: CoroutineOrFunction[T1],
        coro2: CoroutineOrFunction[T2],
        coro3: CoroutineOrFunction[T3],
        coro4: CoroutineOrFunction[T4],
        coro5: CoroutineOrFunction[T5],
        coro6: CoroutineOrFunction[T6],
        coro7: CoroutineOrFunction[T7],
        /,
    ) -> tuple[T1, T2, T3, T4, T5, T6, T7]: ...
    @overload
    async def gather(
        self,
        coro1: CoroutineOrFunction[T1],
        coro2: CoroutineOrFunction[T2],
        coro3: CoroutineOrFunction[T3],
        coro4: CoroutineOrFunction[T4],
        coro5: CoroutineOrFunction[T5],
        coro6: CoroutineOrFunction[T6],
        coro7: CoroutineOrFunction[T7],
        coro8: CoroutineOrFunction[T8],
        /,
    ) -> tuple[T1, T2, T3, T4, T5, T6, T7, T8]: ...
    @overload
    async def gather(self, *coros: CoroutineOrFunction[T]) -> tuple[T, ...]: ...
    async def gather(self, *coros: CoroutineOrFunction[Any]) -> tuple[Any, ...]:
        """Run several coroutines as children of the group; return their results, in that order.

        ::

            user, cart = await group.gather(get_user(), get_cart())

        An error of one of them aborts the group, like that of any child, and so cancels the caller
        and the others. If the caller is cancelled, they are cancelled too. In no case is one of
        them alive when this has returned or raised.

        Args:
            *coros: What `create_task` takes: coroutines, or functions that return one. A child that
                calls this keeps its place in the `concurrency_limit` while it waits for theirs.

        Returns:
            A tuple of the results.

        Raises:
            RuntimeError: As with `create_task`. Coroutines that have not started are closed, those
                that have are cancelled.
            TypeError: If one of *coros* is neither; then none is started.
            BaseException: The error of one, or `asyncio.CancelledError` if one was cancelled, as
                when its task is awaited: this is seen by callers outside of the group alone.

        .. versionadded:: 0.1
        """
        tasks: list[asyncio.Task[Any]] = []
        try:
            try:
                for coro in coros:
                    if coro.__class__ is not CoroutineType:
                        _child.check(coro)
                for coro in coros:
                    # Of create_task, only the standard library's signature is known here. Not
                    # extend(): those that are made before an error must be known.
                    tasks.append(self.create_task(cast("Coroutine[Any, Any, Any]", coro)))  # noqa: PERF401
            except BaseException:
                await self._withdraw(coros, tasks)
                raise
            await self._ended(tasks)
            try:
                return tuple([task.result() for task in tasks])
            except (Exception, CancelledError):  # noqa: BLE001 - it is raised below
                failed = [
                    task for task in tasks if task.cancelled() or task.exception() is not None
                ]
            # Who belongs to the group is cancelled by now, unless an eager child failed at once.
            # To others, an error tells more than that it has had others cancelled.
            await asyncio.sleep(0)
            return (min(failed, key=asyncio.Task.cancelled).result(),)
        finally:
            # An error that is raised here refers to this frame, which must not refer to it.
            tasks = failed = []

    async def _withdraw(
        self, coros: tuple[CoroutineOrFunction[Any], ...], tasks: list[asyncio.Task[Any]]
    ) -> None:
        """Close those that have not become tasks, and cancel those that have."""
        for coro in coros[len(tasks) :]:
            _child.close(coro)
        self._cancel_all(tasks)
        await self._ended(tasks)
        if tasks:
            await asyncio.sleep(0)  # an eager child may have cancelled us: that goes first

    async def _ended(self, tasks: list[asyncio.Task[Any]]) -> None:
        """Wait until all have ended; if that is cancelled, cancel them once, and go on waiting."""
        cancelled: CancelledError | None = None
        for task in tasks:
            # One after the other: most end at much the same time, and each callback has its price,
            # as that of `asyncio.wait` for every task has.
            while not task.done():
                ended = self._loop.create_future()
                wake = partial(_wake, ended)
                task.add_done_callback(wake)
                try:
                    await ended
                except CancelledError as exc:
                    task.remove_done_callback(wake)
                    if cancelled is None:
                        cancelled = exc
                        self._cancel_all([other for other in tasks if not other.done()])
        if cancelled is not None:
            try:
                raise cancelled
            finally:
                del cancelled

    def _cancel_all(self, tasks: list[asyncio.Task[Any]]) -> None:
        if not self._aborting:  # which has cancelled them already
            for task in tasks:
                task.cancel()


def _wake(ended: asyncio.Future[None], _: asyncio.Task[Any]) -> None:
    if not ended.done():
        ended.set_result(None)
