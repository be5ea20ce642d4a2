"""Publishing to subscribers, slow ones among them."""

from __future__ import annotations

import asyncio

import pytest

from example_app.board import RECENT, Board, Event, Removed, Row, Snapshot, Subscription, Update
from example_app.probe import Result
from example_app.status import Status
from example_app.targets import Target
from tests.example_app.support import PATIENCE, result

pytestmark = pytest.mark.anyio

A = Target(name="a", url="http://a.test/")
B = Target(name="b", url="http://b.test/")
UP = Status(state="up")


def results_of(events: list[Event]) -> list[Result]:
    return [event.result for event in events if isinstance(event, Update)]


async def everything(subscription: Subscription) -> list[Event]:
    """Return the events up to the end, which has to be there already."""
    events = []
    async with asyncio.timeout(PATIENCE):
        while (event := await subscription.next()) is not None:
            events.append(event)
    return events


async def test_a_subscriber_begins_with_a_snapshot() -> None:
    """What was before is in the snapshot, what comes after follows: nothing twice, nothing lost."""
    board = Board([A])
    before, after = result("a"), result("a")
    board.publish(before)
    with board.subscribe() as subscription:
        board.publish(after)
        board.show([A, B])
        board.close()
        snapshot, *events = await everything(subscription)
    assert isinstance(snapshot, Snapshot)
    assert snapshot.rows == [Row(target=A, status=UP, recent=[before])]
    assert events == [
        Update(result=after, status=UP),
        Row(target=B, status=Status(state="none"), recent=[]),
    ]


async def test_a_slow_subscriber_never_blocks_the_others() -> None:
    """Of two subscribers one reads nothing; the other has everything."""
    board = Board([A])
    results = [result("a") for _ in range(50)]
    with board.subscribe(backlog=3), board.subscribe(backlog=60) as quick:
        for each in results:
            board.publish(each)
        board.close()
        assert results_of((await everything(quick))[1:]) == results


async def test_a_slow_subscriber_catches_up() -> None:
    """For who has missed something, a new snapshot stands for all of it."""
    board = Board([A])
    results = [result("a") for _ in range(6)]
    with board.subscribe(backlog=4) as slow:
        for each in results:
            board.publish(each)
        board.close()
        snapshot, *rest = await everything(slow)
    assert isinstance(snapshot, Snapshot)
    assert [*snapshot.rows[0].recent, *results_of(rest)] == results


async def test_the_end_reaches_a_full_backlog() -> None:
    """A subscriber who has fallen behind learns of the end too."""
    board = Board([A])
    with board.subscribe(backlog=1) as slow:
        board.close()
        assert await everything(slow) == []


async def test_a_closed_board_ends_new_subscribers() -> None:
    """Who subscribes after the end gets a snapshot, and the end."""
    board = Board([A])
    board.close()
    with board.subscribe() as late:
        events = await everything(late)
    assert [type(event) for event in events] == [Snapshot]


async def test_who_has_left_gets_nothing() -> None:
    """After its block a subscription is forgotten."""
    board = Board([A])
    with board.subscribe() as subscription:
        pass
    board.publish(result("a"))
    await subscription.next()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await subscription.next()


async def test_the_board_remembers_a_bounded_number() -> None:
    """The board holds the latest results of each target, and forgets the older ones."""
    board = Board([A])
    results = [result("a") for _ in range(RECENT + 5)]
    for each in results:
        board.publish(each)
    assert board.snapshot().rows[0].recent == results[5:]


async def test_subscribers_hear_of_changes() -> None:
    """A target that has changed comes with its results; one that is gone comes as its name, and a
    result of it that was still to come is shown to nobody."""
    board = Board([A, B])
    kept = result("a")
    board.publish(kept)
    changed = Target(name="a", url="http://other.test/")
    with board.subscribe() as subscription:
        board.show([changed])
        board.show([changed])
        board.publish(result("b"))
        board.close()
        _, *events = await everything(subscription)
    assert events == [Removed(name="b"), Row(target=changed, status=UP, recent=[kept])]


async def test_changes_reach_a_full_backlog() -> None:
    """Who has fallen behind gets a snapshot instead of changes, too, whole as it is after them."""
    board = Board([A])
    with board.subscribe(backlog=1) as slow:
        board.show([B, Target(name="c", url="http://c.test/")])
        snapshot = await slow.next()
    assert isinstance(snapshot, Snapshot)
    assert [row.target.name for row in snapshot.rows] == ["b", "c"]
