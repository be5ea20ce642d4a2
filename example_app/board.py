"""What is known right now, and who is watching."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from pydantic import BaseModel, Field

from example_app.probe import Result
from example_app.targets import Target

RECENT = 60
BACKLOG = 100


class Row(BaseModel):
    """A target with its latest results, the newest last."""

    target: Target
    recent: list[Result]


class Snapshot(BaseModel):
    """The whole board at one moment, *now*, in seconds since 1970."""

    now: float = Field(default_factory=time.time)
    rows: list[Row]


Event = Snapshot | Row | Result


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
        self.targets = {target.name: target for target in targets}
        self.closed = False
        self._recent: dict[str, deque[Result]] = {
            name: deque(maxlen=RECENT) for name in self.targets
        }
        self._subscriptions: set[Subscription] = set()

    def add(self, target: Target) -> None:
        """Put a new target onto the board."""
        self.targets[target.name] = target
        self._recent[target.name] = deque(maxlen=RECENT)
        self._offer(Row(target=target, recent=[]))

    def publish(self, result: Result) -> None:
        """Show a result to everybody, once; no subscriber can hold it up."""
        recent = self._recent[result.target]
        if all(result.id != other.id for other in recent):
            recent.append(result)
            self._offer(result)

    def snapshot(self) -> Snapshot:
        """Return all there is to see."""
        return Snapshot(
            rows=[
                Row(target=target, recent=list(self._recent[name]))
                for name, target in self.targets.items()
            ]
        )

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

    def _offer(self, event: Event | None) -> None:
        for subscription in self._subscriptions:
            subscription.offer(event)
