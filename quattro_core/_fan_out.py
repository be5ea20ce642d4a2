"""The task group: one call for each of many items, and what they return."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from quattro_core._gather import Gathering
from quattro_core._map import MapRun
from quattro_core._map_results import MapResults
from quattro_core._shared import checked_limit

if TYPE_CHECKING:
    from quattro_core._taskgroup import TaskGroup

T = TypeVar("T")
R = TypeVar("R")


class FanOut(Gathering):
    """How a group makes many calls, and hands out what they return."""

    def map(
        self,
        function: Callable[[T], Coroutine[Any, Any, R]],
        iterable: Iterable[T] | AsyncIterable[T],
        *,
        limit: int,
        ordered: bool = False,
    ) -> MapResults[R]:
        """Call a coroutine function with every item, a few at a time, and iterate over the results.

        ::

            async for page in group.map(fetch, urls, limit=10): ...

        Items are pulled when there is room for them: at most twice *limit* have been pulled and
        are not handed out as results yet, however many there are and however slow the consumer is.
        The work begins with the iteration and ends with it: the calls are made by background tasks
        of the group, so that the group does not wait for them, and its `concurrency_limit` does not
        count them. These tasks make one call after the other, and share a copy of the current
        context each: what a call sets in a context variable, later ones may see.

        An error of a call, or of the iterable, is that of a child: it aborts the group.

        Args:
            function: A coroutine function of one argument.
            iterable: The items, as an iterable or an asynchronous iterable. It is not closed.
            limit: How many calls run at once, at most.
            ordered: Whether results come in the order of the items, rather than as they are ready.

        Returns:
            The results, to iterate over with ``async for``. Leaving the loop early, so that nobody
            holds them any more, cancels the calls that are running; ``async with`` also waits for
            their clean-up.

        Raises:
            RuntimeError: If the group is not open, or if the call comes from another thread than
                the event loop's.
            TypeError: If *function* is not callable, *iterable* can't be iterated over, or *limit*
                is not an int.
            ValueError: If *limit* is below 1.

        .. versionadded:: 0.1
        """
        self._check_state()
        self._check_thread("map")
        checked_limit("limit", limit, optional=False)
        if not callable(function):
            msg = f"function must be a coroutine function of one argument, got {function!r}"
            raise TypeError(msg)
        group = cast("TaskGroup", self)
        return MapResults(MapRun(group, function, iterable, limit=limit, ordered=ordered))
