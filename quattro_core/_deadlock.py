"""Limits that can never give a slot again: how that is noticed, and the error for it.

A child may wait by hand for another one of the same limit, as in ``await group.create_task(...)``.
If all that have a slot do so for those that have none, nothing ever goes on. Nobody is told when
a task begins to wait for something, so a limit with a queue looks at its holders from time to time:
never twice while the one that it has found not to be stuck waits for the same as before.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import math
import sys
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from contextvars import Context
from typing import Any, Protocol

from quattro_core._threads import WAIT_FOR, awaited_by, local_of

# Seconds until the first look at a limit that has a queue, and the most between two of them.
FIRST_LOOK = 0.1
LONGEST = 5.0
# How many tasks and futures one look visits, and how many of them one behind the other.
MOST_VISITED = 1000
DEEPEST = 100
# How many waiting children an error names.
MOST_NAMED = 5
# Characters of the name of a task, which may have come from anywhere.
LONGEST_NAME = 200

Future = asyncio.Future[Any]
Task = asyncio.Task[Any]
# What is waited for, and whether for the end of all of it, so that one that is stuck is enough; not
# if it is waited for the end of any.
_Awaited = tuple[Iterable[Future], bool]


class LimitDeadlockError(RuntimeError):
    """Every slot of a limit is taken by a child that awaits another child, which needs a slot too.

    ::

        async with TaskGroup(concurrency_limit=1) as group:

            async def child():
                await group.create_task(other())  # has no slot until the child ends

            group.create_task(child())

    The error names these children. Instead of starting, the awaited child fails with this error,
    which aborts its group. `TaskGroup.gather`, `TaskGroup.map` and the end of an inner group with
    the same `SharedLimit` lend the slot of the waiting child to others, so they can't deadlock.

    .. versionadded:: 0.1
    """


class Limited(Protocol):
    """What this needs of a limit."""

    total: int
    free: int
    holders: dict[Task, None]
    is_watched: bool
    has_moved: bool

    @property
    def has_queue(self) -> bool: ...


class Blocked:
    """What a task waits for that waits for a slot, in the place of a future."""

    __slots__ = ()

    child: Any  # where it is the coroutine of that task as well

    @property
    @abstractmethod
    def limit(self) -> Limited | None:
        """The limit that it waits for; None if its turn has come, and could not be told."""

    @abstractmethod
    def fail(self, error: BaseException) -> None:
        """Have the task go on with an error."""


def watch(limit: Limited, loop: asyncio.AbstractEventLoop) -> None:
    """Look, from time to time, whether those who wait for a limit can ever get a slot."""
    global _first_looks  # noqa: PLW0603  # a lookup by the loop would take longer than all else
    limit.is_watched = True
    limit.has_moved = False
    looks = _first_looks
    if looks is None or looks.loop is not loop:
        looks = _first_looks = _FirstLooks(loop)
    looks.limits.append(limit)


class _FirstLooks:
    """Limits of an event loop that have got a queue just now: for most of them it is gone soon."""

    __slots__ = ("limits", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.limits: list[Limited] = []
        # Not in the context of the child that happens to be the first to wait.
        loop.call_later(FIRST_LOOK, self._look, context=Context())

    def _look(self) -> None:
        global _first_looks  # noqa: PLW0603  # as above
        if _first_looks is self:
            _first_looks = None
        for limit in self.limits:
            if limit.has_queue:
                Watch(limit, self.loop).look()
            else:
                limit.is_watched = False


_first_looks: _FirstLooks | None = None


class Watch:
    """Looks at one limit, as long as somebody waits for it.

    The limit does not refer to it: its timer does, or what it listens to.
    """

    __slots__ = ("_context", "_futures", "_interval", "_limit", "_loop")

    def __init__(self, limit: Limited, loop: asyncio.AbstractEventLoop) -> None:
        self._limit = limit
        self._loop = loop
        self._interval = FIRST_LOOK
        self._futures: list[Future] = []
        self._context = Context()

    def _set_timer(self) -> None:
        self._loop.call_later(self._interval, self.look, context=self._context)
        self._interval = min(self._interval * 2, LONGEST)

    def look(self) -> None:
        """Look at who has a slot, unless one was given back since the last time."""
        limit = self._limit
        if not limit.has_queue:
            limit.is_watched = False
        elif limit.has_moved:
            limit.has_moved = False
            self._set_timer()
        else:
            search = Search()
            paths = search.paths_of_holders(limit)
            if paths:
                self._break(paths)
            elif search.needs_clock or not search.heard:
                self._set_timer()
            else:
                # As long as none of them is done, who waits for them is not stuck.
                self._futures = list(search.heard)
                for future in self._futures:
                    future.add_done_callback(self._on_done, context=self._context)

    def _on_done(self, _: Future) -> None:
        futures, self._futures = self._futures, []
        for future in futures:
            future.remove_done_callback(self._on_done)
        if self._limit.has_queue:
            self._set_timer()
        else:
            self._limit.is_watched = False

    def _break(self, paths: list[list[Task]]) -> None:
        """Fail the child that the youngest waits for."""
        waiter: Any = getattr(paths[-1][-1], "_fut_waiter", None)
        waiter.fail(LimitDeadlockError(_message(self._limit, paths)))
        self._interval = FIRST_LOOK
        self._set_timer()


def _message(limit: Limited, paths: list[list[Task]]) -> str:
    waits = [" waits for ".join(map(_name, path)) for path in paths]
    if len(waits) > MOST_NAMED:
        waits[MOST_NAMED:] = [f"and {len(waits) - MOST_NAMED} more"]
    return (
        f"every slot of {limit!r} is taken by a child that waits for one without a slot: "
        f"{'; '.join(waits)}. Use gather() or map() of the group, which lend the slot"
    )


def _name(task: Task) -> str:
    function = getattr(task.get_coro(), "__qualname__", "?")
    name = task.get_name()
    if len(name) > LONGEST_NAME:
        name = f"{name[:LONGEST_NAME]}... ({len(name)} characters)"
    return f"{name!r} ({function})"


class Search:
    """One look at who waits for whom.

    Attributes:
        heard: As long as none of these is done, who is not stuck stays so.
        needs_clock: Whether that can't be told: somebody runs, or they are too many.
    """

    def __init__(self) -> None:
        self.heard: dict[Future, None] = {}
        self.needs_clock = False
        self._limits: list[Limited] = []  # that are stuck, if those are that are looked at
        self._visiting: set[Future] = set()
        self._visits = 0

    def paths_of_holders(self, limit: Limited) -> list[list[Task]]:
        """Return for each holder the tasks from it to the one without a slot.

        There are none if one of them is not stuck.
        """
        paths: list[list[Task]] = []
        if len(limit.holders) < limit.total:
            self.needs_clock = True
            return paths
        self._limits.append(limit)
        for holder in limit.holders:
            # One that is looked at already is stuck if the others are: they wait in a circle.
            path = [holder] if holder in self._visiting else self._path(holder)
            if path is None:
                self._limits.remove(limit)
                return []
            paths.append(path)
        return paths

    def _path(self, future: Future) -> list[Task] | None:
        """Return the tasks from this one to one that waits for a slot; None if it is not stuck."""
        self._visits += 1
        if self._visits > MOST_VISITED or len(self._visiting) > DEEPEST:
            self.needs_clock = True
            return None
        if future in self._visiting:
            return None
        self._visiting.add(future)
        try:
            if not isinstance(future, asyncio.Task):
                return self._path_of((_sources(future), True), future)
            return self._path_of_task(future)
        finally:
            self._visiting.remove(future)

    def _path_of_task(self, task: Task) -> list[Task] | None:
        waiter = getattr(task, "_fut_waiter", None)
        if waiter is None or waiter.done():
            self.needs_clock = True  # it runs
            return None
        if isinstance(waiter, Blocked):
            limit = waiter.limit
            if limit in self._limits or (limit and self.paths_of_holders(limit)):
                return [task]
            return None
        coroutines = list(_coroutines(task.get_coro()))
        path = self._path_of(_awaited(coroutines, waiter), waiter)
        if path is None:
            return None
        if any(map(_has_deadline, coroutines)):
            self._hear(waiter)
            return None
        return [task, *path]

    def _path_of(self, awaited: _Awaited, waiter: Future) -> list[Task] | None:
        """Return the path from what the waiter waits for: from one of them, or if all are stuck."""
        futures, is_one_enough = awaited
        found: list[Task] | None = None
        for future in futures:
            if future.done():
                continue
            path = self._path(future)
            if path is not None:
                found = path
            elif not is_one_enough:
                found = None
            if (path is not None) == is_one_enough:
                break
        if found is None:
            self._hear(waiter)
        return found

    def _hear(self, future: Future) -> None:
        if not isinstance(future, asyncio.Future):
            self.needs_clock = True
        else:
            self.heard[future] = None


def waits_for(task: Task) -> set[Future]:
    """Return all that a task waits for: what that waits for, too."""
    seen: set[Future] = set()
    to_see: list[Future] = [task]
    while to_see:
        future = to_see.pop()
        if future in seen:
            continue
        seen.add(future)
        waiter = getattr(future, "_fut_waiter", None)
        if waiter is not None:
            coroutines = _with_generators(future.get_coro())  # type: ignore[attr-defined]  # of a task
            to_see += [waiter, *_awaited(coroutines, waiter)[0], *_waited_for(coroutines)]
        else:
            to_see += _sources(future)
    return seen - {task}


def _with_generators(coroutine: Any) -> list[Any]:
    """Return a coroutine, what it awaits, and so on, through the generators of a stream as well."""
    found = []
    while coroutine is not None:
        coroutine = getattr(coroutine, "child", coroutine)  # if it is blocked
        found.append(coroutine)
        coroutine = awaited_by(coroutine)
    return found


def _waited_for(coroutines: Iterable[Any]) -> Iterable[Future]:
    """Return what `asyncio.wait` and `asyncio.wait_for` wait for with a timeout."""
    for coroutine in coroutines:
        code = getattr(coroutine, "cr_code", None)
        if code is _WAIT:
            return tuple(local_of(coroutine.cr_frame, "fs"))
        if code is WAIT_FOR:
            return (local_of(coroutine.cr_frame, "fut"),)
    return ()


_WAIT = asyncio.tasks._wait.__code__  # type: ignore[attr-defined]  # noqa: SLF001  # `wait` awaits it


def _sources(future: Future) -> Iterable[Future]:
    """Return what a future ends with that belongs to no task; nothing if that can't be told."""
    children: Iterable[Future] | None = getattr(future, "_children", None)  # of asyncio.gather
    if children is not None:
        return children
    for callback, _ in getattr(future, "_callbacks", None) or ():
        if getattr(callback, "__qualname__", "") == "shield.<locals>._outer_done_callback":
            return (inspect.getclosurevars(callback).nonlocals["inner"],)
    return ()


