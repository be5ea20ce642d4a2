"""What runs as long as the app does.

Each pump is an endless loop, and none of them has any code to start or stop it: the app's task
group starts them when the state is open, and cancels them before it is closed.
"""

from __future__ import annotations

import asyncio

from example_app.probe import Result
from example_app.settings import Settings
from example_app.state import State, probe_and_report
from quattro_web import FileLock, Pump, RestartPolicy, ShutdownEvent, TaskGroup, TaskStatus

PROBES_AT_ONCE = 10
FOLLOW_EVERY = 0.5


def pumps_of(settings: Settings) -> list[Pump]:
    """Return the pumps of a board."""
    lock = FileLock(f"{settings.database}.prober.lock")
    return [
        Pump(closer),
        Pump(recorder),
        Pump(broadcaster),
        # What keeps it from reading now may be over in a moment: another process that writes.
        Pump(follower, on_failure="restart", restart=RestartPolicy(max_restarts=5, within=60)),
        Pump(prober, on_failure="restart", once=lock),
    ]


async def prober(state: State) -> None:
    """Probe all targets every few seconds, a few at a time, in one process of all."""
    board = state["board"]
    while True:
        # A server on its way out takes no connections: it must not report itself as down.
        if not board.closed:
            async with TaskGroup(concurrency_limit=PROBES_AT_ONCE) as tg:
                for target in list(board.targets.values()):
                    tg.create_task(probe_and_report(state, target))
        await asyncio.sleep(state["settings"].interval)


async def recorder(state: State) -> None:
    """Write results into the database, as many at once as have come in meanwhile.

    When it is cancelled it writes what is left, including the batch that it was writing: each
    result has an id, so that none is recorded twice.
    """
    queue, store = state["to_record"], state["store"]
    batch: list[Result] = []
    try:
        while True:
            batch.append(await queue.get())
            batch += _drain(queue)
            await store.save(batch)
            batch.clear()
    finally:
        while batch := batch + _drain(queue):
            await store.save(batch)
            batch = []


async def broadcaster(state: State) -> None:
    """Show every result of this process to all subscribers, at once."""
    while True:
        state["board"].publish(await state["to_show"].get())


async def follower(state: State, *, task_status: TaskStatus) -> None:
    """Show what other processes have found: their results, and the targets added there."""
    board, store = state["board"], state["store"]
    number = await store.last_number()
    task_status.started()
    while True:
        await asyncio.sleep(FOLLOW_EVERY)
        for target in await store.targets():
            if target.name not in board.targets:
                board.add(target)
        number, results = await store.since(number)
        for result in results:
            if result.target in board.targets:
                board.publish(result)


async def closer(state: State, *, shutdown: ShutdownEvent) -> None:
    """Close the board when the server begins to shut down: streams and sockets end by that."""
    await shutdown.wait()
    state["board"].close()


def _drain(queue: asyncio.Queue[Result]) -> list[Result]:
    results = []
    while not queue.empty():
        results.append(queue.get_nowait())
    return results
