"""How a pump runs in one process of many."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from quattro_core import TaskGroup
from quattro_web._once import Lease, LockLostError, OnceLock

T = TypeVar("T")

logger = logging.getLogger("quattro_web")

Report = Callable[["OnceState"], None]


@dataclass(frozen=True, kw_only=True)
class OnceState:
    """How it stands with a lock, for health.

    Attributes:
        is_held: Whether this process holds it, and runs the pump.
        is_standby: Whether another process is known to hold it.
        holder: Who holds it, where that is known.
        token: The fencing token, if it is held.
        error: Why nothing can be said of it now.
    """

    is_held: bool = False
    is_standby: bool = False
    holder: str | None = None
    token: int | None = None
    error: Exception | None = None


async def run_once(
    lock: OnceLock, name: str, function: Callable[[Lease], Awaitable[None]], *, report: Report
) -> None:
    """Run *function* whenever this process holds a lock, until it returns or raises.

    When the lock is lost the function is cancelled, and runs again when this process has the lock
    again: that is no failure.

    Args:
        lock: The lock.
        name: The name of the pump, and of its lock.
        function: What runs.
        report: Called with each new state of the lock.
    """
    keeper = _Keeper(lock, name, report)
    while not await keeper.run(function):
        pass


class _Keeper:
    """Gets a lock, keeps it, and gives it back.

    Args:
        lock: The lock.
        name: Its name.
        report: Called with each new state.
    """

    def __init__(self, lock: OnceLock, name: str, report: Report) -> None:
        self._lock = lock
        self._name = name
        self._report = report
        self._claim = lock.claim(name)
        self._loop = asyncio.get_running_loop()
        self._state = OnceState()
        self._proven = 0.0
        self._late: asyncio.TimerHandle | None = None
        self._is_unreachable = False

    async def run(self, function: Callable[[Lease], Awaitable[None]]) -> bool:
        """Get the lock, and run *function*. Returns whether that has ended by itself."""
        try:
            lease = await self._acquired()
            await self._settle()
            self._tell(OnceState(is_held=True, holder=lease.holder, token=lease.token))
            logger.info("pump %s runs here, as %s, token %s", self._name, lease.holder, lease.token)
            await self._hold(function, lease)
        except LockLostError as exc:
            logger.warning("pump %s has lost its lock: %s", self._name, exc)
            self._tell(OnceState(error=exc))
            return False
        else:
            return True
        finally:
            await self._release()

    async def _acquired(self) -> Lease:
        """Wait until the lock is ours."""
        while True:
            asked = self._loop.time()
            try:
                lease = await self._within(self._lock.timeout, self._claim.acquire())
                holder = None
                if lease is None:
                    holder = await self._within(self._lock.timeout, self._claim.holder())
            except Exception as exc:  # noqa: BLE001  # the next try may do better
                self._unreachable(exc)
                await self._release()
            else:
                if self._is_unreachable:
                    logger.info("the lock of pump %s is within reach again", self._name)
                self._is_unreachable = False
                if lease is not None:
                    self._proven = asked
                    return lease
                self._tell(OnceState(is_standby=True, holder=holder))
            await asyncio.sleep(self._lock.poll)

    async def _settle(self) -> None:
        """Wait until a former holder, which may live, has ended its pump."""
        until = self._loop.time() + self._lock.settle
        while (left := until - self._loop.time()) > 0:
            await asyncio.sleep(min(left, self._lock.heartbeat))
            await self._prove()

    async def _hold(self, function: Callable[[Lease], Awaitable[None]], lease: Lease) -> None:
        try:
            async with TaskGroup() as group:
                group.create_background_task(self._beat(), name=f"lock of {self._name}")
                group.create_task(_call(function, lease), name=f"pump {self._name}")
        except BaseExceptionGroup as failed:
            lost, errors = failed.split(LockLostError)
            if lost is not None and errors is not None:
                logger.warning("pump %s has lost its lock, and failed", self._name, exc_info=lost)
            raise (errors or failed).exceptions[0] from None
        finally:
            if self._late is not None:
                self._late.cancel()
                self._late = None

    async def _beat(self) -> None:
        try:
            while True:
                await asyncio.sleep(self._lock.heartbeat)
                await self._prove()
        except LockLostError:
            self._late = self._loop.call_later(self._lock.allowance, self._too_late)
            raise

    async def _prove(self) -> None:
        """Prove that the lock is held, or raise LockLostError when there is no time left to."""
        lock = self._lock
        while True:
            asked = self._loop.time()
            until = self._proven + lock.valid_for
            enough = asked + lock.timeout
            try:
                # What comes late, after a loop that was blocked, is asked all the same.
                limit = enough if asked > until else min(enough, until)
                await self._within(limit - asked, self._claim.prove())
            except LockLostError:
                raise
            except Exception as exc:  # what follows from it is said below
                pause = min(lock.heartbeat, until - self._loop.time())
                if pause <= 0:
                    msg = f"there was no proof for {lock.valid_for:g} s ({exc!r})"
                    raise LockLostError(msg) from exc
                await asyncio.sleep(pause)
            else:
                self._proven = asked
                return

    async def _within(self, seconds: float, call: Coroutine[Any, Any, T]) -> T:
        """Await a call of the lock's, but not its answer to a cancellation: that may take long."""
        task = self._loop.create_task(call, name=f"lock of {self._name}")
        try:
            await asyncio.wait((task,), timeout=seconds)
        finally:
            if not task.done():
                task.cancel()
                task.add_done_callback(_forget)
        if not task.done():
            msg = f"there was no answer within {seconds:.3g} s"
            raise TimeoutError(msg)
        return task.result()

    async def _release(self) -> None:
        try:
            await self._within(self._lock.timeout, self._claim.release())
        except Exception as exc:  # noqa: BLE001  # it ends by itself: that is what it is for
            if not self._is_unreachable:
                logger.warning("the lock of pump %s was not released: %r", self._name, exc)

    def _unreachable(self, exc: Exception) -> None:
        if not self._is_unreachable:
            logger.warning("the lock of pump %s is out of reach: %r", self._name, exc)
        self._is_unreachable = True
        self._tell(OnceState(error=exc))

    def _too_late(self) -> None:
        logger.critical(
            "pump %s still runs %g s after it has lost its lock: another process may run it too",
            self._name,
            self._lock.allowance,
        )

    def _tell(self, state: OnceState) -> None:
        if state != self._state:
            self._state = state
            self._report(state)


def _forget(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()  # nobody waits for it any more


async def _call(function: Callable[[Lease], Awaitable[None]], lease: Lease) -> None:
    await function(lease)
