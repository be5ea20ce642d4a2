"""What runs a map: workers that pull items, and the results that wait for a consumer."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from asyncio.events import _get_running_loop
from collections import deque
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from quattro_core._map_slot import EMPTY, Slot

if TYPE_CHECKING:
    from quattro_core._taskgroup import TaskGroup

T = TypeVar("T")
R = TypeVar("R")

_END: Any = object()
_CUT = "the map was cut short: its TaskGroup has ended, or a background task of it was cancelled"


class MapRun(Generic[T, R]):
    """A map that runs: what its workers share, without the object that its consumer holds.

    A worker has one item at a time: it pulls one, calls the function, and pulls the next one, or
    waits until its result is taken if as many wait as there are workers. So twice as many items are
    out, at most. The first worker leads: for each item that it pulls it starts another, at first.
    """

    def __init__(
        self,
        group: TaskGroup,
        function: Callable[[T], Coroutine[Any, Any, R]],
        iterable: Iterable[T] | AsyncIterable[T],
        *,
        limit: int,
        ordered: bool,
    ) -> None:
        self.loop: asyncio.AbstractEventLoop = group._loop
        self.workers: set[asyncio.Task[None]] = set()
        self.is_stopped: bool = False
        self._group = group
        self._function = function
        # In order, those that are still being worked on are among the results: room for each.
        self._limit = self._room = limit
        self._ordered = int(ordered)
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

    # What consumers call

    def check_thread(self) -> None:
        """Raise RuntimeError in another thread than that of the group."""
        if _get_running_loop() is not self.loop:
            msg = "a map is for the event loop of its TaskGroup: it can't be used in another thread"
            raise RuntimeError(msg)

    async def ready(self) -> bool:
        """Wait until a result can be taken; tells that none will come. The first call starts it."""
        results = self.results
        while not (results and results[0].value is not EMPTY):
            if not (self._has_started or self.is_stopped):
                self._group._check_state()
                self._has_started = True
                self._start(None, _END)
                continue
            if self._is_cut or not (self.workers or self._is_exhausted or self.is_stopped):
                if self._group._aborting:
                    # An error of ours would stand beside the one that has aborted the group.
                    msg = "the TaskGroup of the map has failed, or was cancelled"
                    raise CancelledError(msg)
                raise RuntimeError(_CUT)
            if not self.workers or self.is_stopped:
                return False
            await self._news()
        return True

    def take(self) -> R:
        """Take the result that is ready, and set its worker free."""
        slot = self.results.popleft()
        value, slot.value = slot.value, EMPTY
        taken = slot.taken
        if taken is not None and not taken.done():
            self._room -= self._ordered  # the place is its worker's
            taken.set_result(None)
        if self._consumers:
            self.tell()
        return value

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

    def tell(self) -> None:
        """Wake a consumer, if there is a result for one."""
        if not (self.results and self.results[0].value is not EMPTY):
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
        self._consumers.clear()

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
            self._is_cut = self._is_cut or not self.is_stopped
            self.stop()
        elif not self.workers:
            self._tell_all()

    async def _run(self, slot: Slot[R] | None, item: T) -> None:
        """Work on an item, then on others; the one that has no slot leads."""
        task = cast("asyncio.Task[None]", asyncio.current_task())
        is_dismissed = self._group._background_tasks().get
        function, results, create_future = self._function, self.results, self.loop.create_future
        try:
            if slot is None:
                slot = Slot()
                item = await self._lead(slot, task)
            while item is not _END:
                value = await function(item)
                if self.is_stopped or is_dismissed(task):
                    raise CancelledError  # the call has held up the cancellation
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
                item = await self._pull(slot, task)
        except CancelledError as exc:
            if task.cancelling() or self._is_over(task):
                raise
            msg = f"the map of {self._function!r} was cancelled by something that it awaited"
            raise RuntimeError(msg) from exc

    async def _lead(self, slot: Slot[R], task: asyncio.Task[None]) -> T:
        """Start the other workers, as far as there are items for them; return one to work on."""
        for _ in range(self._limit - 1):
            mate: Slot[R] = Slot()
            item = await self._pull(mate, task)
            if item is _END:
                return item
            self._start(mate, item)
            if self._is_over(task):  # by the first step of an eager one
                raise CancelledError
        if self._limit > 1:
            await asyncio.sleep(0)  # calls begin in the order of the items
        return await self._pull(slot, task)

    async def _pull(self, slot: Slot[R], task: asyncio.Task[None]) -> T:
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
        if self._is_over(task):
            raise CancelledError  # as above
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

    def _is_over(self, task: asyncio.Task[None]) -> bool:
        """Tell whether the worker was cancelled on behalf of the group or of the consumer."""
        background = self._group._background
        return self.is_stopped or self._group._aborting or bool(background and background.get(task))