def _awaited(coroutines: Iterable[Any], waiter: Future) -> _Awaited:
    """Return what a task waits for.

    Args:
        coroutines: That of the task, what that awaits, and so on.
        waiter: The future that wakes the task.
    """
    outer: Any = None
    for coroutine in coroutines:
        frame = getattr(coroutine, "cr_frame", None)
        if frame is not None:
            where = frame.f_globals.get("__name__"), frame.f_code.co_name
            look = _FRAMES.get(where)
            if look is not None:
                local = frame.f_locals
                found = look(local, outer)
                if local.__class__ is dict:
                    local.clear()  # see `local_of`
                return found
        outer = coroutine
    return (waiter,), True


def _of_wait(local: Mapping[str, Any], _: object) -> _Awaited:
    if local["timeout_handle"] is not None:
        return (), True
    return local["fs"], local["return_when"] == asyncio.ALL_COMPLETED


def _of_as_completed(local: Mapping[str, Any], outer: object) -> _Awaited:
    if sys.version_info >= (3, 13):  # pragma: no cover (of the newest, if combined)
        iterator = local["self"]
        todo: Iterable[Future] = iterator._todo  # noqa: SLF001  # nothing else tells it
        return () if iterator._timeout_handle else todo, False  # noqa: SLF001  # nor that
    # It is a generator, which the loop around it refers to.
    for found in gc.get_referents(outer):  # pragma: no cover (as above)
        if inspect.isgenerator(found) and found.gi_code is asyncio.as_completed.__code__:
            local = inspect.getgeneratorlocals(found)
            return () if local["timeout_handle"] else local["todo"], False
    return (), False  # pragma: no cover (as above)


