"""The task group."""

from __future__ import annotations

import asyncio
import sys
import threading
from asyncio import CancelledError, current_task, get_running_loop

# Not by its own name: CPython calls no method in its quick way on a local of an imported name.
from asyncio import tasks as asyncio_tasks
from asyncio.events import _get_running_loop
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable
from contextvars import Context
from functools import partial
from types import CoroutineType, TracebackType
from typing import Any, Literal, Self, TypeVar, cast, overload
from weakref import WeakSet

from quattro_core._cleanups import cut_short
from quattro_core._deadlock import waits_for
from quattro_core._gather import gather
from quattro_core._limits import (
    EAGER,
    SharedLimit,
    Slots,
    Turn,
    check_options,
    checked_limit,
)
from quattro_core._map import MapResults, MapRun
from quattro_core._tasks import (
    ASYNCIOS_CREATE_TASK,
    CoroutineOrFunction,
    check_child,
    close,
    close_wrapped,
    coroutine_of,
)
from quattro_core._threads import after_thread, cancel, was_cancelled

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

CALL_GRAPH = sys.version_info >= (3, 14)  # tasks know who waits for them
# Before, `asyncio.TaskGroup` leaves its own cancellation counted when a child fails during its exit
# (https://github.com/python/cpython/issues/116720): not all that is counted is still to be raised.
NO_LEAKS = sys.version_info >= (3, 13)


