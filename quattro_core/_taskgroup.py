"""The task group."""

from __future__ import annotations

import asyncio
import sys
from asyncio import CancelledError, current_task, get_running_loop

# Not by its own name: CPython calls no method in its quick way on a local of an imported name.
from asyncio import tasks as asyncio_tasks
from asyncio.events import _get_running_loop
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable
from contextvars import Context
from functools import partial
from types import CoroutineType, TracebackType
from typing import Any, Literal, Never, ParamSpec, Self, TypeVar, cast, overload
from weakref import WeakSet

from quattro_core._cleanups import cut_short, waits_alone
from quattro_core._deadlock import LimitDeadlockError
from quattro_core._gather import gather
from quattro_core._limits import (
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
    Gathered,
    NotHere,
    check_child,
    close,
    close_wrapped,
    coroutine_of,
    refuse_arguments,
    schema_or_way_out,
)
from quattro_core._threads import after_thread, was_cancelled
from quattro_core._workers import (
    EACH,
    NO_WORKER,
    NotAWorkerError,
    TaskFuture,
    call_in_loop,
    elsewhere,
    process_child,
    thread_child,
)

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")
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
    (`create_task`). Its background tasks (`create_background_task`) keep running meanwhile, so that
    a child can rely on them until it ends. When no foreground child is left, the group cancels the
    background tasks and waits for their clean-up. No task outlives the group.

    An unhandled error in the body or in a child cancels all the others, each once, and the group
    raises it in an `ExceptionGroup`.

    Args:
        concurrency_limit: How many foreground children may run at once; the others wait for their
            turn, first come, first served. None means no limit. Background tasks don't count. If
            every running child awaits one that can't begin, as in ``await group.create_task(...)``,
            the group fails with a `LimitDeadlockError`.
        shared_limit: A limit that this group shares with others. None means no limit.

    Raises:
        TypeError: If *concurrency_limit* is not an int, or *shared_limit* is not a `SharedLimit`.
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
    _told: Callable[[], bool] = staticmethod(lambda: False)
    # Children that a gather has cancelled.
    _withdrawn: WeakSet[asyncio.Task[Any]] | None = None
    # Children that a gather was given, and whose errors are its results; and those that run what
    # returns its errors, so that what they await may fail.
    _returned: WeakSet[asyncio.Task[Any]] | None = None
    _returning: set[asyncio.Task[Any]] | None = None
    # Before 3.13 the standard library leaves a coroutine that it refuses to the caller, who may
    # await it. A group that was opened by `enter` is no drop-in for one, and never does.
    _closes_refused = sys.version_info >= (3, 13)
    # What the task of a child runs, which a subclass may put something around.
    _coroutine_of = staticmethod(coroutine_of)
    # What the error of a group that has ended says more: a subclass may know a way out.
    _way_out = ""
    # What the error of one that is entered again says more.
    _is_open = ""
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
        *args: Never,
        name: str | None = None,
        context: Context | None = None,
        **kwargs: Any,
    ) -> asyncio.Task[T]:
        """Create a task that the group waits for.

        Args:
            coro: A coroutine, or a function without arguments that returns one. The task calls the
                function when it starts; if the function raises, the child fails.
            *args: Not allowed: a `TypeError` says how to pass them to the function.
            name: The name of the task.
            context: The context that the task runs in; None means a copy of the current one.
            **kwargs: Any other argument of `asyncio.loop.create_task` in the running Python, such
                as `eager_start` in 3.14.

        Returns:
            The task. In a group with a limit it may still be waiting for its turn; if it is
            cancelled meanwhile, it never starts. A waiting task is not created by the event loop's
            task factory. In a worker thread, such as that of a ``def`` endpoint, this returns a
            `TaskFuture` instead, which the thread can wait for; the child sees the thread's context
            variables.

        Raises:
            RuntimeError: If the group is not open: not entered, finished, or shutting down after an
                error; if too many children wait for the `shared_limit` (`TooManyWaitingError`); or
                in a thread that no task of the event loop waits for. The coroutine is closed.
            asyncio.CancelledError: In a worker thread, if the group has failed or was cancelled:
                then the task that waits for the thread is cancelled too.
            TypeError: If *coro* is neither, or a keyword argument is unknown.

        .. versionadded:: 0.1
        """
        if args:
            refuse_arguments("create_task", coro, args)
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
        *args: Never,
        name: str | None = None,
        context: Context | None = None,
        **kwargs: Any,
    ) -> asyncio.Task[T]:
        """Create a task that helps the others, such as one that moves items between queues.

        The group does not wait for the task to finish: it cancels the task when no foreground child
        is left, and waits for its clean-up. An unhandled error aborts the group, as in any child.
        The task does not count against the `concurrency_limit`.

        Takes the same arguments as `create_task`, returns the same and raises the same errors.

        .. versionadded:: 0.1
        """
        if args:
            refuse_arguments("create_background_task", coro, args)
        loop = self._spawns_in
        task: asyncio.Task[T]
        if _get_running_loop() is not loop or coro.__class__ is not CoroutineType:
            # It may be all right all the same: in a group with a limit, or if it is a function.
            if self._entered and not self._is_here():
                create = partial(
                    self.create_background_task, coro, name=name, context=context, **kwargs
                )
                return self._create_elsewhere(coro, create, "create_background_task")
            self._check_open(coro)
        elif context is None and not kwargs and self._is_direct and not loop.get_task_factory():
            task = asyncio_tasks.Task(self._coroutine_of(coro), loop=loop, name=name)
            self._register_background(task)
            return task
        task = self._make(coro, name=name, context=context, **kwargs)
        self._register_background(task)
        return task

    # Of up to eight calls each result has its own type.
    @overload
    async def gather(self, *, return_exceptions: bool = False) -> tuple[()]: ...
    @overload
    async def gather(
        self,
        coro1: Gathered[T1],
        /,
        *,
        return_exceptions: Literal[False] = False,
    ) -> tuple[T1]: ...
    @overload
    async def gather(
        self,
        coro1: Gathered[T1],
        coro2: Gathered[T2],
        /,
        *,
        return_exceptions: Literal[False] = False,
    ) -> tuple[T1, T2]: ...
    @overload
    async def gather(
        self,
        coro1: Gathered[T1],
        coro2: Gathered[T2],
        coro3: Gathered[T3],
        /,
        *,
        return_exceptions: Literal[False] = False,
    ) -> tuple[T1, T2, T3]: ...
    @overload
    async def gather(
        self,
        coro1: Gathered[T1],
        coro2: Gathered[T2],
        coro3: Gathered[T3],
        coro4: Gathered[T4],
        /,
        *,
        return_exceptions: Literal[False] = False,
    ) -> tuple[T1, T2, T3, T4]: ...
    @overload
    async def gather(
        self,
        coro1: Gathered[T1],
        coro2: Gathered[T2],
        coro3: Gathered[T3],
        coro4: Gathered[T4],
        coro5: Gathered[T5],
        /,
        *,
        return_exceptions: Literal[False] = False,
    ) -> tuple[T1, T2, T3, T4, T5]: ...
    @overload
    async def gather(
        self,
        coro1: Gathered[T1],
        coro2: Gathered[T2],
        coro3: Gathered[T3],
        coro4: Gathered[T4],
        coro5: Gathered[T5],
        coro6: Gathered[T6],
        /,
        *,
        return_exceptions: Literal[False] = False,
    ) -> tuple[T1, T2, T3, T4, T5, T6]: ...
    @overload
    async def gather(
        self,
        coro1: Gathered[T1],
        coro2: Gathered[T2],
        coro3: Gathered[T3],
        coro4: Gathered[T4],
        coro5: Gathered[T5],
        coro6: Gathered[T6],
        coro7: Gathered[T7],
        /,
        *,
        return_exceptions: Literal[False] = False,
    ) -> tuple[T1, T2, T3, T4, T5, T6, T7]: ...
    @overload
    async def gather(
        self,
        coro1: Gathered[T1],
        coro2: Gathered[T2],
        coro3: Gathered[T3],
        coro4: Gathered[T4],
        coro5: Gathered[T5],
        coro6: Gathered[T6],
        coro7: Gathered[T7],
        coro8: Gathered[T8],
        /,
        *,
        return_exceptions: Literal[False] = False,
    ) -> tuple[T1, T2, T3, T4, T5, T6, T7, T8]: ...
    @overload
    async def gather(
        self,
        coro1: Gathered[T1],
        /,
        *,
        return_exceptions: Literal[True],
    ) -> tuple[T1 | Exception]: ...
    @overload
    async def gather(
        self,
        coro1: Gathered[T1],
        coro2: Gathered[T2],
        /,
        *,
        return_exceptions: Literal[True],
    ) -> tuple[T1 | Exception, T2 | Exception]: ...
    @overload
    async def gather(
        self,
        coro1: Gathered[T1],
        coro2: Gathered[T2],
        coro3: Gathered[T3],
        /,
        *,
        return_exceptions: Literal[True],
    ) -> tuple[T1 | Exception, T2 | Exception, T3 | Exception]: ...
    @overload
    async def gather(
        self,
        coro1: Gathered[T1],
        coro2: Gathered[T2],
        coro3: Gathered[T3],
        coro4: Gathered[T4],
        /,
        *,
        return_exceptions: Literal[True],
    ) -> tuple[T1 | Exception, T2 | Exception, T3 | Exception, T4 | Exception]: ...
    @overload
    async def gather(
        self,
        coro1: Gathered[T1],
        coro2: Gathered[T2],
        coro3: Gathered[T3],
        coro4: Gathered[T4],
        coro5: Gathered[T5],
        /,
        *,
        return_exceptions: Literal[True],
    ) -> tuple[T1 | Exception, T2 | Exception, T3 | Exception, T4 | Exception, T5 | Exception]: ...
    @overload
    async def gather(
        self,
        coro1: Gathered[T1],
        coro2: Gathered[T2],
        coro3: Gathered[T3],
        coro4: Gathered[T4],
        coro5: Gathered[T5],
        coro6: Gathered[T6],
        /,
        *,
        return_exceptions: Literal[True],
    ) -> tuple[
        T1 | Exception,
        T2 | Exception,
        T3 | Exception,
        T4 | Exception,
        T5 | Exception,
        T6 | Exception,
    ]: ...
    @overload
    async def gather(
        self,
        coro1: Gathered[T1],
        coro2: Gathered[T2],
        coro3: Gathered[T3],
        coro4: Gathered[T4],
        coro5: Gathered[T5],
        coro6: Gathered[T6],
        coro7: Gathered[T7],
        /,
        *,
        return_exceptions: Literal[True],
    ) -> tuple[
        T1 | Exception,
        T2 | Exception,
        T3 | Exception,
        T4 | Exception,
        T5 | Exception,
        T6 | Exception,
        T7 | Exception,
    ]: ...
    @overload
    async def gather(
        self,
        coro1: Gathered[T1],
        coro2: Gathered[T2],
        coro3: Gathered[T3],
        coro4: Gathered[T4],
        coro5: Gathered[T5],
        coro6: Gathered[T6],
        coro7: Gathered[T7],
        coro8: Gathered[T8],
        /,
        *,
        return_exceptions: Literal[True],
    ) -> tuple[
        T1 | Exception,
        T2 | Exception,
        T3 | Exception,
        T4 | Exception,
        T5 | Exception,
        T6 | Exception,
        T7 | Exception,
        T8 | Exception,
    ]: ...
    @overload
    async def gather(
        self, *coros: Gathered[T], return_exceptions: Literal[False] = False
    ) -> tuple[T, ...]: ...
    @overload
    async def gather(
        self, *coros: Gathered[T], return_exceptions: bool
    ) -> tuple[T | Exception, ...]: ...
    def gather(
        self, *coros: Gathered[Any], return_exceptions: bool = False
    ) -> Coroutine[Any, Any, tuple[Any, ...]]:
        """Run several coroutines as children of the group, and return their results in that order.

        ::

            user, cart = await group.gather(get_user(), get_cart())

        If one of them fails, the group is aborted, as with any child: the caller and the other
        children are cancelled. If the caller is cancelled, so are the children. None of them is
        alive once this has returned or raised.

        Args:
            *coros: Coroutines, or functions that return one, as for `create_task`; or running
                children of this group, as returned by `create_task`, `run_in_thread` and
                `run_in_process`. A child that calls this lends its slot of the group's limits to
                the queue while it waits. It takes a slot again, ahead of the queue, before it
                continues; if it is cancelled, it continues at once.
            return_exceptions: If true, a child that raises an `Exception` has that exception as its
                result; the others keep running, and the group is not aborted. Nor is it aborted by
                another child that such a child awaits. If only the child was cancelled, neither the
                caller nor the group, its result is a `RuntimeError` that says so. Errors that a
                child raises because the caller or the group was cancelled still abort the group, as
                do `KeyboardInterrupt`, `SystemExit` and `LimitDeadlockError`.

        Returns:
            A tuple of the results.

        Raises:
            RuntimeError: As with `create_task`, and in every other thread. Coroutines that have not
                started are closed; those that have are cancelled.
            TypeError: If one of *coros* is none of these; then none is started.
            BaseException: The error of a child, or `asyncio.CancelledError` if a child was
                cancelled, as if its task were awaited. Only callers outside the group see this.

        .. versionadded:: 0.1
        """
        if _get_running_loop() is not self._loop and self._is_elsewhere():
            for coro in coros:
                close(coro)
            raise RuntimeError(elsewhere("gather", EACH))
        return gather(self, coros, return_exceptions=return_exceptions)

    def run_in_thread(
        self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Task[R]:
        """Call a blocking function in a thread, as a child of the group.

        ::

            report = await group.run_in_thread(read_report, path)

        A thread can't be cancelled, so the group waits for it: a cancelled child ends when its
        function has returned, and nothing that the function uses is closed before that. If the
        function has not begun when the child is cancelled, it is never called. If it raises, the
        child fails, even after a cancellation.

        Args:
            function: The function. It sees the caller's context variables, and may call the group's
                `create_task`.
            *args: Its arguments.
            **kwargs: Its keyword arguments.

        Returns:
            A task like that of `create_task`, subject to the group's limits: await it, or pass it
            to `gather`. The threads are those of `asyncio.to_thread`.

        Raises:
            RuntimeError: As with `create_task`.
            TypeError: If *function* is not callable, or is a coroutine function.

        .. versionadded:: 0.1
        """
        return self._create_own(thread_child(function, args, kwargs))

    def run_in_process(
        self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Task[R]:
        """Call a CPU-bound function in another process, as a child of the group.

        ::

            thumbnail = await group.run_in_process(shrink, picture, width=200)

        If the child is cancelled, its process is killed at once, wherever it is. The processes are
        those of `anyio.to_process`, as many as the machine has processors; they are reused, and end
        with the event loop.

        Args:
            function: A function at the top level of a module, or a method. The function, its
                arguments and its result are pickled.
            *args: Its arguments.
            **kwargs: Its keyword arguments.

        Returns:
            A task like that of `create_task`, subject to the group's limits: await it, or pass it
            to `gather`. It fails with `anyio.BrokenWorkerProcess` if the process dies.

        Raises:
            ModuleNotFoundError: If anyio is not installed; quattro-web's own dependencies include
                it.
            RuntimeError: As with `create_task`.
            TypeError: If *function* is not callable, or is a coroutine function.

        .. versionadded:: 0.1
        """
        return self._create_own(process_child(function, args, kwargs))

    @overload
    def map(
        self,
        function: Callable[[T], Coroutine[Any, Any, R] | asyncio.Task[R]],
        iterable: Iterable[T] | AsyncIterable[T],
        *,
        limit: int,
        ordered: bool = False,
        return_exceptions: Literal[False] = False,
    ) -> MapResults[R]: ...
    @overload
    def map(
        self,
        function: Callable[[T], Coroutine[Any, Any, R] | asyncio.Task[R]],
        iterable: Iterable[T] | AsyncIterable[T],
        *,
        limit: int,
        ordered: bool = False,
        return_exceptions: bool,
    ) -> MapResults[R | Exception]: ...
    def map(
        self,
        function: Callable[[T], Coroutine[Any, Any, R] | asyncio.Task[R]],
        iterable: Iterable[T] | AsyncIterable[T],
        *,
        limit: int,
        ordered: bool = False,
        return_exceptions: bool = False,
    ) -> MapResults[Any]:
        """Call a coroutine function for every item, a few at a time, and iterate over the results.

        ::

            async for page in group.map(fetch, urls, limit=10): ...

        Items are pulled only when there is room: at most twice *limit* items have been pulled
        without their results having been consumed, however slow the consumer is. The work begins
        and ends with the iteration. Background tasks of the group make the calls, so the group does
        not wait for them, and they don't count against its `concurrency_limit`. Each of these tasks
        makes one call after the other in one copy of the current context: a context variable that a
        call sets may be seen by later calls. A child that waits for a result lends its slot of the
        group's limits meanwhile, as with `gather`.

        An error in a call, or in the iterable, aborts the group, as in any child.

        Args:
            function: A coroutine function of one argument, or one that returns a task, such as
                ``lambda picture: group.run_in_process(shrink, picture)``.
            iterable: The items, as an iterable or an asynchronous iterable. It is not closed.
            limit: How many calls may run at once.
            ordered: Whether results come in the order of the items; by default they come as they
                are ready.
            return_exceptions: If true, a call that raises an `Exception` has that exception as its
                result, as with `gather`. An error in the iterable still aborts the group.

        Returns:
            The results: iterate over them with ``async for``, or await them for a list in the order
            of the items. Leaving the loop early and dropping the iterator cancels the running
            calls; ``async with`` also waits for their clean-up.

        Raises:
            RuntimeError: If the group is not open, or if the call comes from another thread than
                the event loop's.
            TypeError: If *function* is not callable, *iterable* can't be iterated over, or *limit*
                is not an int.
            ValueError: If *limit* is below 1.

        .. versionadded:: 0.1
        """
        self._check_state()
        if not self._is_here():
            raise RuntimeError(elsewhere("map", EACH))
        checked_limit("limit", limit, optional=False)
        if not callable(function):
            msg = f"function must be a coroutine function of one argument, got {function!r}"
            raise TypeError(msg)
        run: MapRun[Any, Any] = MapRun(
            self,
            function,
            iterable,
            limit=limit,
            ordered=ordered,
            return_exceptions=return_exceptions,
        )
        return MapResults(run)

    start_soon: NotHere = NotHere("create_task(function(...)), which takes a coroutine")
    start: NotHere = NotHere(
        "create_task(function(...)), and have it set an asyncio.Event that you await"
    )

    # Opening, ending, looking at it

    def enter(self, parent_task: asyncio.Task[Any] | None = None) -> Self:
        """Open the group as `async with` does, for code that can't use such a block.

        The caller must make sure that `__aexit__` is awaited, in *parent_task*.

        Args:
            parent_task: The task that runs the body of the group; it is cancelled when a child
                fails. None means the current task.

        Raises:
            RuntimeError: If the group was entered before, if there is no parent task, or if the
                parent task runs in another event loop.

        .. versionadded:: 0.1
        """
        if self._entered:
            msg = f"TaskGroup {self!r} has already been entered{self._is_open}"
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
        """The unhandled errors of children so far, oldest first; empty after the exit.

        .. versionadded:: 0.1
        """
        return tuple(self._errors or ())

    @property
    def tasks(self) -> tuple[asyncio.Task[Any], ...]:
        """The running children: foreground children first, otherwise in no particular order.

        Children that wait for a slot of a limit are not included.

        .. versionadded:: 0.1
        """
        running = self._tasks
        if self._slots is not None:
            running = running - self._slots.waiting()
        return (*running, *(self._background or ()))

    def cancel(self, msg: object = None) -> None:
        """Stop the group: cancel its body and its children.

        The `async with` then ends without an error, unless something else fails. Cancelling a group
        before it is entered cancels it on entry; cancelling it twice, or after its end, does
        nothing. Works like `asyncio.TaskGroup.cancel` in Python 3.15.

        Args:
            msg: The message of the `CancelledError` in the body and the children, as with
                `asyncio.Task.cancel`.

        Raises:
            RuntimeError: If the call comes from another thread than the event loop's.

        .. versionadded:: 0.1
        """
        if not self._entered:
            self._cancel_on_enter = True
            self._cancel_msg = msg
        elif self._parent_task is not None:
            if not self._is_here():
                raise RuntimeError(
                    elsewhere("cancel", "call loop.call_soon_threadsafe(group.cancel, ...)")
                )
            if not self._aborting:
                self._cancel_msg = msg
            self._abort()
            self._cancel_parent(msg)

    async def finish(self, *, immediate: bool = False) -> bool:
        """Finish the group from outside its `async with`: none of its tasks is alive afterwards.

        Like the exit, this waits for the foreground children, then cancels the background tasks and
        waits for them; the group takes no more children. Errors of children are not raised here:
        `__aexit__` raises them, and the first one cancels the parent task as usual, unless the
        children are being cancelled already. If the parent calls this and is cancelled while it
        waits, for example because a child fails, it cancels the children and waits for them first.
        If another task calls this and is cancelled, it cancels the children, but does not wait for
        them.

        Args:
            immediate: Whether to cancel the children instead of letting them finish. The body is
                not cancelled.

        Returns:
            Whether any child has failed; `exceptions` has the errors.

        Raises:
            RuntimeError: If a child of the group calls it, which would wait for itself; or if the
                group was not entered.

        .. versionadded:: 0.1
        """
        if not self._entered:
            msg = f"TaskGroup {self!r} has not been entered"
            raise RuntimeError(msg)
        task, parent = cast("asyncio.Task[Any]", current_task()), self._parent_task
        cancelled: CancelledError | None = None
        if task is not parent:
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
        try:
            while self._tasks or (self._background and self._dismiss()):
                if slots is not None:
                    slots.lend(task)
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
            self._on_done = None  # it refers to the group
            if slots is not None:
                slots.detach()
            if cancelled is not None:
                raise cancelled
            if slots is not None:
                await slots.come_back(task)
        finally:
            if slots is not None:
                slots.hurry_back(task)
            del cancelled, task, parent  # what they end with may refer to this frame
        return bool(self._errors)

    async def __aexit__(  # type: ignore[override]  # typeshed's returns None
        self,
        et: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool:
        del tb
        parent, errors, slots = self._parent_task, self._errors, self._slots
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
                if slots is not None:
                    slots.lend(parent)
                future = self._on_completed_fut
                if future is None or future.done():
                    future = self._on_completed_fut = self._loop.create_future()
                try:
                    await future
                except CancelledError as cancelled:
                    if last is None or cancelled.args:  # the group's may come later, without any
                        last = cancelled
                    if not self._aborting:
                        outer = cancelled
                        self._abort()
            self._exiting = True
            self._spawns_in = False
            if slots is not None and last is None:
                try:
                    await slots.come_back(parent)
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
                    if slots is not None:
                        try:
                            await slots.come_back(parent)
                        except CancelledError as cancelled:
                            outer = cancelled
                elif outer is None:
                    outer = last
            # The body may raise what a child has failed with, out of `gather` for instance.
            is_known = exc is None or any(error is exc for error in errors)
            if exc is not None and not (is_known or isinstance(exc, CancelledError)):
                errors.append(exc)
            if not errors:
                if outer is None or (self._told() and parent.cancelling() <= self._cancels_before):
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
                slots.hurry_back(parent)
            del exc, outer, last, errors, parent

    # How children are made

    def _create_own(self, coro: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Create a task of a coroutine that nobody else knows, and that bears a function's name."""
        try:
            return self.create_task(coro, name=getattr(coro, "__qualname__", None))
        except BaseException:
            coro.close()
            raise

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
            not self._entered
            or self._aborting
            or self._exiting
            or _get_running_loop() is not self._loop
            or coro.__class__ is not CoroutineType
        ):
            if self._entered and not self._is_here():
                create = partial(self.create_task, coro, name=name, context=context, **kwargs)
                return self._create_elsewhere(coro, create, "create_task")
            self._check_open(coro)
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
        is_dismissed = self._background.pop(task)
        if not self._background:
            self._wake()
        # One that nobody of the group has cancelled has failed, in a subclass.
        is_news = not is_dismissed if task.cancelled() else task.exception() is not None
        if is_news or self._aborting or CALL_GRAPH:
            self._settle(task, is_background=True)

    def _settle(self, task: asyncio.Task[Any], *, is_background: bool = False) -> None:
        if CALL_GRAPH:
            asyncio.future_discard_from_awaited_by(task, self._parent_task)  # type: ignore[attr-defined,unused-ignore]  # of 3.14
        error = self._error_of(task)
        if error is not None and not self._is_returned(task, error):
            self._fail(error, task, is_background=is_background)

    def _error_of(self, task: asyncio.Task[Any]) -> BaseException | None:
        """Return the error of a child that is done; None if it has none, or was cancelled."""
        return None if task.cancelled() else task.exception()

    def _returns_errors(self, task: asyncio.Task[Any]) -> None:
        """Have the error of a child be what its `gather` returns."""
        if self._returned is None:
            self._returned = WeakSet()
        self._returned.add(task)

    def _is_returned(self, task: asyncio.Task[Any], error: BaseException) -> bool:
        """Whether the error of a child is a result, for who has asked for that.

        That is a `gather` that was given the child, or a child whose errors are results, which
        awaits this one: it gets the error, and goes on or ends with it. What is raised in a
        clean-up that the group has asked for is a failure all the same.
        """
        is_withdrawn = self._withdrawn is not None and task in self._withdrawn
        is_result = isinstance(error, Exception) and not isinstance(error, LimitDeadlockError)
        if self._aborting or is_withdrawn or not is_result:
            return False
        if self._returned is not None and task in self._returned:
            return True
        return any(
            getattr(waiter, "_fut_waiter", None) is task
            and not getattr(waiter, "_must_cancel", False)  # it would not see the error
            for waiter in self._returning or ()
        )

    def _fail(
        self,
        error: BaseException,
        task: asyncio.Task[Any] | None = None,
        *,
        is_background: bool = False,
    ) -> None:
        """Abort the group with the error of a child, or with what has kept one from starting."""
        del is_background  # a subclass may count them
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
        # An error aborts the group before the slot is handed on: nothing starts after it (C6).
        self._on_task_done(task)
        assert self._slots is not None
        self._slots.give_back(task)

    def _on_turn_done(self, task: asyncio.Task[Any]) -> None:
        # A turn never ends in its first step, so `get_coro` is safe: see cpython 122332.
        cast("Turn[Any]", task.get_coro()).slots = None  # who keeps the task keeps no group
        self._on_limited_task_done(task)

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

    def _cancel_parent(self, msg: object = None, *, late: bool = False) -> None:
        """Cancel the task of the body, once: when what that would cut short has ended."""
        parent = self._parent_task
        if self._parent_cancel_requested or parent is None:
            return
        if not self._put_off(parent, partial(self._cancel_parent, msg, late=True), late=late):
            self._parent_cancel_requested = True
            parent.cancel(msg)

    def _cancel_child(self, task: asyncio.Task[Any], *, late: bool = False) -> None:
        """Cancel a child; the group does that once: when what that would cut short has ended."""
        if waits_alone(task) or not self._put_off(
            task, partial(self._cancel_child, task, late=True), late=late
        ):
            task.cancel(self._cancel_msg)

    def _put_off(
        self, task: asyncio.Task[Any], cancel_it: Callable[[], None], *, late: bool = False
    ) -> bool:
        """Call back when a thread or a child has ended that is cut if *task* is cancelled now.

        Nothing is called if *task* has seen by then that what it waits for was cancelled.

        Args:
            task: Who is to be cancelled.
            cancel_it: What is called.
            late: Whether the children were cancelled before this turn of the loop.

        Returns:
            Whether there is anything to wait for: otherwise nothing is called.
        """
        if after_thread(task, cancel_it):
            if task is self._parent_task:
                waiter = task._fut_waiter  # type: ignore[attr-defined]  # noqa: SLF001
                self._told = partial(was_cancelled, waiter)  # the thread may see it by itself
            return True
        has_children = self._tasks or self._background
        found = cut_short(task, self._is_cancelled, late=late) if has_children else None
        if found is None:
            return False
        child, tells = found
        waiter = task._fut_waiter  # type: ignore[attr-defined]  # noqa: SLF001  # see cut_short
        told = partial(_was_told, waiter, child if tells else None)
        if task is self._parent_task:
            self._told = told

        def ended(_: object) -> None:
            if not told():
                cancel_it()

        child.add_done_callback(ended)
        return True

    def _is_cancelled(self, task: asyncio.Task[Any]) -> bool:
        """Whether a task is a child that the group has cancelled, or is about to."""
        return (
            (self._aborting and task in self._tasks)
            or (self._background is not None and self._background.get(task, False))
            or (self._withdrawn is not None and task in self._withdrawn)
        )

    def _wake(self) -> None:
        future = self._on_completed_fut
        if future is not None and not future.done():
            future.set_result(None)

    def _dismiss(self) -> bool:
        """Cancel the background tasks, each once. Tells that the group has to wait for them."""
        assert self._background is not None
        due = [task for task, dismissed in self._background.items() if not dismissed]
        self._background.update(dict.fromkeys(due, True))
        for task in due:
            self._cancel_child(task)
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
        for task in due:
            self._cancel_child(task)

    def _withdraw(self, tasks: Iterable[asyncio.Task[Any]]) -> None:
        """Cancel children whose `gather` is cancelled: the group does not do so again."""
        if self._withdrawn is None:
            self._withdrawn = WeakSet()
        # One may have been given to several, or twice to one.
        due = [task for task in dict.fromkeys(tasks) if task not in self._withdrawn]
        self._withdrawn.update(due)
        for task in due:
            self._cancel_child(task)

    def _register(self, task: asyncio.Task[Any]) -> None:
        """Do for a new child what only some need: it is rare that any of it is to do."""
        if CALL_GRAPH:
            asyncio.future_add_to_awaited_by(task, self._parent_task)  # type: ignore[attr-defined,unused-ignore]  # of 3.14
        if self._aborting:
            # An eager child has run already, and has cancelled the group that did not know it yet.
            task.cancel()

    def _register_background(self, task: asyncio.Task[Any]) -> None:
        if self._background is None:
            self._background = {}
        self._background[task] = False
        task.add_done_callback(self._on_background_task_done)
        if self._aborting:
            self._background[task] = True
        if self._aborting or CALL_GRAPH:
            self._register(task)
        if self._on_completed_fut is not None and not self._tasks:
            self._wake()  # the exit may be waiting for other background tasks: here is a new one

    def _report_all_but(self, error: BaseException) -> None:
        """Log the errors that give way to a KeyboardInterrupt or SystemExit (cpython 135736)."""
        message = f"a child of a TaskGroup failed, but its error gave way to {error!r}"
        for other in self._errors:
            if other is not error:
                self._loop.call_exception_handler({"message": message, "exception": other})

    # In other threads

    def _create_elsewhere(
        self,
        coro: CoroutineOrFunction[T],
        create: Callable[[], asyncio.Task[T]],
        method: str,
    ) -> asyncio.Task[T]:
        """Create a task from a worker thread that a task of this event loop waits for."""
        check_child(coro)

        def create_future() -> TaskFuture[T]:
            if self._aborting and not self._exiting:
                # Whoever waits for the thread is cancelled, but for that the thread ends first.
                msg = "the TaskGroup has failed, or was cancelled"
                raise CancelledError(msg)
            return TaskFuture(create())

        try:
            future = call_in_loop(self._loop, create_future)
        except NotAWorkerError:
            close(coro)
            raise RuntimeError(elsewhere(method, NO_WORKER.format(method=method))) from None
        except BaseException:
            close(coro)
            raise
        # Callers know of the standard library's type alone, which has the same methods.
        return cast("asyncio.Task[T]", future)

    def _is_elsewhere(self) -> bool:
        """Whether this is another thread than that of the event loop, which runs."""
        return self._entered and not self._is_here() and self._loop.is_running()

    # Refusals

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: Callable[[object], T]) -> T:
        """Return pydantic's schema, in a model of arbitrary types; a handler of FastAPI's has none.

        Raises:
            TypeError: If there is none.
        """
        return schema_or_way_out(source, handler)

    def _check_open(self, child: CoroutineOrFunction[Any]) -> None:
        """Raise RuntimeError if the group takes no children now."""
        check_child(child)
        try:
            self._check_state()
        except RuntimeError:
            if self._closes_refused:
                close(child)
            raise

    def _check_state(self) -> None:
        if not self._entered:
            msg = f"TaskGroup {self!r} has not been entered"
        elif self._exiting:
            msg = f"TaskGroup {self!r} is finished{self._way_out}"
        elif self._aborting:
            why = f", since a child has failed with {self._errors[0]!r}" if self._errors else ""
            msg = f"TaskGroup {self!r} is shutting down{why}"
        else:
            return
        raise RuntimeError(msg)

    def _is_here(self) -> bool:
        return _get_running_loop() is self._loop


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


def _was_told(waiter: asyncio.Future[Any], child: asyncio.Task[Any] | None) -> bool:
    """Tell whether the end of a child has cancelled what a task waits for, and so the task.

    Not if somebody has cancelled the task itself: that may be a timeout, after which it goes on.

    Args:
        waiter: What it waits for.
        child: A child whose end it sees, if that is another one.
    """
    if getattr(waiter, "_cancel_requested", False):
        return False  # a gather
    ended = waiter if child is None or waiter.__class__ is not asyncio.Future else child
    if not was_cancelled(ended):
        return False
    if isinstance(ended, asyncio.Task):
        return ended.cancelling() <= 1  # once by its group
    return ended.__class__ is not asyncio.Future


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
