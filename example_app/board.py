"""What is known right now, and who is watching."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from pydantic import BaseModel, Field

from example_app.probe import Result
from example_app.status import Status, status_of
from example_app.targets import Target

RECENT = 60
BACKLOG = 100


class TargetState(BaseModel):
    """A target, and how it is."""

    target: Target
    status: Status


class Row(TargetState):
    """A target with its latest results, the newest last."""

    recent: list[Result]


class Snapshot(BaseModel):
    """The whole board at one moment, *now*, in seconds since 1970."""

    now: float = Field(default_factory=time.time)
    rows: list[Row]


class Update(BaseModel):
    """A new result, and how its target is after it."""

    result: Result
    status: Status


class Removed(BaseModel):
    """A target is not on the board any more."""

    name: str


Event = Snapshot | Row | Removed | Update


class Subscription:
    """What one subscriber has yet to read."""

    def __init__(self, board: Board, backlog: int) -> None:
        self._board = board
        self._events: asyncio.Queue[Event | None] = asyncio.Queue(backlog)
        self.offer(board.snapshot())

    def offer(self, event: Event | None) -> None:
        """Add an event, without ever waiting.

        For who has fallen too far behind, a new snapshot takes the place of all that was missed.
        """
        if self._events.full():
            while not self._events.empty():
                self._events.get_nowait()
            if event is not None:
                event = self._board.snapshot()
        self._events.put_nowait(event)

    async def next(self) -> Event | None:
        """Return the next event, first a snapshot; None when the board is closed."""
        return await self._events.get()


class Board:
    """Targets, their latest results, and the subscribers who hear of new ones."""

    def __init__(self, targets: Iterable[Target] = ()) -> None:
        self.targets: dict[str, Target] = {}
        self.closed = False
        self._recent: dict[str, deque[Result]] = {}
        self._subscriptions: set[Subscription] = set()
        self.show(targets)

    def show(self, targets: Iterable[Target]) -> None:
        """Have these targets on the board and no others; subscribers hear what has changed."""
        before, self.targets = self.targets, {target.name: target for target in targets}
        self._recent = {name: self._recent.get(name, deque(maxlen=RECENT)) for name in self.targets}
        # From here on a snapshot is whole, which some subscribers get instead of an event.
        for name in before.keys() - self.targets.keys():
            self._offer(Removed(name=name))
        for name, target in self.targets.items():
            if target != before.get(name):
                self._offer(self._row(target))

    def publish(self, result: Result) -> None:
        """Show a result to everybody, once; no subscriber can hold it up.

        Nobody sees one of a target that was deleted while it was probed.
        """
        recent = self._recent.get(result.target)
        if recent is not None and all(result.id != other.id for other in recent):
            recent.append(result)
            self._offer(Update(result=result, status=self.status(result.target)))

    def snapshot(self) -> Snapshot:
        """Return all there is to see."""
        return Snapshot(rows=[self._row(target) for target in self.targets.values()])

    def status(self, name: str) -> Status:
        """Return how a target is."""
        return status_of(self.targets[name], self._recent[name])

    @contextmanager
    def subscribe(self, backlog: int = BACKLOG) -> Iterator[Subscription]:
        """Subscribe for as long as the block lasts."""
        subscription = Subscription(self, backlog)
        if self.closed:
            subscription.offer(None)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    def close(self) -> None:
        """Tell every subscriber that nothing more will come."""
        self.closed = True
        self._offer(None)

    def _row(self, target: Target) -> Row:
        recent = list(self._recent[target.name])
        return Row(target=target, status=status_of(target, recent), recent=recent)

    def _offer(self, event: Event | None) -> None:
        for subscription in self._subscriptions:
            subscription.offer(event)
