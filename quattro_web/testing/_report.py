"""What is said of tasks that were left behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from quattro_web.testing._watching import watching


class LeakedTaskError(AssertionError):
    """Tasks were left behind: the message names each, and the line that has made it.

    .. versionadded:: 0.1
    """


@contextmanager
def no_leaked_tasks() -> Iterator[None]:
    """Fail if a task that is made in the block is left behind; the fixture of that name does so.

    For tests that don't run under pytest. It must not be entered while an event loop runs whose
    end it should see: put it around ``asyncio.run``.

    Raises:
        LeakedTaskError: If there is one, and the block has not failed itself.

    .. versionadded:: 0.1
    """
    with watching() as watch:
        yield
    if left := watch.left:
        count = "1 task was" if len(left) == 1 else f"{len(left)} tasks were"
        raise LeakedTaskError("\n\n".join([f"{count} left behind:", *left, _ADVICE]))


_ADVICE = (
    "Await it, or make it in a group: RequestTaskGroup ends before the response, AppTaskGroup is "
    "for what outlives it."
)