def _of_group(local: Mapping[str, Any], _: object) -> _Awaited:
    group = local["self"]
    tasks: Iterable[Task] = group._tasks  # noqa: SLF001  # asyncio's name, and anyio's
    return tasks or getattr(group, "_background", None) or (), True


_FRAMES: dict[tuple[str, str], Callable[[Mapping[str, Any], object], _Awaited]] = {
    ("asyncio.tasks", "_wait"): _of_wait,
    ("asyncio.tasks", "_wait_for_one"): _of_as_completed,
    ("asyncio.taskgroups", "__aexit__"): _of_group,
    ("asyncio.taskgroups", "_aexit"): _of_group,
    ("anyio._backends._asyncio", "__aexit__"): _of_group,
    ("quattro_core._taskgroup", "__aexit__"): _of_group,
    ("quattro_core._taskgroup", "finish"): _of_group,
    ("quattro_core._gather", "_ended"): lambda local, _: (local["tasks"], True),
    ("quattro_core._map", "_news"): lambda local, _: (local["self"].workers, False),
}


def _coroutines(coroutine: Any) -> Iterator[Any]:
    """Yield a coroutine, what it awaits, what that awaits, and so on."""
    while coroutine is not None:
        if isinstance(coroutine, Blocked):
            coroutine = coroutine.child
        yield coroutine
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)


def _has_deadline(coroutine: object) -> bool:
    """Tell whether what a coroutine awaits is cancelled at some time.

    The `async with` or `with` that sees to it is nowhere but on the stack of the frame.
    """
    for found in gc.get_referents(coroutine):
        manager = found.__self__ if inspect.ismethod(found) else found
        if isinstance(manager, asyncio.Timeout):
            if manager.when() is not None and "[active]" in repr(manager):
                return True
        elif type(manager).__name__ == "CancelScope":  # of anyio
            if getattr(manager, "deadline", math.inf) < math.inf:
                return True
        elif isinstance(manager, _MANAGERS) and _has_deadline(getattr(manager, "gen", None)):
            return True  # such as anyio.fail_after(): a function with a scope in it
    return False


_MANAGERS = (AbstractContextManager, AbstractAsyncContextManager)
