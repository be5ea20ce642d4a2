"""How event loops and apps tell of their tasks, while a test watches."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from importlib import import_module
from typing import Any

from starlette.applications import Starlette

from quattro_web.testing import _leaks
from quattro_web.testing._leaks import LeakWatch, block_of


@contextmanager
def watching() -> Iterator[LeakWatch]:
    """Watch all event loops of the process, and all apps of Starlette and FastAPI, in the block.

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
        _leaks._watches.append(watch)  # noqa: SLF001
        stack.callback(_leaks._watches.remove, watch)  # noqa: SLF001
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
    async def __call__(self: Any, scope: Any, receive: Any, send: Any) -> None:  # noqa: N807
        with block_of(scope):
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
