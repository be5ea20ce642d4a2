"""Where a task hangs, from the frames in which it is suspended, and its name."""

from __future__ import annotations

import asyncio
import concurrent.futures.thread
import os
import sys
import sysconfig
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from functools import lru_cache, partial
from itertools import islice
from types import FrameType
from typing import Any

from starlette.concurrency import iterate_in_threadpool

import quattro_core
from quattro_core._deadlock import Blocked
from quattro_core._threads import awaited_by, frame_of, is_thread_call, local_of
from quattro_core._workers import IN_PROCESS, IN_THREAD
from quattro_web._util.escaping import escaped

# Of what a log entry lists: a server may have thousands of streams open, and a request children.
MOST_LINES = 20

# A line in one of these only waits: the line that has called it says more. One of ours, whose names
# are private, says nothing at all.
_OURS = frozenset({"quattro_core", "quattro_web"})
_LIBRARIES = frozenset({"anyio", "asyncio"}) | _OURS
# Those that call an app, so that none of them is one.
_CALLERS = _LIBRARIES | {
    "concurrent",
    "contextlib",
    "fastapi",
    "granian",
    "hypercorn",
    "starlette",
    "threading",
    "uvicorn",
}

# The packages whose responses iterate over an attribute of one name, the methods in which they do,
# and their generator around those that block.
_RESPONSES = frozenset({"sse_starlette", "starlette"})
_SENDS = frozenset({"_stream_response", "stream_response"})
_IN_THREADS = iterate_in_threadpool.__code__
_CLOSES = AsyncExitStack.__aexit__.__code__

_STANDARD_LIBRARY = tuple(
    os.path.join(sysconfig.get_path(name), "")  # noqa: PTH118  # compared as text
    for name in ("stdlib", "platstdlib")
)
_OUR_FOLDERS = tuple(
    os.path.join(os.path.dirname(path), "")  # noqa: PTH118, PTH120  # likewise
    for path in (str(quattro_core.__file__), os.path.dirname(__file__))  # noqa: PTH120
)
_ANYIO = f"{os.sep}anyio{os.sep}"
_INSTALLED = frozenset({"dist-packages", "site-packages"})

_Stack = list[FrameType]

# What a child of a request awaits before the first step of its task.
_FIRST_STEP = type(iter(()))


def name_of(function: object) -> str | None:
    """Return the name of a function or coroutine, as its author knows it; None if it has none."""
    while isinstance(function, partial):
        function = function.func
    name: str | None = getattr(function, "__qualname__", None)
    return name


def task_name(task: asyncio.Task[Any]) -> str:
    """Return the name of a task, for logs: escaped, since the app may name it after a request."""
    return escaped(task.get_name())


def coroutine_of(task: asyncio.Task[Any]) -> Any:
    """Return the coroutine of a task; None if the task is done.

    `asyncio.Task.get_coro` ends the process with signal 11 on Python 3.12.0 to 3.12.4 if the task
    has ended in the first step of an eager one (https://github.com/python/cpython/issues/122332).
    """
    return None if task.done() else task.get_coro()


def waits_for_thread(task: asyncio.Task[Any]) -> bool:
    """Whether *task* waits for a worker thread that anyio has started, as for a ``def`` endpoint.

    A thread can't be cancelled, and `asyncio.Task.cancel` breaks through anyio's shield around the
    wait for it: the thread would go on without the dependencies that are closed then.
    """
    return any(map(is_thread_call, frames_of(task)[0]))


def closes_stack(task: asyncio.Task[Any]) -> bool:
    """Whether *task* closes an exit stack, as FastAPI does at the end of a request."""
    return any(frame.f_code is _CLOSES for frame in frames_of(task)[0])


def where(task: asyncio.Task[Any], *, listed: Collection[asyncio.Task[Any]] = ()) -> str:
    """Return the line at which *task* is suspended, as ``function, file:line``.

    That is the last line of the app's own code, in the task or in one that it waits for, such as
    that of a body which streams. The function of the task is added if it is another one, and so is
    the line at which a library waits: ``function, file:line, called by function, waiting in
    function, file:line``. Lines of asyncio and of this project don't count: a task that has no
    other is "waiting".

    Args:
        task: The task.
        listed: Tasks that are named beside it.
    """
    stacks = list(_stacks(task, {task, *listed}))
    for find in (_of_the_app, _of_the_outermost_package):
        places = [_place(stack, own) for stack in stacks if (own := find(stack))]
        if places:
            return ", and ".join(dict.fromkeys(places))
    frames = frames_of(task)[0]
    function = called_in_process(frames)
    if function is not None:
        return f"waiting for a process, in {name_of(function)}"
    found = [frame for frame in frames if package_of(frame) not in _LIBRARIES]
    found = found or [frame for frame in frames if package_of(frame) not in _OURS]
    if found:
        return line_of(found[-1])
    return "waiting" if frames else "not started"