class TaskGroup(asyncio.TaskGroup):
    """An `asyncio.TaskGroup` with background tasks and a limit on concurrency.

    When the body of the `async with` ends, the group waits for its foreground children
    (`create_task`) while its background tasks (`create_background_task`) go on, so that a child may
    rely on its pump to its last line. When no foreground child is left, the background tasks are
    cancelled, and their clean-up is awaited. No task is alive after the group.

    An unhandled error in the body or in any child cancels all others, each of them once, and comes
    out in an `ExceptionGroup`.

    Args:
        concurrency_limit: How many foreground children may run at once; the others wait for their
            turn, first come, first served. None means no limit. Background tasks don't count. If
            all that run wait by hand for others that can't begin, as in ``await
            group.create_task(...)``, that is a `LimitDeadlockError` of the group.
        shared_limit: A limit that this group shares with others; None means there is none.

    Raises:
        TypeError: If *concurrency_limit* is not an int, or *shared_limit* is no `SharedLimit`.
        ValueError: If *concurrency_limit* is below 1.

    .. versionadded:: 0.1
    """

    # The bookkeeping is ours on every Python, in the attributes and under the names of
    # `asyncio.TaskGroup`, since the standard library's differs: 3.11 and 3.12 leak a cancel count
    # when a child fails during the exit, and lose an outer cancellation that meets a child's error;
    # eager children abort the group from inside of `create_task`
    # (https://github.com/python/cpython/issues/128550); `cancel` came with 3.15. It also is what
    # keeps a group without new features as fast as the standard library's.

    # The standard library's attributes. TaskGroup sets them without calling its constructor.
    _entered: bool
    _exiting: bool
    _aborting: bool
    _loop: asyncio.AbstractEventLoop
    _parent_task: asyncio.Task[Any]
    _parent_cancel_requested: bool
    _tasks: set[asyncio.Task[Any]]
    _errors: list[BaseException]
    _base_error: BaseException | None
    _on_completed_fut: asyncio.Future[None] | None
    _cancel_on_enter: bool

    _cancel_msg: object = None
    # What the last cancellation of the parent carried that was met while the group was ending.
    _cancel_args: tuple[Any, ...] = ()
    # How many cancellations the parent had seen before that of the group, and nobody has taken
    # back: they are not passed on. Before 3.13 `asyncio.TaskGroup` leaves one when a child fails.
    _cancels_before = 0
    # Whether the body has seen that a child was cancelled, for which it waited, in place of its own
    # cancellation.
    _is_told = False
    # Children that a gather has cancelled.
    _withdrawn: WeakSet[asyncio.Task[Any]] | None = None
    # Before 3.13 the standard library leaves a coroutine that it refuses to the caller, who may
    # await it. A group that was opened by `enter` is no drop-in for one, and never does.
    _closes_refused = sys.version_info >= (3, 13)
    # What the task of a child runs, which a subclass may put something around.
    _coroutine_of = staticmethod(coroutine_of)
    # What the error of a group that has ended says more: a subclass may know a way out.
    _way_out = ""
    # The loop while a plain child may be made at once, else False (no running loop is False).
    _spawns_in: asyncio.AbstractEventLoop | Literal[False]
    # Whether the loop makes tasks in asyncio's own way, so that they can be made without it.
    _is_direct: bool
    # `_on_task_done` while the group is open, else None: it takes long to bind it for each child.
    _on_done: Any
    # Background tasks, and whether the group has cancelled them: it does that once.
    _background: dict[asyncio.Task[Any], bool] | None
    # None without a limit.
    _slots: Slots | None

    def __init__(
        self, *, concurrency_limit: int | None = None, shared_limit: SharedLimit | None = None
    ) -> None:
        # Every attribute is set here, and super().__init__() is not called: each of the two makes
        # a group with one child measurably slower (a default on the class is slow to read).
        self._entered = self._exiting = self._aborting = False
        self._parent_cancel_requested = self._cancel_on_enter = self._spawns_in = False
        self._loop = self._parent_task = None  # type: ignore[assignment]  # until it is entered
        self._base_error = self._on_completed_fut = self._background = None
        self._tasks = set()
        self._errors = []
        if concurrency_limit is None and shared_limit is None:
            self._slots = None
        else:
            own, shared = concurrency_limit, shared_limit
            done, failed = self._on_turn_done, self._fail
            self._slots = Slots(own, shared, done, failed, self._coroutine_of)

    def __repr__(self) -> str:
        state = "not entered"
        if self._entered:
            state = "finished" if self._exiting else "cancelling" if self._aborting else "entered"
        running = len(self._tasks) + len(self._background or ())
        counts = [f"tasks={running}"] if running else []
        counts += [f"errors={len(self._errors)}"] if self._errors else []
        return f"<TaskGroup {' '.join([*counts, state])}>"

    # Creating children

    def create_task(
        self,
        coro: CoroutineOrFunction[T],
        *,
        name: str | None = None,
        context: Context | None = None,
        **kwargs: Any,
    ) -> asyncio.Task[T]:
        """Create a task that the group waits for.

        Args:
            coro: A coroutine, or a function of no arguments that returns one. The function is
                called by the task when it starts. If it raises, that is a failure of the child.
            name: The name of the task.
            context: The context that the task runs in; None means a copy of the current one.
            **kwargs: Whatever else `asyncio.loop.create_task` of this Python takes, such as
                `eager_start` of 3.14.

        Returns:
            The task. In a group with a limit it may be waiting for its turn; it never starts if it
            is cancelled then. One that waits was not made by the task factory of the event loop.

        Raises:
            RuntimeError: If the group is not open: not entered, finished, or shutting down after
                an error. If the call comes from another thread than the event loop's, or if too
                many wait for the `shared_limit` (`TooManyWaitingError`): the coroutine is closed.
            TypeError: If *coro* is neither, or a keyword argument is unknown.

        .. versionadded:: 0.1
        """
        loop = self._spawns_in
        # One comparison stands for "entered, not finished, not aborting, no limit, right thread".
        if _get_running_loop() is not loop or coro.__class__ is not CoroutineType:
            return self._create_with_care(coro, name=name, context=context, **kwargs)
        task: asyncio.Task[T]
        if context is None and not kwargs:
            if loop.get_task_factory() is not None:
                task = loop.create_task(coro, name=name)
                close_wrapped(task, coro)
            elif not self._is_direct:
                task = loop.create_task(coro, name=name)
            elif name is None:
                task = asyncio_tasks.Task(coro, loop=loop)
            else:
                task = asyncio_tasks.Task(coro, loop=loop, name=name)
        else:
            task = self._make(coro, name=name, context=context, **kwargs)
        self._tasks.add(task)
        if self._spawns_in is not loop or CALL_GRAPH:
            self._register(task)
        task.add_done_callback(self._on_done)
        return task

    def create_background_task(
        self,
        coro: CoroutineOrFunction[T],
        *,
        name: str | None = None,
        context: Context | None = None,
        **kwargs: Any,
    ) -> asyncio.Task[T]:
        """Create a task that helps the others, such as a pump between queues.

        The group does not wait for it to finish by itself: it is cancelled when no foreground
        child is left, and its clean-up is awaited. Its unhandled error aborts the group, like any
        other. It does not count against the `concurrency_limit`.

        Takes, returns and raises what `create_task` does.

        .. versionadded:: 0.1
        """
        self._check_open(coro, "create_background_task")
        task = self._make(coro, name=name, context=context, **kwargs)
        self._register_background(task)
        return task

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
    def gather(self, *coros: CoroutineOrFunction[Any]) -> Coroutine[Any, Any, tuple[Any, ...]]:
        """Run several coroutines as children of the group; return their results, in that order.

        ::

            user, cart = await group.gather(get_user(), get_cart())

        An error of one of them aborts the group, like that of any child, and so cancels the caller
        and the others. If the caller is cancelled, they are cancelled too. In no case is one of
        them alive when this has returned or raised.

        Args:
            *coros: What `create_task` takes: coroutines, or functions that return one. A child that
                calls this lends its slot of the limits of the group while it waits, to whoever is
                first in the queue. It gets one again, ahead of all that have not begun, before it
                goes on; if it is cancelled, it goes on at once.

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
        return gather(self, coros)

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
        context each: what a call sets in a context variable, later ones may see. A child that waits
        for a result lends its slot of the limits of the group meanwhile, as with `gather`.

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
        return MapResults(MapRun(self, function, iterable, limit=limit, ordered=ordered))

    # Opening, ending, looking at it

    def enter(self, parent_task: asyncio.Task[Any] | None = None) -> Self:
        """Open the group, as `async with` does, for code that has no such block of its own.

        Whoever calls it sees to it that `__aexit__` is awaited, in *parent_task*.

        Args:
            parent_task: The task in which the body of the group runs: it is cancelled when a child
                fails. None means the current task.

        Raises:
            RuntimeError: If the group was entered before, if there is no parent task, or if the
                parent task runs in another event loop.

        .. versionadded:: 0.1
        """
        if self._entered:
            msg = f"TaskGroup {self!r} has already been entered"
            raise RuntimeError(msg)
        self._loop = loop = get_running_loop()
        if parent_task is None:
            parent_task = current_task(loop)
            if parent_task is None:
                msg = f"TaskGroup {self!r} cannot determine the parent task"
                raise RuntimeError(msg)
        else:
            if parent_task.get_loop() is not loop:
                msg = f"{parent_task!r}, the parent task, runs in another event loop"
                raise RuntimeError(msg)
            self._closes_refused = True
        self._parent_task = parent_task
        if not NO_LEAKS and parent_task.cancelling():
            self._note_cancels()
        self._entered = True
        self._is_direct = getattr(loop.create_task, "__func__", None) is ASYNCIOS_CREATE_TASK
        if self._slots is None:
            self._spawns_in = loop
            self._on_done = self._on_task_done
        else:
            self._slots.enter(loop)
        if self._cancel_on_enter:
            self.cancel(self._cancel_msg)
        return self

    async def __aenter__(self) -> Self:
        return self.enter()

    @property
    def exceptions(self) -> tuple[BaseException, ...]:
        """The unhandled errors of children so far, the first one first; empty after the exit.

        .. versionadded:: 0.1
        """
        return tuple(self._errors or ())

    @property
    def tasks(self) -> tuple[asyncio.Task[Any], ...]:
        """The children that run now, the foreground ones first, else in no particular order.

        Those that wait for their turn, in a group with a `concurrency_limit`, are not among them.

        .. versionadded:: 0.1
        """
        running = self._tasks
        if self._slots is not None:
            running = running - self._slots.waiting()
        return (*running, *(self._background or ()))

    def cancel(self, msg: object = None) -> None:
        """Stop the group: cancel its body and its children.

        The `async with` then ends without an error, unless something else has failed. Cancelling a
        group before it is entered cancels it on entry; cancelling it twice, or after its end, does
        nothing. As `asyncio.TaskGroup.cancel` of Python 3.15.

        Args:
            msg: What the `CancelledError` of the body and of the children carries, as with
                `asyncio.Task.cancel`.

        Raises:
            RuntimeError: If the call comes from another thread than the event loop's.

        .. versionadded:: 0.1
        """
        if not self._entered:
            self._cancel_on_enter = True
            self._cancel_msg = msg
        elif self._parent_task is not None:
            self._check_thread("cancel")
            if not self._aborting:
                self._cancel_msg = msg
            self._abort()
            self._cancel_parent(msg)

    async def finish(self, *, immediate: bool = False) -> bool:
        """Finish the group from outside of its `async with`: nothing of it is alive afterwards.

        Waits for the foreground children, cancels the background tasks and waits for them, as the
        exit does; from then on the group takes no children. Errors of children are not raised
        here: `__aexit__` raises them, and the first one cancels the parent task as ever, unless
        the children are being cancelled already. If the parent is cancelled while it waits, which
        includes that a child fails, the children are cancelled and awaited first. If another task
        is, the children are cancelled, and it does not wait for them.

        Args:
            immediate: Cancel the children instead of waiting for them; not the body.

        Returns:
            Whether any child has failed; `exceptions` tells how.

        Raises:
            RuntimeError: If a child of the group calls it: it would wait for itself. If the group
                was not entered.

        .. versionadded:: 0.1
        """
        if not self._entered:
            msg = f"TaskGroup {self!r} has not been entered"
            raise RuntimeError(msg)
        task, parent = current_task(), self._parent_task
        cancelled: CancelledError | None = None
        if task is not parent and self._may_be_eager():
            try:
                await asyncio.sleep(0)  # an eager child is known when its first step has ended
            except CancelledError as exc:
                if task in self.tasks:
                    raise
                self._abort()
                if not immediate:
                    raise
                cancelled = exc
        if task is not parent and (task in self._tasks or task in (self._background or ())):
            msg = f"{task!r} can't wait for the end of the TaskGroup that it is a child of"
            raise RuntimeError(msg)
        if immediate:
            self._abort()
        slots = self._slots
        lender: asyncio.Task[Any] | None = None
        try:
            while self._tasks or (self._background and self._dismiss()):
                if slots is not None and lender is None:
                    lender = cast("asyncio.Task[Any]", task)
                    slots.lend(lender)
                future = self._on_completed_fut
                if future is None or future.done():
                    future = self._on_completed_fut = self._loop.create_future()
                try:
                    if task is parent:
                        await future
                    else:
                        # Not the future itself: a cancelled waiter would cancel it for the parent.
                        await asyncio.wait((future,))
                except CancelledError as exc:
                    self._abort()
                    if task is not parent and not immediate:
                        # It may be a task of a child's, for which the child waits.
                        raise
                    cancelled = exc
            self._exiting = True
            self._spawns_in = False
            self._on_done = None
            if slots is not None:
                slots.detach()
            if cancelled is not None:
                raise cancelled
            if slots is not None and lender is not None:
                await slots.come_back(lender)
        finally:
            if slots is not None and lender is not None:
                slots.hurry_back(lender)
            del cancelled
        return bool(self._errors)

    async def __aexit__(  # type: ignore[override]  # typeshed's returns None
        self,
        et: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool:
        del tb
        parent, errors, slots = self._parent_task, self._errors, self._slots
        lender: asyncio.Task[Any] | None = None  # the parent, if it may have slots to lend
        try:
            # The cancellation to pass on in the end, and the last one that was seen on the way.
            outer = last = None
            if exc is not None:
                self._abort()
                if isinstance(exc, CancelledError):
                    outer = last = exc
                elif self._base_error is None and _is_base_error(exc):
                    self._base_error = exc
            while self._tasks or (self._background and self._dismiss()):
                if slots is not None and lender is None:
                    lender = parent
                    slots.lend(lender)
                future = self._on_completed_fut
                if future is None or future.done():
                    future = self._on_completed_fut = self._loop.create_future()
                try:
                    await future
                except CancelledError as cancelled:
                    last = cancelled
                    if not self._aborting:
                        outer = cancelled
                        self._abort()
            self._exiting = True
            self._spawns_in = False
            if slots is not None and lender is not None and last is None:
                try:
                    await slots.come_back(lender)
                except CancelledError as cancelled:
                    last = cancelled
                    if not self._aborting:
                        outer = cancelled
            if self._base_error is not None:  # KeyboardInterrupt or SystemExit
                self._report_all_but(self._base_error)
                raise self._base_error
            if self._parent_cancel_requested:
                last = await _undelivered(parent) or last
                if parent.uncancel() <= self._cancels_before:
                    outer = None  # it was ours
                    if slots is not None and lender is not None:
                        try:
                            await slots.come_back(lender)
                        except CancelledError as cancelled:
                            outer = cancelled
                elif outer is None:
                    outer = last
            if exc is not None and not isinstance(exc, CancelledError):
                errors.append(exc)
            if not errors:
                if outer is None or (self._is_told and parent.cancelling() <= self._cancels_before):
                    return True
                raise outer
            if parent.cancelling() > self._cancels_before and (
                NO_LEAKS or last is not None or _follows_cancel(exc)
            ):
                # Errors go first, but the outer cancellation is not lost: the next await raises it.
                if last is not None:
                    self._cancel_args = last.args
                self._pass_on_cancel(parent)
            if len(errors) == 1 and isinstance(exc, GeneratorExit):
                raise exc  # an async generator that is closed must see it as it is
            message = "unhandled errors in a TaskGroup"
            raise BaseExceptionGroup(message, errors) from None
        finally:
            # Exceptions are heavy, and a frame that keeps one makes a reference cycle of it. Who
            # asks for one of these after the end has no use for their types.
            self._parent_task = self._errors = self._base_error = None  # type: ignore[assignment]
            self._on_done = None  # it refers to the group
            if slots is not None:
                slots.detach()
                if lender is not None:
                    slots.hurry_back(lender)
            del exc, outer, last, errors, parent, lender

    # How children are made

    def _create_with_care(
        self,
        coro: CoroutineOrFunction[T],
        *,
        name: str | None,
        context: Context | None,
        **kwargs: Any,
    ) -> asyncio.Task[T]:
        """Create a task in a group with a limit, or of a function, or raise what is wrong."""
        slots = self._slots
        if (
            slots is None
            or not self._entered
            or self._aborting
            or self._exiting
            or _get_running_loop() is not self._loop
            or coro.__class__ is not CoroutineType
        ):
            self._check_open(coro, "create_task")
        if slots is None:
            task = self._make(coro, name=name, context=context, **kwargs)
            task.add_done_callback(self._on_task_done)
            self._tasks.add(task)
            self._register(task)
            return task
        if slots.take():
            # Taken before the task is made: an eager one may come back here at once.
            try:
                task = self._make(coro, name=name, context=context, **kwargs)
            except BaseException:
                slots.drop()
                raise
            task.add_done_callback(self._on_limited_task_done)
            self._tasks.add(task)
            self._register(task)
            slots.add_holder(task)
            return task
        try:
            if kwargs:
                check_options(kwargs)
            slots.check_room()
        except BaseException:
            close(coro)
            raise
        turn = Turn(coro, slots, self._loop)
        task = turn.make_task(name, context)
        self._tasks.add(task)
        self._register(task)
        turn.line_up()
        return task

    def _may_be_eager(self) -> bool:
        """Whether the current task may be a child that the group does not know yet."""
        # From 3.12 on any loop may start a task at once; a task factory always could.
        return EAGER or self._loop.get_task_factory() is not None

    def _make(
        self,
        coro: CoroutineOrFunction[T],
        *,
        name: str | None,
        context: Context | None,
        **kwargs: Any,
    ) -> asyncio.Task[T]:
        coro = self._coroutine_of(coro)
        loop = self._loop
        try:
            has_factory = loop.get_task_factory() is not None
            if self._is_direct and not kwargs and not has_factory:
                return asyncio_tasks.Task(coro, loop=loop, name=name, context=context)
            task = loop.create_task(coro, name=name, context=context, **kwargs)
        except BaseException:
            coro.close()
            raise
        if has_factory:
            close_wrapped(task, coro)
        return task

    # What the children report

    def _on_task_done(self, task: asyncio.Task[Any]) -> None:
        tasks = self._tasks
        tasks.discard(task)
        if not tasks:
            future = self._on_completed_fut
            if future is not None and not future.done():
                future.set_result(None)
        if CALL_GRAPH or task.cancelled() or task.exception() is not None:
            self._settle(task)

    def _on_background_task_done(self, task: asyncio.Task[Any]) -> None:
        assert self._background is not None
        del self._background[task]
        if not self._background and not self._tasks:
            self._wake()
        self._settle(task)

    def _settle(self, task: asyncio.Task[Any]) -> None:
        if CALL_GRAPH:
            asyncio.future_discard_from_awaited_by(task, self._parent_task)  # type: ignore[attr-defined,unused-ignore]  # of 3.14
        error = self._error_of(task)
        if error is not None:
            self._fail(error, task)

    def _error_of(self, task: asyncio.Task[Any]) -> BaseException | None:
        """Return the error of a child that is done; None if it has none, or was cancelled."""
        return None if task.cancelled() else task.exception()

    def _fail(self, error: BaseException, task: asyncio.Task[Any] | None = None) -> None:
        """Abort the group with the error of a child, or with what has kept one from starting."""
        self._errors.append(error)
        if self._base_error is None and _is_base_error(error):
            self._base_error = error
        parent = self._parent_task
        if parent.done():
            # Only a group that was opened with enter() can outlive the task of its body.
            who = "a child" if task is None else repr(task)
            message = f"{who} has failed after {parent!r}, the parent of its TaskGroup, was done"
            report: dict[str, Any] = {"message": message, "exception": error}
            self._loop.call_exception_handler(report if task is None else {**report, "task": task})
            self._abort()
        elif not self._aborting:
            self._abort()
            self._tell_body(task)

    def _on_limited_task_done(self, task: asyncio.Task[Any]) -> None:
        slots = self._slots
        assert slots is not None
        if task.cancelled() or task.exception() is None:
            slots.give_back(task)
            self._on_task_done(task)
        else:
            # The error aborts the group before the slot is handed on: nothing starts after it (C6).
            self._on_task_done(task)
            slots.give_back(task)

    def _on_turn_done(self, task: asyncio.Task[Any]) -> None:
        # A turn never ends in its first step, so `get_coro` is safe: see cpython 122332.
        slots, turn = self._slots, cast("Turn[Any]", task.get_coro())
        assert slots is not None
        turn.slots = None  # who keeps the task keeps no group
        if task.cancelled() or task.exception() is None:
            slots.give_back(task)
            self._on_task_done(task)
        else:
            self._on_task_done(task)
            slots.give_back(task)

    # Steps

    def _tell_body(self, task: asyncio.Task[Any] | None) -> None:
        """Interrupt the body, since a child has failed. None if it could not be started."""
        del task
        self._cancel_parent()

    def _take_back_cancel(self, failure: BaseException) -> bool:
        """Take back the cancellation, if any, that tells the current task of a child's failure.

        Tells whether `gather` and `map` raise *failure* instead: a task group of the standard
        library's kind cancels its body, and leaves it at that.
        """
        del failure
        return False

    def _pass_on_cancel(self, parent: asyncio.Task[Any]) -> None:
        """See to it that the next await of the parent raises a cancellation from outside."""
        if sys.version_info >= (3, 13):  # pragma: no cover (of the newest, if combined)
            _cancel_again(parent, self._cancel_args)
        else:
            # Before 3.13, uncancel() by a timeout around us would not take it back.
            self._loop.call_soon(_cancel_again, parent, self._cancel_args)

    def _note_cancels(self) -> None:
        """Take note of the cancellations of the parent that it has seen."""
        parent = self._parent_task
        waiter = getattr(parent, "_fut_waiter", None)
        # What it awaits may be a task, which ends when it has cleaned up, or a gather of some.
        is_due = getattr(parent, "_must_cancel", False) or (
            waiter is not None
            and (
                waiter.cancelled()
                or getattr(waiter, "_cancel_requested", False)
                or (isinstance(waiter, asyncio.Task) and waiter.cancelling())
            )
        )
        if not is_due:
            self._cancels_before = parent.cancelling()

    def _cancel_parent(self, msg: object = None) -> None:
        """Cancel the task of the body, once: after its thread, if it waits for one."""
        parent = self._parent_task
        if self._parent_cancel_requested or parent is None:
            return
        cancel_it = partial(self._cancel_parent, msg)
        if not (after_thread(parent, cancel_it) or self._after_clean_up(parent, cancel_it)):
            self._parent_cancel_requested = True
            parent.cancel(msg)

    def _cancel_child(self, task: asyncio.Task[Any]) -> None:
        """Cancel a child that is not done; the group does that once."""
        cancel(task, self._cancel_msg)

    def _cancel_children(self, tasks: Iterable[asyncio.Task[Any]]) -> None:
        """Cancel children that are not done, each once."""
        children = self._tasks.union(self._background or ())
        is_only = len(children) == 1
        for task in tasks:
            found = None if is_only else cut_short(task, children)
            if found is None:
                self._cancel_child(task)
            else:
                self._call_after(found, task, partial(self._cancel_child, task))

    def _waits_for_child(self, task: asyncio.Task[Any]) -> bool:
        """Whether a task sees that the children are cancelled, as it waits for some."""
        children = self._tasks.union(self._background or ())
        return bool(children) and not waits_for(task).isdisjoint(children)

    def _after_clean_up(
        self, task: asyncio.Task[Any], cancel_it: Callable[[], None], *, late: bool = False
    ) -> bool:
        """Call back when a child has ended whose clean-up is cut if *task* is cancelled now.

        Nothing is called if *task* has seen by then that the child was cancelled.

        Args:
            task: Who is to be cancelled.
            cancel_it: What is called.
            late: Whether the children were cancelled before this turn of the loop.

        Returns:
            Whether there is such a child: otherwise nothing is called.
        """
        children = self._tasks.union(self._background or ())
        found = cut_short(task, children, late=late) if self._aborting and children else None
        if found is not None:
            self._call_after(found, task, cancel_it)
        return found is not None

    def _call_after(
        self,
        found: tuple[asyncio.Task[Any], bool],
        task: asyncio.Task[Any],
        cancel_it: Callable[[], None],
    ) -> None:
        child, tells = found

        def ended(_: object) -> None:
            if not (tells and was_cancelled(child)):
                cancel_it()
            elif task is self._parent_task:
                self._is_told = True

        child.add_done_callback(ended)

    def _wake(self) -> None:
        future = self._on_completed_fut
        if future is not None and not future.done():
            future.set_result(None)

    def _dismiss(self) -> bool:
        """Cancel the background tasks, each once. Tells that the group has to wait for them."""
        assert self._background is not None
        due = [task for task, dismissed in self._background.items() if not dismissed]
        for task in due:
            self._background[task] = True
        self._cancel_children([task for task in due if not task.done()])
        return True

    def _dismiss_one(self, task: asyncio.Task[Any]) -> None:
        """Cancel a background task, unless the group or somebody else has done so by this way."""
        if self._background is not None and self._background.get(task) is False:
            self._background[task] = True
            if not task.done():
                self._cancel_child(task)

    def _background_tasks(self) -> dict[asyncio.Task[Any], bool]:
        """Return the background tasks, and whether each is dismissed: the same object for ever."""
        if self._background is None:
            self._background = {}
        return self._background

    def _abort(self) -> None:
        """Cancel all children; take no more of them. The body is somebody else's to cancel."""
        if self._aborting:
            return
        self._aborting = True
        self._spawns_in = False
        withdrawn = self._withdrawn
        due = [
            task
            for task in self._tasks
            # One that is done may be an eager one of which the group was not told yet.
            if not task.done() and (withdrawn is None or task not in withdrawn)
        ]
        background = self._background or {}
        for task, dismissed in background.items():
            if not dismissed:
                background[task] = True
                due += () if task.done() else (task,)
        self._cancel_children(due)

    def _withdraw(self, task: asyncio.Task[Any]) -> None:
        """Cancel a child whose `gather` is cancelled: the group does not do so again."""
        if self._withdrawn is None:
            self._withdrawn = WeakSet()
        self._withdrawn.add(task)
        cancel(task)

    def _register(self, task: asyncio.Task[Any]) -> None:
        """Do for a new child what only some need: it is rare that any of it is to do."""
        if CALL_GRAPH:
            asyncio.future_add_to_awaited_by(task, self._parent_task)  # type: ignore[attr-defined,unused-ignore]  # of 3.14
        if self._aborting:
            # An eager child has run already, and has cancelled the group that did not know it yet.
            task.cancel()
        if self._exiting and self._slots is None:
            # So has this one, and has finished it: the exit waits for what is left of the child.
            self._on_done = self._on_task_done

    def _register_background(self, task: asyncio.Task[Any]) -> None:
        if self._background is None:
            self._background = {}
        self._background[task] = False
        task.add_done_callback(self._on_background_task_done)
        if self._aborting:
            self._background[task] = True
        self._register(task)
        if not self._tasks:
            self._wake()  # the exit may be waiting for other background tasks: here is a new one

    def _report_all_but(self, error: BaseException) -> None:
        """Log the errors that give way to a KeyboardInterrupt or SystemExit (cpython 135736)."""
        message = f"a child of a TaskGroup failed, but its error gave way to {error!r}"
        for other in self._errors:
            if other is not error:
                self._loop.call_exception_handler({"message": message, "exception": other})

    # Refusals

    def _check_open(self, child: CoroutineOrFunction[Any], method: str) -> None:
        """Raise RuntimeError if the group takes no children now, or not from here."""
        check_child(child)
        try:
            self._check_state()
            self._check_thread(method)
        except RuntimeError:
            if self._closes_refused or (self._entered and not self._is_here()):
                close(child)
            raise

    def _check_state(self) -> None:
        if not self._entered:
            msg = f"TaskGroup {self!r} has not been entered"
        elif self._exiting:
            msg = f"TaskGroup {self!r} is finished{self._way_out}"
        elif self._aborting:
            msg = f"TaskGroup {self!r} is shutting down"
        else:
            return
        raise RuntimeError(msg)

    def _is_here(self) -> bool:
        return _get_running_loop() is self._loop

    def _check_thread(self, method: str) -> None:
        if not self._is_here():
            thread = threading.current_thread().name
            raise RuntimeError(_WRONG_THREAD.format(thread=thread, method=method))


