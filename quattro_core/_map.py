"""The code of `TaskGroup.map`: workers that pull items, and results that wait for a consumer."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from asyncio.events import _get_running_loop
from collections import deque
from collections.abc import AsyncIterable, Callable, Coroutine, Generator, Iterable
from contextlib import suppress
from contextvars import Context, copy_context
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar, cast

from quattro_core._limits import Slots
from quattro_core._returned import returning_errors

T = TypeVar("T")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

_EMPTY: Any = object()
_END: Any = object()
# How many results may wait for that of an earlier item, where all are to be in a list.
_COLLECTED = 1000
_CUT = "the map was cut short: its TaskGroup has ended, or a background task of it was cancelled"


class MapGroup(Protocol):
    """What a map needs of its task group."""

    _loop: asyncio.AbstractEventLoop
    _aborting: bool
    _slots: Slots | None
    _returning: set[asyncio.Task[Any]] | None

    @property
    def exceptions(self) -> tuple[BaseException, ...]: ...

    def _check_state(self) -> None: ...
    def _background_tasks(self) -> dict[asyncio.Task[Any], bool]: ...
    def _dismiss_one(self, task: asyncio.Task[Any]) -> None: ...
    def _take_back_cancel(self, failure: BaseException) -> bool: ...
    def _is_cancelled(self, task: asyncio.Task[Any]) -> bool: ...
    def create_background_task(
        self, coro: Coroutine[Any, Any, T], *, name: str, context: Context
    ) -> asyncio.Task[T]: ...


class MapResults(Generic[R_co]):
    """The results of `TaskGroup.map`: an asynchronous iterator, and a context manager.

    ::

        async with group.map(fetch, urls, limit=10) as pages:
            async for page in pages: ...

        pages = await group.map(fetch, urls, limit=10)  # a list, in the order of the urls

    Leaving the block, calling `aclose` or dropping the last reference cancels the calls that are
    still running, and no more items are pulled. Several tasks may iterate at once; each result goes
    to one of them. Once exhausted or closed, the iterator stays exhausted.

    .. versionadded:: 0.1
    """

    __slots__ = ("__weakref__", "_run")

    def __init__(self, run: MapRun[Any, R_co]) -> None:
        self._run = run

    def __aiter__(self) -> Self:
        return self

    def __await__(self) -> Generator[Any, None, list[R_co]]:
        """Return the list of all results, in the order of the items.

        Of one that is being iterated over already, those that are left, in the order in which they
        come.

        .. versionadded:: 0.1
        """
        return self._all().__await__()

    async def _all(self) -> list[R_co]:
        self._run.collect()
        async with self:
            return [result async for result in self]

    async def __anext__(self) -> R_co:
        """Return the next result.

        Raises:
            RuntimeError: If the group is not open when the iteration begins; if it ends while a
                task that it does not know of iterates; in another thread.
            asyncio.CancelledError: If the group has failed or was cancelled, also in a task that
                the group does not know of.

        .. versionadded:: 0.1
        """
        run = self._run
        if _get_running_loop() is not run.loop:
            run.check_thread()
        results = run.results
        if not (results and results[0].value is not _EMPTY) and not await run.ready():
            raise StopAsyncIteration
        return run.take()

    async def aclose(self) -> None:
        """Cancel the running calls, and wait for their clean-up. Unread results are discarded.

        One of those calls may call this too; then it does not wait.

        Raises:
            RuntimeError: If called outside the event loop's thread.

        .. versionadded:: 0.1
        """
        self._run.check_thread()
        self._run.stop()
        workers = self._run.workers
        # A call of the map does not wait: not for itself, nor for one that would wait for it.
        if asyncio.current_task() in workers:
            return
        cancelled: CancelledError | None = None
        try:
            while workers:
                try:
                    await asyncio.wait(workers)
                except CancelledError as exc:
                    cancelled = exc
            if cancelled is not None:
                raise cancelled
        finally:
            del cancelled  # it refers to this frame

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        et: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        run = self._run
        if not run.workers:
            return
        if _get_running_loop() is run.loop:
            run.stop()
            return
        # The garbage collector is at work in another thread, or the loop has stopped.
        with suppress(RuntimeError):  # it is closed
            run.loop.call_soon_threadsafe(run.stop)


class MapRun(Generic[T, R]):
    """A map that runs: what its workers share, without the object that its consumer holds.

    A worker has one item at a time: it pulls one, calls the function, and pulls the next one, or
    waits until its result is taken if as many wait as there are workers. So twice as many items are
    out, at most. The first worker leads: for each item that it pulls it starts another, at first.
    """

    def __init__(
        self,
        group: MapGroup,
        function: Callable[[T], Coroutine[Any, Any, R] | asyncio.Task[R]],
        iterable: Iterable[T] | AsyncIterable[T],
        *,
        limit: int,
        ordered: bool,
        return_exceptions: bool,
    ) -> None:
        self.loop: asyncio.AbstractEventLoop = group._loop
        self.workers: set[asyncio.Task[None]] = set()
        self.is_stopped: bool = False
        self._group = group
        self._function = function
        # In order, those that are still being worked on are among the results: room for each.
        self._limit = self._room = limit
        self._ordered = int(ordered)
        self._return_exceptions = return_exceptions
        self._context = copy_context()
        if isinstance(iterable, AsyncIterable):
            self._anext = aiter(iterable).__anext__
            self._pulling: asyncio.Lock | None = asyncio.Lock()  # async generators take one caller
        else:
            self._next = iter(iterable).__next__
            self._pulling = None
        # In the order of the items, or of their ends. Only in the former may the first be empty.
        self.results: deque[Slot[R]] = deque()
        self._consumers: deque[asyncio.Future[None]] = deque()
        self._has_started = self._is_exhausted = self._is_cut = False
        # The id of what has failed, a call or the iterable. The group holds the error: if we did,
        # whom its traceback leads to, that would be a reference cycle.
        self._failure: int | None = None

    # What consumers call

    def check_thread(self) -> None:
        """Raise RuntimeError in another thread than that of the group."""
        if _get_running_loop() is not self.loop:
            msg = "a map belongs to its TaskGroup's event loop: it can't be used in another thread"
            raise RuntimeError(msg)

    async def ready(self) -> bool:
        """Wait until a result can be taken; tells that none will come. The first call starts it."""
        slots = self._group._slots
        if slots is None:
            return await self._ready()
        task = asyncio.current_task()
        assert task is not None
        slots.lend(task)
        try:
            while await self._ready():
                await slots.come_back(task)
                if self._has_result:  # nobody else has taken it meanwhile
                    return True
                slots.lend(task)
            await slots.come_back(task)
        except CancelledError:
            self.tell()  # the result is for the next
            raise
        else:
            return False
        finally:
            slots.hurry_back(task)
            del task  # what it ends with may refer to this frame

    @property
    def _has_result(self) -> bool:
        return bool(self.results) and self.results[0].value is not _EMPTY

    async def _ready(self) -> bool:
        results = self.results
        while not (results and results[0].value is not _EMPTY):
            if not (self._has_started or self.is_stopped):
                self._group._check_state()
                self._has_started = True
                self._start(None, _END)
                continue
            if self._is_cut or not (self.workers or self._is_exhausted or self.is_stopped):
                if self._group._aborting:
                    self._raise_failure()
                    # An error of ours would stand beside the one that has aborted the group.
                    msg = "the TaskGroup of the map has failed, or was cancelled"
                    raise CancelledError(msg)
                raise RuntimeError(_CUT)
            if not self.workers or self.is_stopped:
                return False
            try:
                await self._news()
            except CancelledError:
                self._raise_failure()
                raise
        return True

    def _raise_failure(self) -> None:
        """Raise what has failed, if who is cancelled for it is better told of it as itself."""
        known, self._failure = self._failure, None
        failure = next((error for error in self._group.exceptions if id(error) == known), None)
        if isinstance(failure, StopAsyncIteration):
            return  # it would be the end of the results
        try:
            if failure is not None and self._group._take_back_cancel(failure):
                raise failure
        finally:
            del failure  # it refers to this frame

    def take(self) -> R:
        """Take the result that is ready, and set its worker free."""
        slot = self.results.popleft()
        value, slot.value = slot.value, _EMPTY
        taken = slot.taken
        if taken is not None and not taken.done():
            self._room -= self._ordered  # the place is its worker's
            taken.set_result(None)
        if self._consumers:
            self.tell()
        return value

    def collect(self) -> None:
        """Know, before it starts, that one consumer takes all results at once, in order."""
        if not self._has_started:
            self._ordered = 1
            # One call that takes long holds up none behind it, which are all to be kept anyway.
            self._room = self._limit + _COLLECTED

    def stop(self) -> None:
        """Cancel the workers, each once; drop what they have brought."""
        self.is_stopped = True
        self.results.clear()
        for task in self.workers:
            self._group._dismiss_one(task)
        self._tell_all()

    async def _news(self) -> None:
        """Wait until there may be a result, or none any more."""
        consumer = self.loop.create_future()
        self._consumers.append(consumer)
        try:
            await consumer
        except CancelledError:
            if consumer in self._consumers:
                self._consumers.remove(consumer)
            self.tell()  # what was for this one is for the next
            raise

    def has_consumer(self, future: object) -> bool:
        """Whether this is what a consumer waits for."""
        return future in self._consumers

    def tell(self) -> None:
        """Wake a consumer, if there is a result for one."""
        if not (self.results and self.results[0].value is not _EMPTY):
            return
        while self._consumers:
            consumer = self._consumers.popleft()
            if not consumer.done():
                consumer.set_result(None)
                return

    def _tell_all(self) -> None:
        for consumer in self._consumers:
            if not consumer.done():
                consumer.set_result(None)

    # The workers

    def _start(self, slot: Slot[R] | None, item: T) -> None:
        name = f"map of {getattr(self._function, '__qualname__', self._function)}"
        task = self._group.create_background_task(
            self._run(slot, item), name=name, context=self._context.copy()
        )
        self.workers.add(task)
        task.add_done_callback(self._on_worker_done)
        if self.is_stopped:  # by the first step of an eager one
            self._group._dismiss_one(task)

    def _on_worker_done(self, task: asyncio.Task[None]) -> None:
        # The group was told first: if this is a failure, its parent and children are cancelled.
        self.workers.discard(task)
        if task.cancelled() or task.exception() is not None:
            if not self._is_cut and not task.cancelled():
                self._failure = id(task.exception())
            self._is_cut = self._is_cut or not self.is_stopped
            self.stop()
        elif not self.workers:
            self._tell_all()

    async def _run(self, slot: Slot[R] | None, item: T) -> None:
        """Work on an item, then on others; the one that has no slot leads."""
        task = cast("asyncio.Task[None]", asyncio.current_task())
        is_dismissed = self._group._background_tasks().get
        function: Any = self._returning_errors if self._return_exceptions else self._function
        results, create_future = self.results, self.loop.create_future
        try:
            if slot is None:
                slot = Slot()
                item = await self._lead(slot)
            while item is not _END:
                value = await function(item)
                if self.is_stopped or is_dismissed(task):
                    raise _cancelled()  # the call has held up the cancellation
                slot.value = value
                if not self._ordered:
                    self.results.append(slot)
                if self._consumers:
                    self.tell()
                if self._is_exhausted:
                    return
                del item, value  # they are for others to keep
                if len(results) < self._room:
                    slot = Slot()
                    if self._pulling is None:
                        item = self._pull_now(slot)
                        continue
                    self._room -= self._ordered  # others may want an item before this one has it
                else:
                    slot.taken = taken = create_future()
                    await taken
                item = await self._pull(slot)
        except CancelledError as exc:
            if task.cancelling() or self._is_over():
                raise
            msg = f"{self._name} was cancelled by something that it awaited"
            raise RuntimeError(msg) from exc
        finally:
            del task  # it has the error, which refers to this frame

    async def _returning_errors(self, item: T) -> R | Exception:
        return await returning_errors(self._group, self._name, self._function, item)

    @property
    def _name(self) -> str:
        return f"the map of {self._function!r}"

    async def _lead(self, slot: Slot[R]) -> T:
        """Start the other workers, as far as there are items for them; return one to work on."""
        for _ in range(self._limit - 1):
            mate: Slot[R] = Slot()
            item = await self._pull(mate)
            if item is _END:
                return item
            self._start(mate, item)
            if self._is_over():  # by the first step of an eager one
                raise _cancelled()
        await asyncio.sleep(0)  # calls begin in the order of the items
        return await self._pull(slot)

    async def _pull(self, slot: Slot[R]) -> T:
        """Return the next item, or _END, having lined up the slot for its result."""
        try:
            if self._pulling is None:
                return self._pull_now(slot)
            async with self._pulling:
                if self._is_exhausted:
                    return cast("T", _END)
                item = await self._anext()
        except BaseException as exc:
            self._is_exhausted = True  # what has failed is not asked again
            if isinstance(exc, StopAsyncIteration):
                return cast("T", _END)
            raise
        finally:
            self._room += self._ordered
        if self._is_over():
            raise _cancelled()  # as above
        if self._ordered:
            self.results.append(slot)
        return item

    def _pull_now(self, slot: Slot[R]) -> T:
        if self._is_exhausted:
            return cast("T", _END)
        try:
            item = self._next()
        except BaseException as exc:
            self._is_exhausted = True
            if isinstance(exc, StopIteration):
                return cast("T", _END)
            raise
        if self._ordered:
            self.results.append(slot)
        return item

    def _is_over(self) -> bool:
        """Tell whether the worker was cancelled on behalf of the group or of the consumer."""
        task = cast("asyncio.Task[None]", asyncio.current_task())
        is_dismissed = self._group._background_tasks().get(task, False)
        return self.is_stopped or self._group._aborting or is_dismissed


def _cancelled() -> CancelledError:
    """Return what a worker raises that is to end, and did not see it or is not cancelled yet."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()  # its group may have put that off, until a thread has ended
    return CancelledError()


class Slot(Generic[R]):
    """The place that a worker has among the results: for one at a time, until it is taken."""

    __slots__ = ("taken", "value")

    def __init__(self) -> None:
        self.value: R = _EMPTY
        self.taken: asyncio.Future[None] | None = None