def named_places(tasks: Iterable[tuple[str, asyncio.Task[Any]]]) -> str:
    """Return the name of each task, with where it is: ``name (where), name (where)``.

    Of more than `MOST_LINES`, which a client may have asked for, the rest becomes its number.
    """
    names = {task: name for name, task in tasks}
    shown = islice(names.items(), MOST_LINES)
    places = (f"{name} ({where(task, listed=names)})" for task, name in shown)
    return ", ".join([*places, *more_than_shown(len(names))])


def more_than_shown(count: int) -> list[str]:
    """Return what follows the first lines in a log entry: how many of *count* are not in it."""
    return [f"and {count - MOST_LINES} more"] if count > MOST_LINES else []


def _stacks(task: asyncio.Task[Any], seen: set[asyncio.Task[Any]]) -> Iterator[_Stack]:
    """Yield the frames of a task, and of those that it waits for, without those of ours."""
    frames = inside_of_middleware(frames_of(task)[0])
    stack = [*with_bodies(frames), *thread_frames(frames)]
    yield [frame for frame in stack if package_of(frame) not in _LIBRARIES]
    for awaited in _awaited_by(task):
        if awaited not in seen:
            seen.add(awaited)
            yield from _stacks(awaited, seen)


def with_bodies(frames: Iterable[FrameType]) -> Iterator[FrameType]:
    """Yield frames, and before each that sends a piece of a body that of the body's generator.

    It is suspended where it has yielded that piece, and nothing awaits it while a client does not
    read.
    """
    for frame in frames:
        if frame.f_code.co_name in _SENDS and package_of(frame) in _RESPONSES:
            body = getattr(frame.f_locals.get("self"), "body_iterator", None)
            found = frame_of(body)
            if found is not None and found.f_code is _IN_THREADS:
                found = frame_of(found.f_locals.get("as_iterator"))
            if found is not None and found not in frames:
                yield found
        yield frame


def _awaited_by(task: asyncio.Task[Any]) -> Iterator[asyncio.Task[Any]]:
    """Yield the task that a task awaits, and those in the task groups of anyio that it is in."""
    waiter = getattr(task, "_fut_waiter", None)
    if isinstance(waiter, asyncio.Task):
        yield waiter
    # What is public, `anyio.get_running_tasks`, goes through all tasks of the loop each time.
    states = getattr(sys.modules.get("anyio._backends._asyncio"), "_task_states", {})
    scope = getattr(states.get(task), "cancel_scope", None)
    while scope is not None and scope._host_task is task:  # noqa: SLF001  # as above
        yield from tuple(scope._tasks)  # noqa: SLF001  # as above
        # A task with a scope of its own is in that one.
        yield from (inner._host_task for inner in tuple(scope._child_scopes))  # noqa: SLF001
        scope = scope._parent_scope  # noqa: SLF001  # as above


def is_in_module(task: asyncio.Task[Any], module: str) -> bool:
    """Whether a task, or one that it waits for, is in a function of a module."""
    seen, tasks = {task}, [task]
    while tasks:
        task = tasks.pop()
        if any(frame.f_globals.get("__name__") == module for frame in frames_of(task)[0]):
            return True
        awaited = set(_awaited_by(task)) - seen
        seen |= awaited
        tasks += awaited
    return False


def thread_frames(frames: Iterable[FrameType]) -> _Stack:
    """Return the frames of the thread that a task waits for, the outermost one first.

    That is one of anyio's, or of the event loop's pool. There are none while all threads are busy.
    """
    stack: _Stack = []
    for frame in frames:
        if frame.f_code.co_name == "run_sync_in_worker_thread":
            worker = local_of(frame, "worker")
            ident = getattr(worker, "ident", None) or 0
            stack += _outermost_first(sys._current_frames().get(ident))  # noqa: SLF001  # nothing else tells
        elif frame.f_code in IN_THREAD:
            stack += _pool_frames(local_of(frame, "func_call"))
    return stack


def _pool_frames(call: object) -> _Stack:
    """Return the frames of the thread of a `concurrent.futures` pool that calls *call*."""
    for innermost in sys._current_frames().values():  # noqa: SLF001  # as above
        frame: FrameType | None = innermost
        while frame is not None and frame.f_code is not _RUNS_WORK:
            frame = frame.f_back
        if frame is not None:
            item = local_of(frame, "self")
            work = getattr(item, "fn", None) or getattr(item, "task", (None,))[0]  # of 3.14
            if work is call:
                return _outermost_first(innermost)
    return []


_RUNS_WORK = concurrent.futures.thread._WorkItem.run.__code__  # noqa: SLF001  # as above


def _outermost_first(innermost: FrameType | None) -> _Stack:
    stack: _Stack = []
    while innermost is not None:
        stack.insert(0, innermost)
        innermost = innermost.f_back
    return stack


