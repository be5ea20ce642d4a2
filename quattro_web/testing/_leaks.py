"""Tasks that are left behind: who has made them, and what they have outlived."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any
from weakref import WeakKeyDictionary

from quattro_web._pumps import name_of
from quattro_web._scope import describe
from quattro_web._where import where
from quattro_web.testing._origin import line_in, maker_of, may_be_in, outermost, root_of

Task = asyncio.Task[Any]

# Passes of the event loop that a task has to end, after what it was made in.
PASSES = 20

# Frames between the end of a runner and the loop that it runs once more.
ENDING_DEPTH = 6


class Block:
    """What tasks should not outlive: a request, or the lifespan of an app."""

    def __init__(self, name: str, task: Task) -> None:
        self.name = name
        self.task = task
        self.has_ended = False


class Made:
    """A task that the user's code has made outside of any task group."""

    def __init__(self, task: Task, parent: Task | None, block: Block | None, at: FrameType) -> None:
        self.task = task
        self._within = outermost(at, root_of(parent))
        self.loop = task.get_loop()
        # What is made while the loop does not run is in the hands of whoever runs it.
        self.is_of_the_loop = self.loop.is_running()
        self.was_cancelled = False
        self._parent = parent
        self._block = block
        self._at = line_in(at)

    def is_in(self, block: Block) -> bool:
        return self._block is block

    @property
    def is_orphan(self) -> bool:
        """Whether who has made it has ended, so that nobody may be waiting for it."""
        parent, block = self._parent, self._block
        if parent is None or parent.done():
            return True
        if block is not None and block.has_ended and parent is block.task:
            return True
        return self._within is not None and not may_be_in(parent, self._within)

    @property
    def has_context(self) -> bool:
        """Whether it was made in a task, and not in one of an app that goes on."""
        return self._parent is not None and (self._block is None or self._block.has_ended)

    def describe(self, otherwise: str) -> str:
        """Return who has made it, and where it is now.

        Args:
            otherwise: What it has outlived, if it was not made in a block.
        """
        ended = self._block is not None and self._block.has_ended
        when = f"{self._block.name} had ended" if self._block and ended else otherwise
        made, line = self._at
        name = name_of(self.task.get_coro()) or "?"
        return (
            f"{name} ({self.task.get_name()}), made in {made}\n"
            f"    {line}\n"
            f"  was still running when {when}, at {where(self.task)}"
        )


class LeakWatch:
    """Knows which tasks are made, and which of them are left behind.

    It is told by event loops; see `watching`.

    Attributes:
        left: What was left behind so far, each with all that is to be said of it.
    """

    def __init__(self) -> None:
        self.left: list[str] = []
        # Those that are not done: nothing is kept alive for longer than without a watch.
        self._made: dict[Task, Made] = {}
        self._blocks: WeakKeyDictionary[Task, Block] = WeakKeyDictionary()

    def made(self, loop: asyncio.AbstractEventLoop, task: Any, caller: FrameType) -> None:
        """Take note of a new task."""
        if not isinstance(task, asyncio.Task):
            return  # a task factory may return what it likes
        parent = asyncio.current_task(loop)
        block = None if parent is None else self._blocks.get(parent)
        if block is not None:
            self._blocks[task] = block
        if task.done():
            return  # an eager one
        maker = maker_of(caller)
        if maker is not None:
            self._made[task] = Made(task, parent, block, maker)
            task.add_done_callback(self._forget)

    @contextmanager
    def block(self, name: str) -> Iterator[None]:
        """Watch a request or a lifespan, which the current task serves."""
        task = _current_task()
        if task is None or task in self._blocks:
            yield  # it is served inside of another
            return
        block = self._blocks[task] = Block(name, task)
        try:
            yield
        finally:
            del self._blocks[task]
            block.has_ended = True
            if any(made.is_in(block) for made in self._pending()):
                self._look(task.get_loop(), block, PASSES)

    def _look(self, loop: asyncio.AbstractEventLoop, block: Block, passes: int) -> None:
        if passes:
            loop.call_soon(self._look, loop, block, passes - 1)
            return
        for made in self._pending(loop):
            if made.is_in(block) and made.is_orphan and not made.task.cancelling():
                self._leave(made, "")

    # What a loop tells

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

    def _leave(self, made: Made, otherwise: str) -> None:
        self.left.append(made.describe(otherwise))
        self._forget(made.task)

    def _forget(self, task: Task) -> None:
        self._made.pop(task, None)

    def _pending(self, loop: asyncio.AbstractEventLoop | None = None) -> list[Made]:
        return [
            made
            for made in tuple(self._made.values())
            if not made.task.done() and loop in (None, made.loop)
        ]


def block_of(scope: Mapping[str, Any]) -> Any:
    """Return a context manager for what serves an ASGI scope; it watches if a test does."""
    watch = _watches[-1] if _watches else None
    return _nothing() if watch is None else watch.block(_name(scope))


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _name(scope: Mapping[str, Any]) -> str:
    return "the lifespan of the app" if scope["type"] == "lifespan" else describe(scope)


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


_watches: list[LeakWatch] = []
