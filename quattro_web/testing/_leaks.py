"""Tasks that are left behind: what created them, and what they outlived."""

from __future__ import annotations

import asyncio
import linecache
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from importlib import import_module
from types import CodeType, FrameType
from typing import Any
from weakref import WeakKeyDictionary

from starlette.applications import Starlette

from quattro_web._util.scope import describe
from quattro_web._util.task_stacks import (
    coroutine_of,
    frames_of,
    is_users,
    name_of,
    task_name,
    where,
)

Task = asyncio.Task[Any]

# Passes of the event loop that a task has to end, after what it was made in.
PASSES = 20

# Frames between the end of a runner and the loop that it runs once more.
ENDING_DEPTH = 6

# Whoever makes a task in a group of these has an owner for it: the group does not end before it.
_GROUPS = frozenset({"anyio", "quattro_core", "quattro_web", "trio"})

# The packages between a call of the user's and the event loop.
_LOOPS = frozenset({"asyncio", "uvloop"})

_ADVICE = (
    "Await it, or start it in a group: RequestTaskGroup for tasks that end before the response, "
    "AppTaskGroup for those that outlive it."
)

_watches: list[LeakWatch] = []  # the innermost one last


class LeakedTaskError(AssertionError):
    """Tasks were left behind; the message names each one, and the line that created it.

    .. versionadded:: 0.1
    """


@contextmanager
def no_leaked_tasks() -> Iterator[None]:
    """Fail if a task created in the block is left behind, as the pytest fixture of the same name
    does.

    For tests that don't run under pytest. Enter it before the event loop starts: put it around
    ``asyncio.run``.

    Raises:
        LeakedTaskError: If a task was left behind, and the block did not fail itself.

    .. versionadded:: 0.1
    """
    with watching() as watch:
        yield
    if left := watch.left:
        count = "1 task was" if len(left) == 1 else f"{len(left)} tasks were"
        raise LeakedTaskError("\n\n".join([f"{count} left behind:", *left, _ADVICE]))


def watch_scope(scope: Mapping[str, Any]) -> Any:
    """Return a context manager for what serves an ASGI scope; it watches if a test does."""
    watch = _watches[-1] if _watches else None
    return _nothing() if watch is None else watch.scope(_name(scope))


