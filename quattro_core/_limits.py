"""Limits on how many children run at once: a group's own, one that groups share, and who waits.

A child passes the limit of its group first, then the shared one. Where it finds no free slot it
gets a `Turn`, which waits in the queue of that limit. A slot that is given back goes to the first
in the queue: it is never free while somebody waits.

A child that waits for other children of the same limit lends its slot meanwhile, and has to get one
again before it goes on: ahead of all those that have not begun.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import CancelledError
from asyncio.events import _get_running_loop
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine, Iterable
from contextvars import Context, copy_context
from typing import Any, TypeVar
from weakref import ReferenceType, ref

from quattro_core._deadlock import Blocked, watch
from quattro_core._tasks import CoroutineOrFunction, close, schema_or_way_out

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

EAGER = sys.version_info >= (3, 12)  # a task can take its first step when it is made

# What `asyncio.Task` knows besides the name and the context.
_OPTIONS = frozenset({"eager_start"} if sys.version_info >= (3, 14) else ())


class TooManyWaitingError(RuntimeError):
    """A `SharedLimit` is reached, and as many children as allowed are waiting for it.

    .. versionadded:: 0.1
    """


class Limit:
    """A number of slots, and a queue of those that wait for one, first come, first served."""

    __slots__ = (
        "free",
        "has_moved",
        "holders",
        "is_shared",
        "is_watched",
        "left",
        "lenders",
        "max_waiting",
        "queue",
        "returning",
        "starting",
        "total",
    )

    def __init__(
        self, total: int, max_waiting: int | None = None, *, is_shared: bool = False
    ) -> None:
        self.total = self.free = total
        self.max_waiting = max_waiting
        self.is_shared = is_shared
        # Who has a slot. Of an eager child that is known when its first step has ended.
        self.holders: dict[asyncio.Task[Any], None] = {}
        # Who waits for others and needs no slot meanwhile, and whether there was one to lend.
        self.lenders: dict[asyncio.Task[Any], bool] = {}
        # Who has lent a slot and needs one again: none is free as long as there is anybody. One
        # that was cancelled does not wait for it any more: no child is to begin in a slot that is
        # used already.
        self.returning: OrderedDict[asyncio.Task[Any], Return] = OrderedDict()
        self.queue: deque[Turn[Any]] = deque()
        # How many in the queue don't wait any more, since they were cancelled.
        self.left = 0
        # How many have a slot and have not begun yet: an eager child must not overtake them.
        self.starting = 0
        # Whether a `Watch` looks at it, as long as somebody waits, and what is news for that:
        # whether a slot was given back or lent.
        self.is_watched = self.has_moved = False

    def __repr__(self) -> str:
        return f"SharedLimit({self.total})" if self.is_shared else f"concurrency_limit={self.total}"

    @property
    def running(self) -> int:
        """How many children have a slot."""
        return self.total - self.free

    @property
    def waiting(self) -> int:
        """How many children wait for one to begin in."""
        return len(self.queue) - self.left

    @property
    def has_queue(self) -> bool:
        """Whether anybody waits for one, to begin or to go on."""
        return len(self.queue) > self.left or bool(self.returning)

    @property
    def is_free(self) -> bool:
        """Whether who comes now may have a slot, and pass nobody who came before."""
        return self.free > 0 and len(self.queue) == self.left

    def check_room(self) -> None:
        """Raise TooManyWaitingError if nobody may wait any more."""
        if self.max_waiting is not None and self.waiting >= self.max_waiting:
            msg = (
                f"{self.running} children are running and {self.waiting} are waiting, which is "
                f"all that max_waiting={self.max_waiting} allows: try again later, or raise it"
            )
            raise TooManyWaitingError(msg)

    def leave(self) -> None:
        """Count one that was cancelled while it waited; forget those when they are too many."""
        self.left += 1
        if self.left > len(self.queue) // 2 + 16:
            self.queue = deque(turn for turn in self.queue if turn.is_waiting)
            self.left = 0
        self.hand_out()  # it may have held up those behind it

    def give_back(self, task: asyncio.Task[Any]) -> None:
        """Take back the slot of a task that has ended, if it has one."""
        if task in self.holders:
            self._free(task)
        else:
            self.returning.pop(task, None)

    def _free(self, task: asyncio.Task[Any]) -> None:
        del self.holders[task]
        self.free += 1
        self.has_moved = True
        self.hand_out()

    def hand_out(self) -> None:
        """Give the free slots to those who wait, in their order: first who has had one before."""
        while self.returning and self.free:
            task, future = self.returning.popitem(last=False)
            self.free -= 1
            self.holders[task] = None
            if not future.done():
                future.set_result(None)
        queue = self.queue
        while queue and self.free:
            turn = queue[0]
            if turn.is_waiting and not turn.can_be_called:
                return  # nor is anybody behind it: it asks again when its task has run
            queue.popleft()
            if turn.is_waiting:
                turn.pass_limit(self)
                turn.line_up()
                queue = self.queue  # which an error may have replaced
            else:
                self.left -= 1

    # A task that waits for others lends its slot

    def lend(self, task: asyncio.Task[Any]) -> None:
        """Lend the slot of a task until it comes back; nothing happens if it has lent it."""
        if task in self.holders:
            self.lenders[task] = True
            self._free(task)
        elif task in self.returning:
            del self.returning[task]
            self.lenders[task] = True
        else:
            self.lenders.setdefault(task, False)

    def add_holder(self, task: asyncio.Task[Any]) -> None:
        """Take note of who has the slot that was taken for a child that starts at once."""
        self.holders[task] = None
        if task in self.lenders:  # by its first step, an eager one
            self.lend(task)

    def come_back(self, task: asyncio.Task[Any]) -> Return | None:
        """Take a slot for a task that has lent its own; return what it has to wait for, if any.

        A task that does not wait for that goes on, and gets the next slot that is given back.
        """
        if not self.lenders.pop(task, False):
            return None
        if self.free:
            self.free -= 1
            self.holders[task] = None
            return None
        loop = task.get_loop()
        future = self.returning[task] = Return(self, loop)
        if not self.is_watched:
            watch(self, loop)
        return future


class SharedLimit:
    """A limit on how many foreground children of several groups run at once.

    ::

        limit = SharedLimit(100, max_waiting=1000)

        async with TaskGroup(shared_limit=limit) as group: ...

    The other children wait for their turn, first come, first served across all groups. A child that
    waits in `TaskGroup.gather`, in `TaskGroup.map` or at the end of a group with this limit lends
    its slot to the queue, and takes a slot again, ahead of the queue, before it continues. A
    cancelled child continues at once.

    The limit applies to each event loop separately: a program with several event loops, in threads
    or one after the other, can run this many children in each.

    Args:
        total: How many children may run at once, in one event loop.
        max_waiting: How many children may wait; with one more, `TaskGroup.create_task` raises
            `TooManyWaitingError`. None means no limit. Children that wait for the
            `concurrency_limit` of their own group don't count.

    Raises:
        TypeError: If *total* or *max_waiting* is not an int.
        ValueError: If *total* is below 1, or *max_waiting* is below 0.

    .. versionadded:: 0.1
    """

    __slots__ = ("_limits", "_max_waiting", "_total")

    def __init__(self, total: int, *, max_waiting: int | None = None) -> None:
        self._total = checked_limit("total", total, optional=False)
        self._max_waiting = max_waiting
        if max_waiting is not None:
            checked_limit("max_waiting", max_waiting, least=0)
        # One for each event loop, as long as that is there: what waits in one is woken by it alone.
        self._limits: dict[ReferenceType[asyncio.AbstractEventLoop], Limit] = {}

    @property
    def total(self) -> int:
        """How many children may run at once.

        .. versionadded:: 0.1
        """
        return self._total

    @property
    def max_waiting(self) -> int | None:
        """How many children may wait; None means no limit.

        .. versionadded:: 0.1
        """
        return self._max_waiting

    @property
    def running(self) -> int:
        """How many children hold a slot. A child that has lent its slot does not count.

        Counts the children of the current event loop, or those of all loops if none is running, as
        in a thread.

        .. versionadded:: 0.1
        """
        return sum(limit.running for limit in self._counted())

    @property
    def waiting(self) -> int:
        """How many children wait for a slot, in the same event loops as for `running`.

        .. versionadded:: 0.1
        """
        return sum(limit.waiting for limit in self._counted())

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: Callable[[object], T]) -> T:
        """Return pydantic's schema, as `TaskGroup` does: FastAPI asks where it would make a group.

        Raises:
            TypeError: If there is none.
        """
        return schema_or_way_out(source, handler)

    def __repr__(self) -> str:
        return f"<SharedLimit {self.running} of {self.total} running, {self.waiting} waiting>"

    def _counted(self) -> tuple[Limit, ...]:
        loop = _get_running_loop()
        if loop is None:
            return tuple(self._limits.values())  # at once, while others come and go
        return (self._in_loop(loop),)

    def _in_loop(self, loop: asyncio.AbstractEventLoop) -> Limit:
        limits = self._limits
        limit = limits.get(ref(loop))
        if limit is None:
            limit = Limit(self._total, self._max_waiting, is_shared=True)
            limits[ref(loop, limits.pop)] = limit
        return limit


class Slots:
    """What the children of one group have of its limits.

    Args:
        own: The limit of the group; None if it has none.
        shared: One that it shares with others; None if there is none.
        on_done: What is called when the task of a child with a turn has ended.
        on_error: What is called with the error if a child can't be started.
        coroutine_of: What is called with a child that begins; its task runs what this returns.

    Attributes:
        limits: The limits that each child has to pass, in that order.

    Raises:
        TypeError: If one of the limits is none.
        ValueError: If *own* is below 1.
    """

    __slots__ = ("_shared", "context", "coroutine_of", "limits", "on_done", "on_error")

    def __init__(
        self,
        own: int | None,
        shared: SharedLimit | None,
        on_done: Callable[[asyncio.Task[Any]], None],
        on_error: Callable[[BaseException], None],
        coroutine_of: Callable[[CoroutineOrFunction[Any]], Coroutine[Any, Any, Any]],
    ) -> None:
        if shared is not None and not isinstance(shared, SharedLimit):
            msg = f"shared_limit must be a SharedLimit or None, got {shared!r}"
            raise TypeError(msg)
        self._shared = shared
        self.limits: tuple[Limit, ...] = ()
        if own is not None:
            self.limits = (Limit(checked_limit("concurrency_limit", own)),)
        # What is called at the end of a task runs in this one: that of the child is the user's,
        # who may have entered it, and each child with a copy would take memory for it.
        self.context = copy_context()
        self.on_done: Callable[[asyncio.Task[Any]], None] | None = on_done
        self.on_error: Callable[[BaseException], None] | None = on_error
        self.coroutine_of: Callable[[Any], Coroutine[Any, Any, Any]] | None = coroutine_of

    def enter(self, loop: asyncio.AbstractEventLoop) -> None:
        """Count the children in this event loop, in which the group runs."""
        if self._shared is not None:
            self.limits += (self._shared._in_loop(loop),)  # noqa: SLF001 - its other half

    def detach(self) -> None:
        """Let go of the group, which has ended: both refer to it."""
        self.on_done = self.on_error = self.coroutine_of = None

    def take(self) -> bool:
        """Take a slot of every limit for a child that starts now; tells whether there was one."""
        for limit in self.limits:
            if limit.starting or not limit.is_free:
                return False
        for limit in self.limits:
            limit.free -= 1
        return True

    def drop(self) -> None:
        """Give back the slots that were taken for a child that could not be made."""
        for limit in self.limits:
            limit.free += 1
            limit.hand_out()

    def add_holder(self, task: asyncio.Task[Any]) -> None:
        """Take note of the child for which the slots were taken."""
        for limit in self.limits:
            limit.add_holder(task)

    def give_back(self, task: asyncio.Task[Any]) -> None:
        """Give back the slots of a child that has ended."""
        for limit in self.limits:
            limit.give_back(task)

    def lend(self, task: asyncio.Task[Any]) -> None:
        """Lend the slots that the current task has of these limits, of whichever group it is.

        It waits for children of the group from now on, and runs no code of the user's. Whoever
        calls this sees to it that `hurry_back` is called in the end, and `come_back` before that
        where it may wait.
        """
        for limit in self.limits:
            limit.lend(task)

    async def come_back(self, task: asyncio.Task[Any]) -> None:
        """Wait for the slots that the current task has lent. It goes on at once if cancelled."""
        try:
            for limit in self.limits:
                future = limit.come_back(task)
                if future is not None:
                    await future
        finally:
            del task  # what it ends with may refer to this frame

    def hurry_back(self, task: asyncio.Task[Any]) -> None:
        """Let the current task go on, whether or not there are slots for it again.

        If not, it gets those that are given back next, as long as it runs: it is counted again.
        """
        for limit in self.limits:
            limit.come_back(task)

    def check_room(self) -> None:
        """Raise TooManyWaitingError if the next child would have to wait and may not."""
        for limit in self.limits:
            if not limit.is_free:
                limit.check_room()
                return

    def waiting(self) -> set[asyncio.Task[Any] | None]:
        """Return the tasks that wait in any of the queues, those of other groups included."""
        return {turn.task for limit in self.limits for turn in limit.queue if turn.is_waiting}


class Return(asyncio.Future[None], Blocked):
    """What a task waits for that has lent its slot, and has to get one again to go on."""

    def __init__(self, limit: Limit, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._limit = limit

    @property
    def limit(self) -> Limit:
        return self._limit

    def fail(self, error: BaseException) -> None:
        self.set_exception(error)


class Turn(Blocked, Coroutine[Any, Any, T_co]):
    """What the task of a child runs that has to wait: nothing until its turn comes, then the child.

    The task is whole from the beginning, since CPython 3.15 initialises none a second time (cpython
    142615), and it is a plain `asyncio.Task`. A hundred thousand of these may wait, so there is one
    object besides the task. It is two in one:

    - The coroutine of the task. A coroutine function around the child would take 350 bytes more,
      and would stand in the place of the child in each stack and repr. Whatever somebody asks of
      it that is not here, such as ``cr_frame``, the child answers.
    - The future that the task waits for until then: as `asyncio.isfuture` tells, a class with
      ``_asyncio_future_blocking`` is one for a task. `asyncio.Future` is 150 bytes more.

    When it has begun it is a `_Begun`.
    """

    __slots__ = (
        "_asyncio_future_blocking",
        "_child",
        "_context",
        "_error",
        "_loop",
        "_send",
        "_throw",
        "_wakeup",
        "is_waiting",
        "passed",
        "slots",
        "task",
    )

    def __init__(
        self, child: CoroutineOrFunction[T_co], slots: Slots, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.slots: Slots | None = slots
        self.task: asyncio.Task[T_co] | None = None
        # How many limits it has passed.
        self.passed = 0
        # Whether it waits for a slot: then it is in the queue of a limit.
        self.is_waiting = True
        self._child = child
        self._loop = loop
        self._error: BaseException | None = None
        self._wakeup: Callable[[Turn[T_co]], None] | None = None
        self._context: Context | None = None

    def __repr__(self) -> str:
        state = "waiting" if self.is_waiting else "cancelled" if self._error else "called"
        return f"<Turn {state} child={self._child!r}>"

    def make_task(self, name: str | None, context: Context | None) -> asyncio.Task[T_co]:
        """Make the task, which waits from now on.

        Its first step does nothing but wait. Where that can be done at once, it saves the event
        loop a turn, and the memory for it. It can't in a context of the caller's, which may be the
        one that is entered now: `asyncio.Task` then fails half-way (3.12).
        """
        slots = self.slots
        assert slots is not None
        assert slots.on_done is not None
        make: Any = asyncio.Task  # typeshed has not made up its mind about eager_start
        task: asyncio.Task[T_co]
        if EAGER and context is None:
            context = copy_context()
            task = make(self, loop=self._loop, name=name, context=context, eager_start=True)
        else:
            task = make(self, loop=self._loop, name=name, context=context)
        self.task = task
        task.add_done_callback(slots.on_done, context=slots.context)
        return task

    # The turn

    def pass_limit(self, limit: Limit) -> None:
        """Take a slot of the limit that it has come to."""
        assert self.task is not None
        limit.free -= 1
        limit.holders[self.task] = None
        self.passed += 1

    def line_up(self) -> None:
        """Pass every limit that has a free slot, and wait at the first that has none."""
        assert self.slots is not None
        limits = self.slots.limits
        while self.passed < len(limits):
            limit = limits[self.passed]
            if not limit.is_free:
                limit.queue.append(self)
                if not limit.is_watched:
                    watch(limit, self._loop)
                return
            self.pass_limit(limit)
        try:
            if self._wakeup is not None:
                self._loop.call_soon(self._wakeup, self, context=self._context)
        except BaseException as exc:  # noqa: BLE001 - it comes out of the group
            # This may be a callback of another task's, even of another group's: the loop would log
            # the error there, and the child would wait for ever. It goes on waiting, so that its
            # task can be cancelled.
            assert self.slots.on_error is not None
            self.slots.on_error(exc)
            return
        self.is_waiting = False
        for limit in limits:
            limit.starting += 1

    def _begin(self) -> None:
        """Begin, or be cancelled before it has."""
        assert self.slots is not None
        limits = self.slots.limits
        was_waiting, self.is_waiting = self.is_waiting, False
        if was_waiting:  # its task was cancelled before its first step
            limits[self.passed].leave()
        elif self._error is None:
            for limit in limits:
                limit.starting -= 1
        # These refer back to it, and the task keeps it.
        self.task = self._wakeup = self._context = self._error = None
        self.__class__ = _Begun

    # The future

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def add_done_callback(self, wakeup: Callable[[Turn[T_co]], None], *, context: Context) -> None:
        self._wakeup, self._context = wakeup, context
        if self.task is not None:
            # Its task has run for the first time, not at once when it was made: until then it
            # would have been called before those that had their turn sooner.
            assert self.slots is not None
            limits = self.slots.limits
            if self.passed < len(limits):
                limits[self.passed].hand_out()

    @property
    def can_be_called(self) -> bool:
        """Whether its task waits already, so that those that are called begin in that order."""
        return self._wakeup is not None

    def done(self) -> bool:
        return not self.is_waiting

    def cancelled(self) -> bool:
        return isinstance(self._error, CancelledError)

    @property
    def limit(self) -> Limit | None:
        assert self.slots is not None
        limits = self.slots.limits
        return limits[self.passed] if self.passed < len(limits) else None

    @property
    def child(self) -> CoroutineOrFunction[T_co]:
        return self._child

    def cancel(self, msg: object = None) -> bool:
        """Cancel the wait, on behalf of the task; tells that it was waiting."""
        if not self.is_waiting:
            return False
        self.fail(CancelledError() if msg is None else CancelledError(msg))
        return True

    def fail(self, error: BaseException) -> None:
        """End the wait, and the task, with an error."""
        assert self.slots is not None
        assert self._wakeup is not None
        self._loop.call_soon(self._wakeup, self, context=self._context)
        self._error = error
        self.is_waiting = False
        limits = self.slots.limits
        if self.passed < len(limits):
            limits[self.passed].leave()

    def result(self) -> None:
        if self._error is not None:
            raise self._error

    # The coroutine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._child, name)

    def send(self, value: Any) -> Any:
        if self.is_waiting:
            self._asyncio_future_blocking = True
            return self
        slots = self.slots
        assert slots is not None
        assert slots.coroutine_of is not None
        self._begin()
        child = self._child = slots.coroutine_of(self._child)
        self._send = send = child.send
        self._throw = child.throw
        return send(value)

    def throw(self, typ: Any, val: Any = None, tb: Any = None) -> Any:
        """Meet a cancellation before the child has begun: it never will."""
        self._begin()
        close(self._child)
        try:
            raise typ if val is None else val
        finally:
            del typ, val, tb  # the error refers to this frame

    def close(self) -> None:
        close(self._child)

    def __await__(self) -> Any:
        msg = f"{self!r} is run by its task: await that"
        raise RuntimeError(msg)


class _Begun(Turn[T_co]):
    """A turn that has come: no step of the child costs more than one of another task."""

    __slots__ = ()

    send = Turn.__dict__["_send"]
    throw = Turn.__dict__["_throw"]

    def __repr__(self) -> str:
        return f"<Turn begun child={self._child!r}>"


def check_options(options: Iterable[str]) -> None:
    """Raise TypeError for what `asyncio.Task` would refuse. One that waits asks no task factory."""
    for option in options:
        if option not in _OPTIONS:
            msg = f"create_task() got an unexpected keyword argument {option!r}"
            raise TypeError(msg)


def checked_limit(name: str, limit: object, *, least: int = 1, optional: bool = True) -> int:
    """Return a limit that was given as argument *name*, if it is one.

    Raises:
        TypeError: If it is not an int.
        ValueError: If it is below *least*.
    """
    if not isinstance(limit, int) or isinstance(limit, bool):
        msg = f"{name} must be an int{' or None' if optional else ''}, got {limit!r}"
        raise TypeError(msg)
    if limit < least:
        msg = f"{name} must be >= {least}, got {limit}"
        raise ValueError(msg)
    return limit