def called_in_process(frames: Iterable[FrameType]) -> Any:
    """Return the function that a task has called in another process; None if it has not."""
    for frame in frames:
        if frame.f_code is IN_PROCESS:
            return local_of(frame, "function")
    return None


def _of_the_app(stack: _Stack) -> _Stack:
    """Return the frames of code that is not installed."""
    return [frame for frame in stack if is_users(frame.f_code.co_filename)]


def _of_the_outermost_package(stack: _Stack) -> _Stack:
    """Return the frames of the package that was called first: that of an app that is installed."""
    packages = [package for frame in stack if (package := package_of(frame)) not in _CALLERS]
    return [frame for frame in stack if package_of(frame) == packages[0]] if packages else []


def own_frames(frames: Sequence[FrameType]) -> _Stack:
    """Return those of the app's own code; of an app that is installed, those of its package."""
    stack = [frame for frame in frames if package_of(frame) not in _LIBRARIES]
    return _of_the_app(stack) or _of_the_outermost_package(stack)


def inside_of_middleware(frames: _Stack) -> _Stack:
    """Return frames without those around our middleware: they have called the app."""
    begin = 0
    for number, frame in enumerate(frames):
        if frame.f_globals.get("__name__") == "quattro_web._middleware":
            begin = number
    return frames[begin:]


def waits_for_turn(task: asyncio.Task[Any]) -> bool:
    """Whether a child waits for a free place of a limit, to begin or to go on."""
    return isinstance(getattr(task, "_fut_waiter", None), Blocked)


def runs_the_app(task: asyncio.Task[Any]) -> bool:
    """Whether a task runs a function of the app's, so that its author knows it.

    Only of an app that is not installed. It looks at no frame: asking for one makes it.
    """
    coro = coroutine_of(task)
    if _ANYIO in _file_of(coro):  # it has a coroutine of its own around the function
        coro = coro.cr_await
    path = _file_of(coro)
    return bool(path) and is_users(path) and not path.startswith(_OUR_FOLDERS)


def _file_of(coro: object) -> str:
    code = getattr(coro, "cr_code", None)
    return "" if code is None else str(code.co_filename)


def _place(stack: _Stack, own: _Stack) -> str:
    place = line_of(own[-1])
    if own[0] is stack[0] and own[0].f_code is not own[-1].f_code:
        place += f", called by {own[0].f_code.co_qualname}"
    return place if own[-1] is stack[-1] else f"{place}, waiting in {line_of(stack[-1])}"


@lru_cache(maxsize=1000)
def is_users(path: str) -> bool:
    """Whether a file is of neither the standard library nor an installed package."""
    if path.startswith("<frozen "):
        return False
    path = os.path.realpath(path)
    return not path.startswith(_STANDARD_LIBRARY) and _INSTALLED.isdisjoint(path.split(os.sep))  # noqa: PTH206  # it is called often


def line_of_thread(innermost: FrameType) -> str:
    """Return the line at which a thread is, as `line_of`: the innermost one that is not ours."""
    frame: FrameType | None = innermost
    while frame is not None and package_of(frame) in _OURS:
        frame = frame.f_back
    return "waiting" if frame is None else line_of(frame)


def place_in_thread(innermost: FrameType) -> str:
    """Return the line of the app's own code at which a thread is, as `where`."""
    stack: _Stack = []
    frame: FrameType | None = innermost
    while frame is not None:
        if package_of(frame) not in _LIBRARIES:
            stack.insert(0, frame)
        frame = frame.f_back
    own = _of_the_app(stack)
    return _place(stack, own) if own else line_of_thread(innermost)


def line_of(frame: FrameType) -> str:
    """Return the line at which a frame is, as ``function, file:line``."""
    return f"{frame.f_code.co_qualname}, {frame.f_code.co_filename}:{frame.f_lineno}"


def frames_of(task: asyncio.Task[Any]) -> tuple[list[FrameType], object]:
    """Return the frames in which *task* is suspended, the outermost one first, and what it awaits.

    That has no frame: a future, most of the time. A task that has not started has none, either.
    """
    frames = []
    awaitable: Any = coroutine_of(task)
    if not _has_started(awaitable):
        return [], None
    while awaitable is not None:
        frame = frame_of(awaitable)
        if frame is None:
            break
        frames.append(frame)
        awaitable = awaited_by(awaitable)
    return frames, awaitable


def package_of(frame: FrameType) -> str:
    """Return the name of the outermost package of the code of a frame."""
    return str(frame.f_globals.get("__name__")).partition(".")[0]


def _has_started(coro: Any) -> bool:
    if type(getattr(coro, "cr_await", None)) is _FIRST_STEP:
        return False
    # As `inspect.getcoroutinestate`, of what looks like a coroutine as well.
    return getattr(coro, "cr_suspended", True) or getattr(coro, "cr_running", True)
