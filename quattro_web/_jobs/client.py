"""The calls of one process: submitted together, watched by one subscription, held by one lease."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import socket
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import copy_context
from itertools import islice
from math import inf
from typing import Any

from quattro_web._jobs.engine import (
    CallState,
    EngineConnection,
    JobEngine,
    News,
    Submission,
    Watch,
)
from quattro_web._jobs.errors import (
    BadSignatureError,
    JobsUnavailableError,
    RemoteError,
    WorkerLostError,
)
from quattro_web._jobs.signing import CALL, OUTCOME, Signer
from quattro_web._jobs.wire import frame, is_failure
from quattro_web._util.escaping import escaped
from quattro_web._util.facts import facts
from quattro_web._util.spans import CURRENT

logger = logging.getLogger("quattro_web")

ANY_WORKER = "any worker"
"""The name of a lease that all workers renew: it runs out when the last of them has died."""

_MOST_AT_ONCE = 1000
_MOST_BYTES = 4 * 1024 * 1024


@asynccontextmanager
async def beside(*coros: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run coroutines while the block runs: one that fails cancels it.

    An error of the block is raised as it is.
    """
    failure: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coro) for coro in coros]
            try:
                yield
            except BaseException as exc:
                failure = exc
                raise
            finally:
                for task in tasks:
                    task.cancel()
    except BaseExceptionGroup:
        if failure is None or isinstance(failure, asyncio.CancelledError):
            raise
        raise failure from failure.__cause__


class Call:
    """A call that this process waits for."""

    def __init__(self, key: str, job: str, payload: bytes, *, is_idempotent: bool) -> None:
        self.key = key
        self.job = job
        self.payload = payload
        self.is_idempotent = is_idempotent
        self.context = copy_context()
        self.is_submitted = False
        self.is_cancelled = False
        self.worker = ""
        self.since = asyncio.get_running_loop().time()
        self.ended = asyncio.Event()
        self.outcome: bytes | None = None
        self.error: Exception | None = None

    def end(self, outcome: bytes | None = None, error: Exception | None = None) -> None:
        if not self.ended.is_set():
            self.outcome, self.error = outcome, error
            self.ended.set()


