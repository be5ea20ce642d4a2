"""The task group: many calls at once, and what they return."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from quattro_core import _child
from quattro_core._child import CoroutineOrFunction
from quattro_core._lifecycle import Lifecycle
from quattro_core._map import MapRun
from quattro_core._map_results import MapResults
from quattro_core._shared import checked_limit

if TYPE_CHECKING:
    from quattro_core._taskgroup import TaskGroup

T = TypeVar("T")
R = TypeVar("R")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")
T6 = TypeVar("T6")
T7 = TypeVar("T7")
T8 = TypeVar("T8")


class FanOut(Lifecycle):
    """How a group makes many calls, and collects what they return."""

    def map(
        self,
        function: Callable[[T], Coroutine[Any, Any, R]],
        iterable: Iterable[T] | AsyncIterable[T],
        *,
        limit: int,
        ordered: bool = False,
    ) -> MapResults[R]:
        """Call a coroutine function with every item, a few at a time, and iterate over the results.

        ::

            async for page in group.map(fetch, urls, limit=10): ...

        Items are pulled when there is room for them: at most twice *limit* have been pulled and
        are not handed out as results yet, however many there are and however slow the consumer is.
        The work begins with the iteration and ends with it: the calls are made by background tasks
        of the group, so that the group does not wait for them, and its `concurrency_limit` does not
        count them. These tasks make one call after the other, and share a copy of the current
        context each: what a call sets in a context variable, later ones may see.

        An error of a call, or of the iterable, is that of a child: it aborts the group.

        Args:
            function: A coroutine function of one argument.
            iterable: The items, as an iterable or an asynchronous iterable. It is not closed.
            limit: How many calls run at once, at most.
            ordered: Whether results come in the order of the items, rather than as they are ready.

        Returns:
            The results, to iterate over with ``async for``. Leaving the loop early, so that nobody
            holds them any more, cancels the calls that are running; ``async with`` also waits for
            their clean-up.

        Raises:
            RuntimeError: If the group is not open, or if the call comes from another thread than
                the event loop's.
            TypeError: If *function* is not callable, *iterable* can't be iterated over, or *limit*
                is not an int.
            ValueError: If *limit* is below 1.

        .. versionadded:: 0.1
        """
        self._check_state()
        self._check_thread("map")
        checked_limit("limit", limit, optional=False)
        if not callable(function):
            msg = f"function must be a coroutine function of one argument, got {function!r}"
            raise TypeError(msg)
        group = cast("TaskGroup", self)
        return MapResults(MapRun(group, function, iterable, limit=limit, ordered=ordered))

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
            await self._spawn(coros, tasks)
            await self._ended(tasks)
            failed = [task for task in tasks if task.cancelled() or task.exception() is not None]
            if failed:
                # Who belongs to the group is cancelled by now, unless an eager child failed at
                # once. To others, an error tells more than that it has had others cancelled.
                await asyncio.sleep(0)
                min(failed, key=asyncio.Task.cancelled).result()
            return tuple([task.result() for task in tasks])
        finally:
            # An error that is raised here refers to this frame, which must not refer to it.
            tasks = failed = []

    async def _spawn(
        self, coros: tuple[CoroutineOrFunction[Any], ...], tasks: list[asyncio.Task[Any]]
    ) -> None:
        """Make tasks of all, or of none."""
        try:
            for coro in coros:
                _child.check(coro)
            for coro in coros:
                # Of create_task, only the standard library's signature is known here.
                task = self.create_task(cast("Coroutine[Any, Any, Any]", coro))
                tasks.append(task)  # those made before an error must be known
        except BaseException:
            for coro in coros[len(tasks) :]:
                _child.close(coro)
            self._cancel_all(tasks)
            await self._ended(tasks)
            if tasks:
                await asyncio.sleep(0)  # an eager child may have cancelled us: that goes first
            raise

    async def _ended(self, tasks: list[asyncio.Task[Any]]) -> None:
        """Wait until all have ended; if that is cancelled, cancel them once, and go on waiting."""
        cancelled: CancelledError | None = None
        while pending := [task for task in tasks if not task.done()]:
            try:
                await asyncio.wait(pending)
            except CancelledError as exc:
                if cancelled is None:
                    cancelled = exc
                    self._cancel_all(pending)
        if cancelled is not None:
            try:
                raise cancelled
            finally:
                del cancelled

    def _cancel_all(self, tasks: list[asyncio.Task[Any]]) -> None:
        if not self._aborting:  # which has cancelled them already
            for task in tasks:
                task.cancel()
