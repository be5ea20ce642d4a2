"""A worker: it runs the functions of jobs, each in a task group, for those who still want it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import socket
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

from quattro_core import RestartPolicy, TaskGroup
from quattro_web._jobs.client import ANY_WORKER, beside
from quattro_web._jobs.engine import (
    Delivery,
    EngineConnection,
    EngineWorker,
    HandedBackError,
    JobEngine,
)
from quattro_web._jobs.errors import (
    JobsNotRunningError,
    JobTimeoutError,
    UnknownJobError,
    WorkerLostError,
)
from quattro_web._jobs.wire import FunctionTypes, dump_error, frame, is_failure, unframe
from quattro_web._util.asyncio import current_task
from quattro_web._util.escaping import escaped

logger = logging.getLogger("quattro_web")

_SHUT_DOWN = "the worker shuts down"
_OUT_OF_REACH = "the engine is out of reach"
_CANCELLED = "it was cancelled"
_UNWANTED = "the process that wanted it is gone"


class JobFunction(Protocol):
    """What a worker knows of a job."""

    @property
    def name(self) -> str: ...
    @property
    def function(self) -> Callable[..., Coroutine[Any, Any, Any]]: ...
    @property
    def types(self) -> FunctionTypes: ...
    @property
    def timeout(self) -> float | None: ...
    @property
    def max_attempts(self) -> int: ...
    @property
    def idempotent(self) -> bool: ...
    @property
    def restart(self) -> RestartPolicy: ...


@dataclass(frozen=True, kw_only=True)
class RunningJob:
    """The job that runs in this task, as its function sees it.

    Attributes:
        name: Its name.
        key: The name of this call.
        attempt: How often this call was begun, this time included; not those that were cut by the
            shutdown of a worker.
        task_group: A group for what it starts, which ends with it.
        state: What the lifespan of the app has yielded, where an app runs the worker.

    .. versionadded:: 0.1
    """

    name: str
    key: str
    attempt: int
    task_group: TaskGroup
    state: Mapping[str, Any] = field(repr=False)
    _until: float | None = field(repr=False)
    _lend: Callable[[int], None] = field(repr=False)

    @contextmanager
    def lending(self) -> Iterator[None]:
        """Let another call run in the place of this one, which only waits."""
        self._lend(1)
        try:
            yield
        finally:
            self._lend(-1)

    @property
    def time_left(self) -> float | None:
        """The seconds until it is cancelled; None if it has no timeout and no deadline.

        .. versionadded:: 0.1
        """
        if self._until is None:
            return None
        return max(self._until - asyncio.get_running_loop().time(), 0.0)


_CURRENT: ContextVar[RunningJob | None] = ContextVar("quattro_web.jobs.current", default=None)


def current_job() -> RunningJob:
    """Return the job that runs here.

    ::

        @jobs.job()
        async def crawl(site: str) -> list[str]:
            tg = current_job().task_group
            pages = await tg.gather(fetch(f"{site}/1"), fetch(f"{site}/2"))

    Raises:
        JobsNotRunningError: If none does, as where its function is called as any other.

    .. versionadded:: 0.1
    """
    job = _CURRENT.get()
    if job is None:
        msg = "no job runs here: it is called as an ordinary function, and not with .remote(...)"
        raise JobsNotRunningError(msg)
    return job


def running_job() -> RunningJob | None:
    """Return the job that runs here, if one does."""
    return _CURRENT.get()


@dataclass(eq=False)
class _Run:
    """A call that runs here."""

    job: str
    owner: str
    key: str
    is_kept: bool = False
    task: asyncio.Task[Any] | None = None
    reason: str = ""
    is_seen_cancelled: bool = False
    outcome: bytes | None = None

    def cancel(self, reason: str) -> None:
        # Once: its clean-up is not cut, whoever has cancelled it first.
        if self.task is not None and not self.reason and not self.task.cancelling():
            self.reason = reason
            self.task.cancel()


class JobWorker:
    """Runs jobs in this process.

    Args:
        engine: Where the calls come from.
        jobs: The functions, by name.
        concurrency: How many calls may run at once.
        lease: The seconds of the lease by which others know that this worker lives.
        timeout: The seconds that the engine may take for an answer.
        max_size: How many bytes a result may have.
        grace: How many seconds calls may finish in when the worker is stopped.
        clean_up: How many seconds they may clean up in after that.
        state: What the functions find in `RunningJob.state`.
    """

    def __init__(
        self,
        engine: JobEngine,
        jobs: Mapping[str, JobFunction],
        *,
        concurrency: int,
        lease: float,
        timeout: float,
        max_size: int,
        grace: float,
        clean_up: float,
        state: Mapping[str, Any],
    ) -> None:
        self._engine = engine
        self._jobs = jobs
        self._concurrency = concurrency
        self._lease = lease
        self._timeout = timeout
        self._max_size = max_size
        self._grace = grace
        self._clean_up = clean_up
        self._state = state
        self._runs: dict[asyncio.Task[Any], _Run] = {}
        self._alive: dict[str, float] = {}
        self._offset = 0.0
        self._slots: EngineWorker | None = None
        self._has_lease = asyncio.Event()
        self._lent = 0
        self._is_ending = False
        where = re.sub(r"[^\w.-]", "_", socket.gethostname())
        self.name: str = f"{where}-{os.getpid()}-{uuid.uuid4().hex[:6]}"

    async def run(self, ready: Callable[[], None]) -> None:
        """Run calls until it is cancelled; then finish those that run, within the grace period."""
        async with self._engine.connect() as connection:
            self._connection = connection
            async with connection.worker(self.name, self._jobs, self._run) as worker:
                self._slots = worker
                worker.set_slots(self._concurrency)
                async with beside(worker.run(), self._beat(connection)):
                    try:
                        await self._has_lease.wait()
                        ready()
                        await asyncio.get_running_loop().create_future()
                    finally:
                        self._is_ending = True
                        with suppress(asyncio.CancelledError):  # a second one, which hurries
                            await worker.take_no_more()
                        await self._drain()

    async def _drain(self) -> None:
        """Let the calls finish, then cancel them; a second cancellation of the worker hurries."""
        if self._runs:
            with suppress(asyncio.CancelledError):
                await asyncio.wait(self._runs, timeout=self._grace)
        for run in self._runs.values():
            run.cancel(_SHUT_DOWN)
        if self._runs:
            await asyncio.wait(self._runs, timeout=self._clean_up)
        for run in self._runs.values():
            logger.error("job %s does not end, so its worker does not", escaped(run.job))

    def _lend(self, count: int) -> None:
        """Take that many calls more at once than before."""
        self._lent += count
        if self._slots is not None and not self._is_ending:
            self._slots.set_slots(self._concurrency + self._lent)

    # The lease

    async def _beat(self, connection: EngineConnection) -> None:
        """Renew the lease, and cancel the calls of those who have died."""
        loop = asyncio.get_running_loop()
        proved = loop.time()
        while True:
            begin = loop.time()
            if begin - proved > self._lease and not self._engine.is_local:
                for run in self._runs.values():  # others have given them up
                    run.cancel(_OUT_OF_REACH)
            try:
                async with asyncio.timeout(self._timeout):
                    owners = {run.owner for run in self._runs.values() if run.owner}
                    renewal = await connection.renew((self.name, ANY_WORKER), self._lease, owners)
                    proved = begin
                    self._has_lease.set()
                    self._offset = renewal.now - (begin + loop.time()) / 2
                    self._alive = dict.fromkeys(renewal.alive, begin)
                    for run in self._runs.values():
                        if run.owner in owners and run.owner not in renewal.alive:
                            run.cancel(_UNWANTED)
                    await self._look(connection)
            except Exception as exc:  # noqa: BLE001  # whatever it is, it is out of reach
                logger.warning("the engine of the jobs does not answer: %r", exc)
            await asyncio.sleep(max(begin + self._lease / 5 - loop.time(), 0.02))

    async def _look(self, connection: EngineConnection) -> None:
        """Cancel what was cancelled by a message that got lost."""
        runs = [run for run in self._runs.values() if not run.reason]
        for run, cancelled in zip(
            runs, await connection.cancelled([run.key for run in runs]), strict=True
        ):
            # Not at first sight: the message may be on its way, and would cut the clean-up.
            if cancelled and run.is_seen_cancelled:
                run.cancel(_CANCELLED)
            run.is_seen_cancelled = cancelled

    async def _is_wanted(self, owner: str) -> bool:
        """Whether the process that has submitted a call still lives."""
        now = asyncio.get_running_loop().time()
        if now - self._alive.get(owner, -self._lease) < self._lease / 2:
            return True
        async with self._or_hand_back():
            renewal = await self._connection.renew((), self._lease, (owner,))
        if owner in renewal.alive:
            self._alive[owner] = now
        return owner in renewal.alive

    # One call

    async def _run(self, delivery: Delivery) -> bytes:
        """Run a call, and return its outcome.

        In a task of its own: the engine, a lost lease and a shutdown may each cancel it, and the
        second of them would cut the clean-up that the first has begun.
        """
        try:
            header, arguments = unframe(delivery.payload)
            owner, is_kept = str(header["owner"]), header.get("kept") is True
        except (ValueError, KeyError) as exc:
            logger.error("a call of another kind was dropped: %s", escaped(repr(exc)))
            return self._failure(exc)
        if is_kept:
            async with self._or_hand_back():
                if await self._connection.is_settled(delivery.key):
                    return b""  # it was done, by a worker that could not say so any more
        run = _Run(delivery.job, owner, delivery.key, is_kept=is_kept)
        filling = self._fill(run, delivery, header.get("deadline"), arguments)
        run.task = task = asyncio.create_task(filling, name=f"job {delivery.job}")
        self._runs[task] = run
        try:
            while not task.done():
                try:
                    await asyncio.wait((task,))
                except asyncio.CancelledError:
                    run.cancel(_CANCELLED)
        finally:
            del self._runs[task]
        if run.reason and run.reason != _CANCELLED:
            logger.warning("job %s was cancelled: %s", escaped(run.job), run.reason)
        if run.outcome is None:
            await task  # it was cancelled, or is handed back
        outcome = run.outcome or b""
        if not is_kept:
            return outcome
        await self._settle(delivery, header, outcome)
        return b""

    async def _fill(
        self, run: _Run, delivery: Delivery, deadline: float | None, arguments: bytes
    ) -> None:
        """Keep the outcome of a call where it can't get lost.

        From 3.13 on, a group whose body fails while it is cancelled cancels its task once more: the
        task then ends as cancelled, whatever it returns.
        """
        run.outcome = await self._outcome(run, delivery, deadline, arguments)

    async def _outcome(
        self, run: _Run, delivery: Delivery, deadline: float | None, arguments: bytes
    ) -> bytes:
        job = self._jobs.get(delivery.job)
        if job is None:
            return self._failure(UnknownJobError(f"{self.name} knows no job {delivery.job}"))
        may_begin_again = job.idempotent or run.is_kept
        if delivery.deliveries > 1 and not may_begin_again:
            return self._failure(WorkerLostError(f"the worker that ran {job.name} has died"))
        if delivery.deliveries > job.max_attempts:
            text = f"{job.name} has lost its worker {delivery.deliveries - 1} times"
            return self._failure(WorkerLostError(text))
        try:
            if not run.is_kept and not await self._is_wanted(run.owner):
                # Told all the same: it may have been out of reach for a moment.
                return self._failure(WorkerLostError(f"{job.name} did not begin: {_UNWANTED}"))
            args, kwargs = job.types.load_arguments(arguments)
            result = await self._call(job, delivery, deadline, args, kwargs)
            body = job.types.dump_result(result)
            if len(body) > self._max_size:
                msg = f"the result of {job.name} has {len(body)} bytes, of at most {self._max_size}"
                raise ValueError(msg)
        except asyncio.CancelledError as exc:
            if not current_task().cancelling():
                return self._failure(exc)  # of something that it awaited
            if run.reason == _CANCELLED:
                raise
            if may_begin_again and run.reason != _UNWANTED:
                raise HandedBackError from None
            text = f"the worker that ran {job.name} has had to cancel it: {run.reason}"
            return self._failure(WorkerLostError(text))
        except HandedBackError:
            raise
        except BaseException as exc:  # noqa: BLE001  # also a SystemExit: it is the caller's
            return self._failure(exc)
        return frame({"ok": True, "worker": self.name}, body)

    @asynccontextmanager
    async def _or_hand_back(self) -> AsyncIterator[None]:
        """Ask the engine for something before a call begins: without an answer, it begins later."""
        try:
            async with asyncio.timeout(self._timeout):
                yield
        except Exception as exc:
            raise HandedBackError(1.0) from exc

    async def _settle(self, delivery: Delivery, header: dict[str, Any], outcome: bytes) -> None:
        """Note the end of a call that was handed over, or hand it back for another attempt."""
        job, kept = self._jobs.get(delivery.job), None
        if is_failure(outcome):
            origin = escaped(str(header.get("origin") or "a program"))
            error = json.loads(unframe(outcome)[1])
            if job is None or delivery.deliveries < job.max_attempts:
                # One that is unknown may be of a release that is on its way.
                policy = RestartPolicy() if job is None else job.restart
                delay = policy.delay(delivery.deliveries - 1)
                logger.warning(
                    "job %s, handed over by %s, has failed, and is tried again in %.1f s: %s",
                    escaped(delivery.job),
                    origin,
                    delay,
                    escaped(error["text"]),
                )
                raise HandedBackError(delay, counts=job is not None)
            logger.error(
                "job %s, handed over by %s, has failed for good after %d attempts: it is kept\n%s",
                escaped(delivery.job),
                origin,
                delivery.deliveries,
                error.get("traceback", ""),
            )
            about = {"job": delivery.job, "attempts": delivery.deliveries, "at": time.time()}
            about |= {"origin": header.get("origin"), "type": error["type"], "text": error["text"]}
            kept = frame(about, delivery.payload)
        try:
            async with asyncio.timeout(self._timeout):
                await self._connection.settle(delivery.key, kept)
        except Exception as exc:
            if kept is not None:
                raise HandedBackError(1.0) from exc
            logger.warning("%s is done, but could not be noted: %r", escaped(delivery.key), exc)

    async def _call(
        self,
        job: JobFunction,
        delivery: Delivery,
        deadline: float | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        loop = asyncio.get_running_loop()
        ends = [loop.time() + job.timeout] if job.timeout is not None else []
        by_caller = [deadline - self._offset] if deadline is not None else []
        # The caller cancels it at its deadline, and answers so: this is for one that can't.
        cut = min([*ends, *(end + self._timeout for end in by_caller)], default=None)
        until = min([*ends, *by_caller], default=None)
        token = None
        try:
            async with asyncio.timeout_at(cut) as timeout:
                async with TaskGroup() as group:
                    token = _CURRENT.set(
                        RunningJob(
                            name=job.name,
                            key=delivery.key,
                            attempt=delivery.deliveries,
                            task_group=group,
                            state=self._state,
                            _until=until,
                            _lend=self._lend,
                        )
                    )
                    result = await job.function(*args, **kwargs)
        except BaseExceptionGroup as group_exc:
            # One failure arrives unwrapped, as from a request.
            if len(group_exc.exceptions) == 1:
                raise group_exc.exceptions[0] from group_exc.exceptions[0].__cause__
            raise
        except TimeoutError as exc:
            if timeout.expired():
                msg = f"{job.name} has taken too long"
                raise JobTimeoutError(msg) from exc
            raise
        else:
            return result
        finally:
            if token is not None:
                _CURRENT.reset(token)

    def _failure(self, exc: BaseException) -> bytes:
        return frame({"ok": False, "worker": self.name}, dump_error(exc))