class JobsClient:
    """The calls of one process, in one event loop.

    All calls are under a lease, which this process renews. When it can't prove the lease any more,
    it gives up all calls and takes another lease, so that no worker goes on with one of them when
    the engine is back.

    Args:
        engine: Where they are submitted.
        lease: The seconds of the lease.
        clean_up: How many seconds a cancelled call may take for its clean-up.
        timeout: The seconds that the engine may take for an answer.
        signer: Signs calls, and opens what workers have signed.
    """

    def __init__(
        self,
        engine: JobEngine,
        *,
        lease: float,
        clean_up: float,
        timeout: float,
        signer: Signer | None = None,
    ) -> None:
        self._engine = engine
        self._signer = signer or Signer()
        self._spans = CURRENT.get()
        self._lease = lease
        self._clean_up = clean_up
        self._timeout = timeout
        self._calls: dict[str, Call] = {}
        self._to_submit: dict[str, Call] = {}
        self._to_cancel: list[str] = []
        self._unsure: set[str] = set()  # of those to cancel, which may have been cancelled
        self._has_orders = asyncio.Event()
        self._watches = asyncio.Event()
        self._watcher: Watch | None = None
        self._loop = asyncio.get_running_loop()
        self._count = 0
        self._take_lease()
        self.offset: float = 0.0
        """What the clock of the engine has more than that of the event loop."""
        self._latest_offset = 0.0
        self.has_worker: bool = False
        self._saw_worker = self._loop.time()

    def trace(self) -> dict[str, dict[str, str]]:
        """Return what the header of a call has of the current span; nothing where there is none."""
        carrier = self._spans.carrier()
        return {"trace": carrier} if carrier else {}

    @property
    def is_up(self) -> bool:
        """Whether the engine has answered lately."""
        return self._loop.time() < self._proved_until

    async def call(
        self,
        job: str,
        arguments: bytes,
        *,
        is_idempotent: bool,
        time_left: float | None,
        version: str = "",
    ) -> bytes:
        """Run a job elsewhere, and return its outcome.

        If it is cancelled, the call is cancelled, and its clean-up awaited: up to `clean_up`
        seconds, after which it is given up, and named in the log. If the clean-up has failed, its
        failure is returned, since it is an error of a child like any other.

        Raises:
            BadSignatureError: If its outcome is not signed as it has to be.
            JobsUnavailableError: If the engine or every worker is unreachable.
            WorkerLostError: If its worker has died, and it may not be run again.
            asyncio.CancelledError: If it was cancelled.
        """
        # An event loop that was blocked has not heard of the engine either: it may answer at once.
        if not self.is_up and not await self.wait_up(self._timeout):
            msg = f"the engine does not answer: {job} was not submitted"
            raise JobsUnavailableError(msg)
        self._count += 1
        deadline = None if time_left is None else self._loop.time() + self.offset + time_left
        header: dict[str, Any] = {"owner": self._name, "deadline": deadline, "version": version}
        header |= self.trace()
        key = f"{self._name}:{self._count}"
        payload = self._signer.signed(CALL, key, job, frame(header, arguments))
        call = Call(key, job, payload, is_idempotent=is_idempotent)
        self._calls[call.key] = call
        self._to_submit[call.key] = call
        self._has_orders.set()
        try:
            try:
                await call.ended.wait()
            except asyncio.CancelledError:
                await self._cancel(call)
                if call.outcome is None or not is_failure(call.outcome):
                    raise  # a result that comes nevertheless is dropped, as that of any child
                return call.outcome
            if call.error is not None:
                raise call.error
            if call.outcome is None:
                where = call.worker or "unknown"
                msg = f"{job} was cancelled by somebody else, or dropped by its worker, {where}"
                raise RemoteError(msg)
            return call.outcome
        finally:
            del self._calls[call.key]

    async def _cancel(self, call: Call) -> None:
        call.is_cancelled = True
        if call.ended.is_set():
            return
        if self._to_submit.pop(call.key, None) is not None:
            return
        self._to_cancel.append(call.key)
        self._has_orders.set()
        try:
            async with asyncio.timeout(self._clean_up):
                await call.ended.wait()
        except TimeoutError:
            logger.error(
                "%s, cancelled on worker %s, has not finished its clean-up after %.1f s: nobody "
                "waits for it any longer, but it may still be running there",
                call.job, call.worker or "(none yet)", self._clean_up,
                extra=facts(job=call.job, seconds=self._clean_up),
            )  # fmt: skip

    async def hand_over(self, submission: Submission) -> None:
        """Submit a call that nobody waits for; return when the engine has it.

        Raises:
            JobsUnavailableError: If the engine has not answered in time: it may have it or not.
        """
        async with self._reaching(f"{submission.job} could not be handed over"):
            if await self._connection.is_settled(submission.key):
                return
            (error,) = await self._connection.submit([submission])
            if error is not None:
                raise error

    async def start_again(self, submission: Submission) -> None:
        """Submit a call that has failed for good once more.

        Raises:
            JobsUnavailableError: If the engine has not answered in time.
        """
        key = submission.key
        async with self._reaching(f"{submission.job} could not be handed over"):
            # It is noted as over a moment before its end, and would not be taken until then.
            while await self._connection.is_settled(key) and await self._runs(key):  # noqa: ASYNC110
                await asyncio.sleep(self._timeout / 100)
            await self._connection.unsettle(key)
        await self.hand_over(submission)

    async def _runs(self, key: str) -> bool:
        (news,) = await self._connection.look([key])
        return news.state is CallState.RUNNING

    async def kept(self) -> dict[str, bytes]:
        """Return what is left of calls that were handed over and have failed for good.

        Raises:
            JobsUnavailableError: If the engine has not answered in time.
        """
        async with self._reaching("the failed jobs could not be read"):
            return {**await self._connection.kept()}

    async def forget(self, key: str) -> None:
        """Forget a call that was handed over and has failed for good.

        Raises:
            JobsUnavailableError: If the engine has not answered in time.
        """
        async with self._reaching("the failed job could not be forgotten"):
            await self._connection.forget(key)

    @asynccontextmanager
    async def _reaching(self, what_is_not: str) -> AsyncIterator[None]:
        """Ask the engine for something, within its time."""
        try:
            async with asyncio.timeout(self._timeout):
                yield
        except Exception as exc:
            msg = f"{what_is_not}: {exc!r}"
            raise JobsUnavailableError(msg) from exc

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Connect, and serve calls until the end of the block; those that are open fail then."""
        async with self._engine.connect() as connection:
            self._connection = connection
            parts = (self._beat, self._send, self._watch)
            async with beside(*(part(connection) for part in parts)):
                try:
                    yield
                finally:
                    self._give_up("the app has shut down")

    async def wait_up(self, seconds: float) -> bool:
        """Wait until the engine has answered, at most that long; return whether it has."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                # Not an event: it is up as long as the time has not come.
                while not (self.is_up and self._watches.is_set()):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                return True
        return False

    def _take_lease(self) -> None:
        where = re.sub(r"[^\w.-]", "_", socket.gethostname())
        self._name = f"{where}-{os.getpid()}-{uuid.uuid4().hex[:12]}"
        self._proved_until = 0.0
        self._renewed: float | None = None
        self._watches.clear()

    def _give_up(self, reason: str) -> None:
        """End all calls with an error, and leave the lease to run out, which ends them there."""
        for call in [*self._calls.values()]:
            call.end(error=JobsUnavailableError(f"{reason}: {call.job} is given up"))
        self._to_submit.clear()
        self._to_cancel.clear()
        self._unsure.clear()
        self._take_lease()

    # The lease

    async def _beat(self, connection: EngineConnection) -> None:
        """Renew the lease, and see who has died."""
        failures = 0
        while True:
            begin = self._loop.time()
            if self._has_lapsed(begin):
                # It stood still: others have given it up, and cancelled its calls.
                self._give_up("this process stood still for longer than its lease")
            try:
                async with asyncio.timeout(self._timeout):
                    await self._renew(connection)
                failures = 0
            except Exception as exc:  # noqa: BLE001  # whatever it is, the engine is unreachable
                failures += 1
                # Not after the first: where the event loop was blocked, the answer was there.
                if failures > 1 and self._proved_until and not self.is_up:
                    logger.error("the job engine is unreachable: %r", exc)
                    self._give_up("the job engine is unreachable")
            await asyncio.sleep(max(begin + self._lease / 5 - self._loop.time(), 0.02))

    def _has_lapsed(self, now: float) -> bool:
        """Whether the lease has run out, where there is one."""
        return (
            self._renewed is not None
            and now - self._renewed > self._lease
            and not self._engine.is_local
        )

    async def _renew(self, connection: EngineConnection) -> None:
        name, begin = self._name, self._loop.time()
        workers = {call.worker for call in self._calls.values() if call.worker}
        # One that waits where the engine hangs must not renew what is given up meanwhile.
        since = None if self._renewed is None else begin + self._latest_offset
        renewal = await connection.renew(
            (name,), self._lease, (ANY_WORKER, *workers), since=since, within=self._timeout
        )
        now = self._loop.time()
        self.offset = renewal.now - (begin + now) / 2
        self._latest_offset = renewal.now - begin  # at most: a lease is never shorter for it
        # Less than all of it, so that this process gives up before a worker does.
        self._proved_until = begin + self._lease * 0.8
        self._renewed = begin
        self.has_worker = ANY_WORKER in renewal.alive
        if self.has_worker:
            self._saw_worker = now
        for call in [*self._calls.values()]:
            if call.worker in workers and call.worker not in renewal.alive:
                if not call.is_idempotent or call.is_cancelled:
                    self._abandon(call, WorkerLostError(f"worker {call.worker} died in {call.job}"))
                else:
                    call.worker = ""  # another one gets it
            if not call.worker and now - max(self._saw_worker, call.since) > self._lease:
                self._abandon(call, JobsUnavailableError(f"there is no worker for {call.job}"))

    def _abandon(self, call: Call, error: Exception) -> None:
        """End a call with an error, and what may be left of it, on a worker that stood still."""
        if not (call.is_cancelled or call.ended.is_set()):
            self._to_cancel.append(call.key)
            self._has_orders.set()
        call.end(error=error)

    # Submissions and cancellations

    async def _send(self, connection: EngineConnection) -> None:
        """Submit and cancel, all that has come up since the last time at once."""
        while True:
            await self._has_orders.wait()
            self._has_orders.clear()
            while self._to_submit or self._to_cancel:
                calls = self._next_calls()
                keys, self._to_cancel = self._to_cancel, []
                try:
                    async with asyncio.timeout(self._timeout):
                        await self._watches.wait()
                        await self._submit(connection, calls)
                        await self._send_cancels(connection, keys)
                except Exception as exc:  # noqa: BLE001  # whatever it is, it is unreachable
                    self._not_sent(calls, keys, exc)

    def _next_calls(self) -> list[Call]:
        """Take those that are submitted next: what the engine can take within its time."""
        calls: list[Call] = []
        size = 0
        while self._to_submit and len(calls) < _MOST_AT_ONCE and size < _MOST_BYTES:
            call = self._to_submit.pop(next(iter(self._to_submit)))
            calls.append(call)
            size += len(call.payload)
        return calls

    async def _submit(self, connection: EngineConnection, calls: list[Call]) -> None:
        # Those of a former lease would be refused.
        calls = [call for call in calls if call.key in self._calls]
        if not calls:
            return
        assert self._watcher is not None
        await self._watcher.follow([call.key for call in calls])
        errors = await connection.submit(
            [Submission(call.key, call.job, call.payload, context=call.context) for call in calls]
        )
        for call, error in zip(calls, errors, strict=True):
            call.is_submitted = True
            if error is not None:
                call.end(error=_refused(call.job, error))

    async def _send_cancels(self, connection: EngineConnection, keys: list[str]) -> None:
        if again := [key for key in keys if key in self._unsure]:
            # Twice would cut a clean-up: the answer alone may have been lost.
            found = await connection.cancelled(again)
            done = {key for key, cancelled in zip(again, found, strict=True) if cancelled}
            self._unsure -= done
            keys = [key for key in keys if key not in done]
        if keys:
            await connection.cancel(keys)
            self._unsure.difference_update(keys)

    def _not_sent(self, calls: Iterable[Call], keys: list[str], exc: Exception) -> None:
        for call in calls:
            if not call.is_submitted:
                call.end(error=_refused(call.job, exc))
                # The engine may have it all the same.
                keys.append(call.key)
        # The watch sees what has become of the cancelled ones, and the lease ends the rest.
        logger.warning("the job engine does not answer: %r", exc)
        keys = self._of_this_lease(keys)
        if keys:
            self._unsure.update(keys)
            self._loop.call_later(self._timeout / 5, self._cancel_again, keys)

    def _cancel_again(self, keys: list[str]) -> None:
        self._to_cancel += self._of_this_lease(keys)
        self._has_orders.set()

    def _of_this_lease(self, keys: list[str]) -> list[str]:
        """Return those that do not end by themselves, with a lease that was given up."""
        return [key for key in keys if key.startswith(f"{self._name}:")]

    # News

    async def _watch(self, connection: EngineConnection) -> None:
        """Hear what becomes of the calls."""
        while True:
            name, looked = self._name, -inf
            try:
                async with AsyncExitStack() as stack:
                    async with asyncio.timeout(self._timeout):
                        watch = await stack.enter_async_context(connection.watch(name))
                    if name == self._name:
                        self._watcher = watch
                        self._watches.set()
                    while name == self._name:
                        # Once now, and now and then: a message may get lost on its way.
                        if self._loop.time() - looked > self._lease:
                            looked = self._loop.time()
                            await self._look(connection)
                        async with asyncio.timeout(1 + self._timeout):
                            heard = await watch.next()
                        for news in heard:
                            self._hear(news)
            except Exception as exc:  # noqa: BLE001  # the beat says when it takes too long
                self._watches.clear()
                logger.info("news of jobs may be lost for a moment: %r", exc)
                await asyncio.sleep(self._lease / 20)

    async def _look(self, connection: EngineConnection) -> None:
        keys = {key: None for key, call in self._calls.items() if call.is_submitted}
        while keys:
            async with asyncio.timeout(self._timeout):
                found = await connection.look([*islice(keys, _MOST_AT_ONCE)])
            for news in found:
                del keys[news.key]
                self._hear(news)

    def _hear(self, news: News) -> None:
        call = self._calls.get(news.key)
        if call is None:
            return
        if news.state is CallState.WAITING:
            call.worker = ""  # the one that had it may have handed it back
            if call.is_cancelled and call.key not in self._to_cancel:
                # Before it heard of the cancellation, perhaps.
                self._unsure.add(call.key)
                self._to_cancel.append(call.key)
                self._has_orders.set()
        elif news.state is CallState.RUNNING:
            call.worker = news.worker
        elif news.state is CallState.ENDED:
            self._end(call, news.outcome)
        elif news.state is CallState.LOST:
            self._abandon(call, JobsUnavailableError(f"the engine has forgotten {call.job}"))

    def _end(self, call: Call, outcome: bytes | None) -> None:
        if outcome is not None:
            try:
                outcome = self._signer.opened(OUTCOME, call.key, call.job, outcome)
            except BadSignatureError as exc:
                logger.error("the result of a job was rejected: %s", escaped(str(exc)))
                call.end(error=exc)
        call.end(outcome)


def _refused(job: str, exc: Exception) -> JobsUnavailableError:
    error = JobsUnavailableError(f"{job} could not be submitted: {exc!r}")
    error.__cause__ = exc
    return error