class LeakWatch:
    """Knows which tasks are made, and which of them are left behind.

    Event loops call it; see `watching`.

    Attributes:
        left: A description of each task that was left behind so far.
    """

    def __init__(self) -> None:
        self.left: list[str] = []
        # Those that are not done: nothing is kept alive for longer than without a watch.
        self._made: dict[Task, WatchedTask] = {}
        self._scopes: WeakKeyDictionary[Task, WatchedScope] = WeakKeyDictionary()

    def made(self, loop: asyncio.AbstractEventLoop, task: Any, caller: FrameType) -> None:
        """Take note of a new task."""
        if not isinstance(task, asyncio.Task):
            return  # a task factory may return what it likes
        parent = asyncio.current_task(loop)
        scope = None if parent is None else self._scopes.get(parent)
        if scope is not None:
            self._scopes[task] = scope
        if task.done():
            return  # an eager one
        maker = maker_of(caller)
        if maker is not None:
            self._made[task] = WatchedTask(task, parent, scope, maker)
            task.add_done_callback(self._forget)

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Watch a request or a lifespan, which the current task serves."""
        task = _current_task()
        if task is None or task in self._scopes:
            yield  # it is served inside of another
            return
        scope = self._scopes[task] = WatchedScope(name, task)
        try:
            yield
        finally:
            del self._scopes[task]
            scope.has_ended = True
            if any(made.is_in(scope) for made in self._pending()):
                self._look(task.get_loop(), scope, PASSES)

    def _look(self, loop: asyncio.AbstractEventLoop, scope: WatchedScope, passes: int) -> None:
        if passes:
            loop.call_soon(self._look, loop, scope, passes - 1)
            return
        for made in self._pending(loop):
            if made.is_in(scope) and made.is_orphan and not made.task.cancelling():
                self._leave(made, "")

    # Called by event loops

    def loop_stops(self, loop: asyncio.AbstractEventLoop) -> None:
        """Remember what was cancelled while the loop ran: by code that knows of it."""
        for made in self._pending(loop):
            made.was_cancelled = made.task.cancelling() > 0

    def loop_starts(self, loop: asyncio.AbstractEventLoop) -> None:
        """See what was cancelled while the loop did not run, as its runner ends it."""
        if not _is_ending(sys._getframe(1)):  # noqa: SLF001  # no other call tells of it
            return
        for made in self._pending(loop):
            # Once by the loop; what the user has cancelled as well was not forgotten.
            is_first = made.task.cancelling() == 1 and not made.was_cancelled
            if is_first and made.is_of_the_loop and made.is_orphan:
                self._leave(made, "its event loop ended")

    def loop_closes(self, loop: asyncio.AbstractEventLoop) -> None:
        """See what a loop has never run to its end."""
        for made in self._pending(loop):
            if not made.task.cancelling() and made.is_orphan:
                self._leave(made, "its event loop was closed")

    def test_ends(self) -> None:
        """See what goes on in loops that go on, and has nobody who waits for it."""
        for made in self._pending():
            if made.is_orphan and made.has_context and not made.task.cancelling():
                self._leave(made, "the test ended")
        self._made.clear()

    def _leave(self, made: WatchedTask, otherwise: str) -> None:
        self.left.append(made.describe(otherwise))
        self._forget(made.task)

    def _forget(self, task: Task) -> None:
        self._made.pop(task, None)

    def _pending(self, loop: asyncio.AbstractEventLoop | None = None) -> list[WatchedTask]:
        return [
            made
            for made in tuple(self._made.values())
            if not made.task.done() and loop in (None, made.loop)
        ]


class WatchedScope:
    """A request, or the lifespan of an app: tasks made in it should end with it."""

    def __init__(self, name: str, task: Task) -> None:
        self.name = name
        self.task = task
        self.has_ended = False


class WatchedTask:
    """A task that the user's code has made outside of any task group."""

    def __init__(
        self, task: Task, parent: Task | None, scope: WatchedScope | None, at: FrameType
    ) -> None:
        self.task = task
        self._within = outermost(at, root_of(parent))
        self.loop = task.get_loop()
        # A task that is made while the loop does not run belongs to whoever runs the loop.
        self.is_of_the_loop = self.loop.is_running()
        self.was_cancelled = False
        self._parent = parent
        self._scope = scope
        self._at = line_in(at)

    def is_in(self, scope: WatchedScope) -> bool:
        return self._scope is scope

    @property
    def is_orphan(self) -> bool:
        """Whether who has made it has ended, so that nobody may be waiting for it."""
        parent, scope = self._parent, self._scope
        if parent is None or parent.done():
            return True
        if scope is not None and scope.has_ended and parent is scope.task:
            return True
        return self._within is not None and not may_be_in(parent, self._within)

    @property
    def has_context(self) -> bool:
        """Whether it was made in a task, and not in one of an app that goes on."""
        return self._parent is not None and (self._scope is None or self._scope.has_ended)

    def describe(self, otherwise: str) -> str:
        """Return who has made it, and where it is now.

        Args:
            otherwise: What it has outlived, if it was not made in a request or a lifespan.
        """
        ended = self._scope is not None and self._scope.has_ended
        when = f"{self._scope.name} had ended" if self._scope and ended else otherwise
        made, line = self._at
        name = name_of(coroutine_of(self.task)) or "?"
        return (
            f"{name} ({task_name(self.task)}), made in {made}\n"
            f"    {line}\n"
            f"  was still running when {when}, at {where(self.task)}"
        )


@contextmanager
def watching() -> Iterator[LeakWatch]:
    """Watch the tasks that are made in the block, in every event loop and every Starlette app.

    A loop has no hook that tells who has made a task: its task factory belongs to the user, and
    loops are made, used and closed by all sorts of test runners. So their classes are patched, and
    put back at the end.
    """
    watch = LeakWatch()
    with ExitStack() as stack:
        for loop in _loop_classes():
            for name, wrap in _WRAPPERS.items():
                stack.enter_context(_replaced(loop, name, partial(wrap, watch)))
        stack.enter_context(_replaced(Starlette, "__call__", _serve))
        _watches.append(watch)
        stack.callback(_watches.remove, watch)
        yield watch
        watch.test_ends()


