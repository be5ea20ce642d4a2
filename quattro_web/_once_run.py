"""How a pump runs in one process of many."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from quattro_core import TaskGroup
from quattro_web._lock_log import LockLog
from quattro_web._once import Lease, LockLostError, OnceLock
from quattro_web._once_state import OnceState

T = TypeVar("T")

logger = logging.getLogger("quattro_web")

Report = Callable[[OnceState], None]


async def run_once(
    lock: OnceLock, name: str, function: Callable[[Lease], Awaitable[None]], *, report: Report
) -> None:
    """Run *function* whenever this process holds a lock, until it returns or raises.

    When the lock is lost the function is cancelled, and runs again when this process has the lock
    again: that is no failure. Whatever the function raises comes out as if it were awaited here.

    Args:
        lock: The lock.
        name: The name of the pump, and of its lock.
        function: What runs.
        report: Called with each new state of the lock.
    """
    keeper = _Keeper(lock, name, report)
    try:
        while not await keeper.run(function):
            pass
    finally:
        keeper.tell(OnceState())  # the lock was given back: nothing more is known of it


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
        self._log = LockLog(name)

    async def run(self, function: Callable[[Lease], Awaitable[None]]) -> bool:
        """Get the lock, and run *function*. Returns whether that has ended by itself."""
        failure: BaseException | None = None
        try:
            lease = await self._acquired()
            await self._settle(lease)
            self.tell(OnceState(is_held=True, holder=lease.holder, token=lease.token))
            logger.info("pump %s runs here, as %s, token %s", self._name, lease.holder, lease.token)
            failure = await self._hold(function, lease)
        except LockLostError as exc:  # never the function's own: that is a failure
            logger.warning("pump %s has lost its lock: %s", self._name, exc)
            self.tell(OnceState(error=exc))
            return False
        finally:
            await self._release()
        try:
            if failure is not None:
                raise failure
        finally:
            failure = None
        return True

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
                self._log.unreachable(exc, self._loop.time())
                self.tell(OnceState(error=exc))
                await self._release()
            else:
                self._log.reached()
                if lease is not None:
                    self._log.acquired()
                    self._proven = asked
                    return lease
                self._log.stands_by(holder)
                self.tell(OnceState(is_standby=True, holder=holder))
            await asyncio.sleep(self._lock.poll)

    async def _settle(self, lease: Lease) -> None:
        """Wait until a former holder, which may live, has ended its pump."""
        until = self._loop.time() + (0.0 if self._claim.is_settled else self._lock.settle)
        while (left := until - self._loop.time()) > 0:
            self.tell(OnceState(is_settling=True, holder=lease.holder, token=lease.token))
            await asyncio.sleep(min(left, self._lock.heartbeat))
            await self._prove()
        self._claim.settled()

    async def _hold(
        self, function: Callable[[Lease], Awaitable[None]], lease: Lease
    ) -> BaseException | None:
        """Run *function* while the lock is held. Returns what it has raised."""
        call = _Call(function, lease)
        try:
            async with TaskGroup() as group:
                group.create_background_task(self._beat(), name=f"lock of {self._name}")
                task = group.create_task(call.run(), name=f"pump {self._name}")
            task.result()  # if it was cancelled, and not by the group, that comes out here
        except BaseExceptionGroup as failed:  # of the beat alone
            if call.failure is None:
                raise failed.exceptions[0] from None
            logger.warning("pump %s has lost its lock, and failed", self._name, exc_info=failed)
        except asyncio.CancelledError:
            if call.failure is None:
                raise
        finally:
            if self._late is not None:
                self._late.cancel()
                self._late = None
        return call.failure

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
        if task.cancelled():  # by something that it awaited; it must not look like our own
            msg = "the call was cancelled"
            raise ConnectionError(msg)
        return task.result()

    async def _release(self) -> None:
        try:
            await self._within(self._lock.timeout, self._claim.release())
        except Exception as exc:  # noqa: BLE001  # it ends by itself: that is what it is for
            if not self._log.is_unreachable:
                logger.warning("the lock of pump %s was not released: %r", self._name, exc)

    def _too_late(self) -> None:
        logger.critical(
            "pump %s still runs %g s after it has lost its lock: another process may run it too",
            self._name,
            self._lock.allowance,
        )

    def tell(self, state: OnceState) -> None:
        """Report a state, if it is a new one."""
        if state != self._state:
            self._state = state
            self._report(state)


class _Call:
    """A call of the function, as a task of a group that does not learn of its failure.

    The group would take a `LockLostError` of it for one of the lock's, and the event loop ends at a
    `SystemExit` that leaves any task.

    Attributes:
        failure: What the function has raised, other than as the answer to a cancellation.
    """

    def __init__(self, function: Callable[[Lease], Awaitable[None]], lease: Lease) -> None:
        self._function = function
        self._lease = lease
        self.failure: BaseException | None = None

    async def run(self) -> None:
        try:
            await self._function(self._lease)
        except asyncio.CancelledError:
            raise
        except BaseException as exc:  # noqa: BLE001  # it is raised where the group has ended
            self.failure = exc


def _forget(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()  # nobody waits for it any more
