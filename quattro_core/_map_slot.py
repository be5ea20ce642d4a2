"""Where a worker of a map puts its result."""

from __future__ import annotations

import asyncio
from typing import Any, Generic, TypeVar

R = TypeVar("R")

EMPTY: Any = object()


class Slot(Generic[R]):
    """The place that a worker has among the results: for one at a time, until it is taken."""

    __slots__ = ("taken", "value")

    def __init__(self) -> None:
        self.value: R = EMPTY
        self.taken: asyncio.Future[None] | None = None