def _loop_classes() -> list[type[Any]]:
    classes: list[type[Any]] = [asyncio.BaseEventLoop]
    with suppress(ImportError):  # a test may import it later
        classes.append(import_module("uvloop").Loop)
    return classes


@contextmanager
def _replaced(owner: type[Any], name: str, wrap: Callable[[Any], Any]) -> Iterator[None]:
    is_own = name in vars(owner)
    original = getattr(owner, name)
    setattr(owner, name, wrap(original))
    try:
        yield
    finally:
        if is_own:
            setattr(owner, name, original)
        else:
            delattr(owner, name)


def _serve(original: Any) -> Any:
    async def __call__(self: Any, scope: Any, receive: Any, send: Any) -> None:  # noqa: N807  # it replaces one
        with watch_scope(scope):
            await original(self, scope, receive, send)

    return __call__


def _create_task(watch: LeakWatch, original: Any) -> Any:
    def create_task(self: Any, *args: Any, **kwargs: Any) -> Any:
        task = original(self, *args, **kwargs)
        watch.made(self, task, sys._getframe(1))  # noqa: SLF001  # as asyncio's debug mode
        return task

    return create_task


def _run(watch: LeakWatch, original: Any) -> Any:
    def run(self: Any, *args: Any) -> Any:
        watch.loop_starts(self)
        try:
            return original(self, *args)
        finally:
            watch.loop_stops(self)

    return run


def _close(watch: LeakWatch, original: Any) -> Any:
    def close(self: Any) -> None:
        watch.loop_closes(self)
        original(self)

    return close


_WRAPPERS: dict[str, Callable[[LeakWatch, Any], Any]] = {
    "create_task": _create_task,
    "run_forever": _run,
    "run_until_complete": _run,
    "close": _close,
}


def _current_task() -> Task | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None  # trio


def _is_ending(frame: FrameType | None) -> bool:
    """Whether a loop runs to end what was cancelled: runners have a function of that name."""
    for _ in range(ENDING_DEPTH):
        if frame is None or frame.f_code.co_name == "_cancel_all_tasks":
            return frame is not None
        frame = frame.f_back
    return False


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _name(scope: Mapping[str, Any]) -> str:
    return "the lifespan of the app" if scope["type"] == "lifespan" else describe(scope)


def maker_of(frame: FrameType | None) -> FrameType | None:
    """Return the frame of the user's code that makes a task by itself, outside of any task group.

    None if it is made by a task group, by an installed package, or by the loop.

    Args:
        frame: The frame that calls the loop's ``create_task``.
    """
    while frame is not None:  # pragma: no branch  # the loop runs in a function of the watch's
        module = str(frame.f_globals.get("__name__"))
        package = module.partition(".")[0]
        if package in _GROUPS or module == "asyncio.taskgroups":
            break
        if package not in _LOOPS:
            return frame if is_users(frame.f_code.co_filename) else None
        frame = frame.f_back
    return None


def outermost(maker: FrameType, root: FrameType | None) -> CodeType | None:
    """Return the function of the user's that the current task has come to *maker* by.

    None if it can't be told.

    Args:
        maker: The frame that makes a task.
        root: The outermost frame of the current task.
    """
    frame: FrameType | None = maker
    found = None
    while frame is not None:
        if is_users(frame.f_code.co_filename):
            found = frame.f_code
        if frame is root:
            return found
        frame = frame.f_back
    return None


def root_of(task: asyncio.Task[Any] | None) -> FrameType | None:
    """Return the outermost frame of a task, if it has a coroutine with one."""
    return None if task is None else getattr(coroutine_of(task), "cr_frame", None)


def may_be_in(task: asyncio.Task[Any], code: CodeType) -> bool:
    """Whether a task may be suspended in a function.

    One that another thread runs just now shows nothing behind the coroutine that is running, or one
    that has ended since its frame was looked up.
    """
    frames, innermost = frames_of(task)
    hides = innermost is None or hasattr(innermost, "cr_frame")
    return hides or any(frame.f_code is code for frame in frames)


def line_in(frame: FrameType) -> tuple[str, str]:
    """Return where a frame is, as ``function, file:line``, and what the line says."""
    path, number = frame.f_code.co_filename, frame.f_lineno
    where = f"{frame.f_code.co_qualname}, {path}:{number}"
    return where, linecache.getline(path, number).strip()
