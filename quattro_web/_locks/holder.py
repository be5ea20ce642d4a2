"""How a pump runs in one of many processes: taking the lock, keeping, losing and releasing it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from quattro_core import TaskGroup
from quattro_web._locks.base import Lease, LockClaim, LockLostError, OnceLock
from quattro_web._util.escaping import escaped
from quattro_web._util.exceptions import message_of, text_of
from quattro_web._util.facts import facts

T = TypeVar("T")

logger = logging.getLogger("quattro_web")

# Seconds between the first two warnings that a lock is unreachable; each further one comes after
# twice the time.
FIRST_PAUSE = 60.0
LONGEST_PAUSE = 600.0


@dataclass(frozen=True, kw_only=True)
class OnceState:
    """The state of a lock, for health. All defaults mean that nothing is known of it.

    Attributes:
        is_held: Whether this process holds it, and runs the pump.
        is_standby: Whether another process is known to hold it.
        is_settling: Whether this process holds it, and gives a former holder the time to end.
        holder: Who holds it, where that is known.
        token: The fencing token, if this process holds it.
        error: Why nothing is known: the lock is unreachable, or was just lost.
    """

    is_held: bool = False
    is_standby: bool = False
    is_settling: bool = False
    holder: str | None = None
    token: int | None = None
    error: Exception | None = None


Report = Callable[[OnceState], None]


class LastRun:
    """When a pump was last run, remembered where its lock lives, as long as that is held.

    Args:
        claim: The claim to the lock.
        name: The name of the pump.
        within: Awaits a call of the claim, for as long as that may take.

    Attributes:
        is_empty: Whether nothing is remembered.
    """

    def __init__(
        self,
        claim: LockClaim,
        name: str,
        within: Callable[[Coroutine[Any, Any, Any]], Awaitable[Any]],
    ) -> None:
        self._claim = claim
        self._name = name
        self._within = within
        self.is_empty = False

    async def read(self) -> float | None:
        """Return its Unix time; None if that is not known."""
        try:
            text = await self._within(self._claim.recall())
            self.is_empty = text is None
            return None if text is None else datetime.fromisoformat(text).timestamp()
        except Exception as exc:  # noqa: BLE001  # the pump is run at its next time all the same
            self._failed("it is unknown when pump %s last ran: %s", exc)
            return None

    async def write(self, moment: float) -> None:
        """Take note of its Unix time."""
        text = datetime.fromtimestamp(moment, UTC).isoformat()
        try:
            await self._within(self._claim.remember(text))
        except Exception as exc:  # noqa: BLE001  # whoever is next may do it again
            self._failed("the run of pump %s could not be recorded, and may be repeated: %s", exc)

    def _failed(self, message: str, exc: Exception) -> None:
        why = _in_a_line(text_of(exc))
        logger.error(message, self._name, why, extra=facts(pump=self._name))


LeasedFunction = Callable[[Lease, LastRun], Awaitable[None]]


async def run_once(lock: OnceLock, name: str, function: LeasedFunction, *, report: Report) -> None:
    """Run *function* whenever this process holds a lock, until it returns or raises.

    When the lock is lost the function is cancelled, and runs again when this process has the lock
    again: that is no failure. Whatever the function raises comes out as if it were awaited here.

    Args:
        lock: The lock.
        name: The name of the pump, and of its lock.
        function: It gets the lease, and when it was last run.
        report: Called with each new state of the lock.
    """
    holder = _Holder(lock, name, report)
    try:
        while not await holder.run(function):
            pass
    finally:
        holder.set_state(OnceState())  # the lock was given back: nothing more is known of it


class _Holder:
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
        self._log = _LockLog(name)

    async def run(self, function: LeasedFunction) -> bool:
        """Get the lock, and run *function*. Returns whether that has ended by itself."""
        failure: BaseException | None = None
        try:
            lease = await self._acquire()
            await self._settle(lease)
            self.set_state(OnceState(is_held=True, holder=lease.holder, token=lease.token))
            holder = escaped(lease.holder)
            logger.info(
                "pump %s runs here, as %s, token %s",
                self._name,
                holder,
                lease.token,
                extra=facts(pump=self._name, holder=holder),
            )
            failure = await self._hold(function, lease)
        except LockLostError as exc:  # never the function's own: that is a failure
            why = _in_a_line(message_of(exc))
            fields = facts(pump=self._name)
            logger.warning("pump %s has lost its lock: %s", self._name, why, extra=fields)
            self.set_state(OnceState(error=exc))
            return False
        finally:
            try:
                await self._release()
            except asyncio.CancelledError:
                if failure is None:
                    raise
        try:
            if failure is not None:
                raise failure
        finally:
            failure = None
        return True

    def set_state(self, state: OnceState) -> None:
        """Report a state, if it is a new one."""
        if state != self._state:
            self._state = state
            self._report(state)

    async def _acquire(self) -> Lease:
        """Wait until the lock is ours."""
        while True:
            asked = self._loop.time()
            try:
                lease = await self._within(self._lock.timeout, self._claim.acquire())
                holder = None
                if lease is None:
                    holder = await self._within(self._lock.timeout, self._claim.holder())
                    holder = holder and escaped(holder)  # others may have written it
            except Exception as exc:  # noqa: BLE001  # the next try may do better
                self._log.unreachable(exc, self._loop.time())
                self.set_state(OnceState(error=exc))
                await self._release()
            else:
                self._log.reached()
                if lease is not None:
                    self._log.acquired()
                    self._proven = asked
                    return lease
                self._log.stands_by(holder)
                self.set_state(OnceState(is_standby=True, holder=holder))
            await asyncio.sleep(self._lock.poll)

    async def _settle(self, lease: Lease) -> None:
        """Wait until a former holder, which may live, has ended its pump."""
        until = self._loop.time() + (0.0 if self._claim.is_settled else self._lock.settle)
        while (left := until - self._loop.time()) > 0:
            self.set_state(OnceState(is_settling=True, holder=lease.holder, token=lease.token))
            await asyncio.sleep(min(left, self._lock.heartbeat))
            await self._prove()
        self._claim.settled()

    async def _hold(self, function: LeasedFunction, lease: Lease) -> BaseException | None:
        """Run *function* while the lock is held. Returns what it has raised."""
        within = partial(self._within, self._lock.timeout)
        call = _LeasedCall(partial(function, lease, LastRun(self._claim, self._name, within)))
        try:
            async with TaskGroup() as group:
                group.create_background_task(self._beat(), name=f"lock of {self._name}")
                task = group.create_task(call.run(), name=f"pump {self._name}")
            task.result()  # if it was cancelled, and not by the group, that comes out here
        except BaseExceptionGroup as failed:  # of the beat alone
            if call.failure is None:
                raise failed.exceptions[0] from None
            fields = facts(pump=self._name)
            message = "pump %s has lost its lock, and failed"
            logger.warning(message, self._name, exc_info=failed, extra=fields)
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
        why: Exception | None = None
        while True:
            asked = self._loop.time()
            until = self._proven + lock.valid_for
            enough = asked + lock.timeout
            try:
                # After a blocked event loop this comes late, and asks all the same.
                limit = enough if asked > until else min(enough, until)
                await self._within(limit - asked, self._claim.prove())
            except LockLostError:
                raise
            except Exception as exc:  # what follows from it is said below
                if why is None or limit == enough:  # the last try may have had no time at all
                    why = exc
                pause = min(lock.heartbeat, until - self._loop.time())
                if pause <= 0:
                    msg = f"there was no proof for {lock.valid_for:g} s ({text_of(why)})"
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
        except Exception as exc:  # noqa: BLE001  # the lock ends without it
            if not self._log.is_unreachable:
                why = _in_a_line(text_of(exc))
                fields = facts(pump=self._name)
                logger.warning(
                    "the lock of pump %s was not released: %s", self._name, why, extra=fields
                )

    def _too_late(self) -> None:
        logger.critical(
            "pump %s is still running %g s after it lost its lock: another process may be running "
            "it too",
            self._name,
            self._lock.allowance,
            extra=facts(pump=self._name, seconds=self._lock.allowance),
        )


class _LeasedCall:
    """A call of the function, as a task of a group that does not learn of its failure.

    The group would take a `LockLostError` of it for one of the lock's, and the event loop ends at a
    `SystemExit` that leaves any task.

    Attributes:
        failure: What the function has raised, other than as the answer to a cancellation.
    """

    def __init__(self, function: Callable[[], Awaitable[None]]) -> None:
        self._function = function
        self.failure: BaseException | None = None

    async def run(self) -> None:
        try:
            await self._function()
        except asyncio.CancelledError:
            raise
        except BaseException as exc:  # noqa: BLE001  # it is raised where the group has ended
            self.failure = exc


class _LockLog:
    """Tells the log that another process holds a lock, or that it is unreachable.

    Args:
        name: The name of the pump.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._stands_by = False
        self._unreachable_since: float | None = None
        self._next = 0.0
        self._pause = 0.0

    @property
    def is_unreachable(self) -> bool:
        """Whether it was out of reach when it was last tried."""
        return self._unreachable_since is not None

    def unreachable(self, exc: Exception, now: float) -> None:
        """Tell that it is unreachable: at once, and again in growing intervals."""
        why = _in_a_line(text_of(exc))
        if self._unreachable_since is None:
            self._unreachable_since, self._pause = now, FIRST_PAUSE
            fields = facts(pump=self._name)
            logger.warning("the lock of pump %s is unreachable: %s", self._name, why, extra=fields)
        elif now < self._next:
            return
        else:
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            logger.warning(
                "the lock of pump %s has been unreachable for %.0f minutes: %s",
                self._name,
                (now - self._unreachable_since) / 60,
                why,
                extra=facts(pump=self._name, seconds=now - self._unreachable_since),
            )
        self._next = now + self._pause

    def reached(self) -> None:
        """Tell that it is within reach, if it was not."""
        if self.is_unreachable:
            fields = facts(pump=self._name)
            logger.info("the lock of pump %s is reachable again", self._name, extra=fields)
        self._unreachable_since = None

    def stands_by(self, holder: str | None) -> None:
        """Tell who holds it: once, until this process has held it."""
        if not self._stands_by:
            who = holder or "another process"
            fields = facts(pump=self._name, holder=who)
            logger.info("pump %s stands by: its lock is held by %s", self._name, who, extra=fields)
        self._stands_by = True

    def acquired(self) -> None:
        """Take note that this process holds it."""
        self._stands_by = False


def _forget(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()  # nobody waits for it any more


def _in_a_line(text: str) -> str:
    """Return what a service says, for a log entry: it may say more, in several lines."""
    return escaped(text, most=1000)