def _is_base_error(error: BaseException) -> bool:
    """Tell whether the error ends the program, and so leaves the group as itself."""
    return isinstance(error, (KeyboardInterrupt, SystemExit))


def _follows_cancel(exc: BaseException | None) -> bool:
    """Tell whether an error was raised while a cancellation was being handled."""
    seen = set()
    while exc is not None and id(exc) not in seen:
        if isinstance(exc, CancelledError):
            return True
        seen.add(id(exc))
        exc = exc.__context__
    return False


def _cancel_again(task: asyncio.Task[Any], args: tuple[Any, ...]) -> None:
    """Deliver a cancellation anew, without counting it twice, if nobody has answered for it.

    It carries what it carried before: a cancel scope of anyio's knows its own by that.
    """
    if task.cancelling() and not task.done():
        task.uncancel()
        task.cancel(*args[:1])


async def _undelivered(task: asyncio.Task[Any]) -> CancelledError | None:
    """Take in a cancellation that the current task was asked for and has not met yet.

    From 3.13 on, uncancel() takes it back. Before, the first await after the group would raise it.
    """
    if sys.version_info < (3, 13) and getattr(task, "_must_cancel", False):
        try:
            await asyncio.sleep(0)
        except CancelledError as exc:
            return exc
    return None


_WRONG_THREAD = (
    "TaskGroup.{method} was called in thread {thread!r}, which is not that of its event loop. Call "
    "anyio.from_thread.run_sync(group.{method}, ...) instead in a thread that anyio started, such "
    "as that of a def endpoint of Starlette or FastAPI (or make the endpoint async def), and "
    "loop.call_soon_threadsafe(group.{method}, ...) in any other."
)
