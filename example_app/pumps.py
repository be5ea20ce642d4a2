"""What runs as long as the app does.

Each pump is an endless loop, or is called again and again, and none of them has any code to start
or stop it: the app's task group starts them when the state is open, and cancels them before it is
closed.
"""

from __future__ import annotations

import asyncio
import logging
import time

from example_app.probe import Result
from example_app.settings import Settings
from example_app.state import State, probe_and_report, show_targets
from example_app.webhook import send
from quattro_web import (
    FileLock,
    OnceLock,
    Pump,
    RestartPolicy,
    ShutdownEvent,
    TaskGroup,
    TaskStatus,
)

PROBES_AT_ONCE = 10
FOLLOW_EVERY = 0.5
SEND_EVERY = 1.0
TIDY_EVERY = 600.0

logger = logging.getLogger(__name__)


def lock_of(settings: Settings, name: str) -> OnceLock:
    """Return the lock of a pump that runs in one process, of all that share the lock.

    Raises:
        ValueError: If the address of the lock is none.
        ModuleNotFoundError: If the driver is not installed.
    """
    if settings.lock.startswith("postgres"):
        from quattro_web.postgres import PostgresLock  # noqa: PLC0415  # needs a driver

        return PostgresLock(settings.lock, app="status-board")
    if settings.lock:
        from quattro_web.redis import RedisLock  # noqa: PLC0415  # needs redis

        return RedisLock(settings.lock, app="status-board")
    return FileLock(f"{settings.database}.{name}.lock")


def pumps_of(settings: Settings) -> list[Pump]:
    """Return the pumps of a board."""
    pumps = [
        Pump(closer),
        Pump(recorder),
        Pump(broadcaster),
        # What keeps it from reading now may be over in a moment: another process that writes.
        Pump(follower, on_failure="restart", restart=RestartPolicy(max_restarts=5, within=60)),
        Pump(prober, on_failure="restart", once=lock_of(settings, "prober")),
        Pump(tidier, on_failure="restart", once=lock_of(settings, "tidier"), every=TIDY_EVERY),
    ]
    if settings.webhook:
        once = lock_of(settings, "messenger")
        pumps.append(Pump(messenger, on_failure="restart", once=once))
    return pumps


async def prober(state: State) -> None:
    """Probe all targets every few seconds, a few at a time, in one process of all."""
    board = state["board"]
    while True:
        # A server on its way out takes no connections: it must not report itself as down.
        if not board.closed:
            async with TaskGroup(concurrency_limit=PROBES_AT_ONCE) as tg:
                for target in list(board.targets.values()):
                    if not target.paused:
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
    """Show what other processes have found and changed: their results and their targets."""
    board, store = state["board"], state["store"]
    number = await store.last_number()
    task_status.started()
    while True:
        await asyncio.sleep(FOLLOW_EVERY)
        await show_targets(state)
        number, results = await store.since(number)
        for result in results:
            board.publish(result)


async def tidier(state: State) -> None:
    """Delete what is too old: one turn of a pump that is called again and again."""
    await state["store"].tidy()


async def messenger(state: State) -> None:
    """Send changes to the webhook until they are taken, in one process of all.

    A change is in the database before it is sent, and until it was taken. Whatever ends this pump
    in between, the next one sends the change again, with the same id: at least once.
    """
    settings, store = state["settings"], state["store"]
    while True:
        for change in await store.due_changes():
            if await send(state["client"], settings.webhook, change):
                await store.forget(change)
            elif time.time() - change.at > settings.keep_days * 86400:
                logger.error("gave up a change for the webhook: %r", change)
                await store.forget(change)
            else:
                await store.put_off(change)
        await asyncio.sleep(SEND_EVERY)


async def closer(state: State, *, shutdown: ShutdownEvent) -> None:
    """Close the board when the server begins to shut down: streams and sockets end by that."""
    await shutdown.wait()
    state["board"].close()


def _drain(queue: asyncio.Queue[Result]) -> list[Result]:
    results = []
    while not queue.empty():
        results.append(queue.get_nowait())
    return results
