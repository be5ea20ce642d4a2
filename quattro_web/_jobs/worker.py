"""A worker: it runs jobs, each in a task group, as long as somebody waits for them."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import re
import socket
import time
import uuid
from collections import Counter
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
    BadSignatureError,
    JobsNotRunningError,
    JobTimeoutError,
    UnknownJobError,
    WorkerLostError,
)
from quattro_web._jobs.signing import CALL, KEPT, OUTCOME, Signer
from quattro_web._jobs.wire import (
    FunctionTypes,
    PickledTypes,
    dump_error,
    frame,
    is_failure,
    unframe,
)
from quattro_web._util.asyncio import current_task
from quattro_web._util.counts import KIND, TASK_DURATIONS, TASK_FAILURES
from quattro_web._util.escaping import escaped
from quattro_web._util.facts import facts
from quattro_web._util.running_jobs import RUNNING_JOBS
from quattro_web._util.spans import CURRENT
from quattro_web._util.task_stacks import name_of

logger = logging.getLogger("quattro_web")

_SHUT_DOWN = "the worker shuts down"
_OUT_OF_REACH = "the engine is unreachable"
_CANCELLED = "it was cancelled"
_UNWANTED = "the process that requested it is gone"
# For so long, a worker that knows a job may still come, and no attempt of a job counts before.
_MOST_WAIT = 24 * 3600.0
_MOST_DELAY = 30.0
_MOST_VERSIONS = 1000
_MOST_COUNTED = 1000
KEPT_BY = "kept:"
"""What the key of a call that was handed over begins with."""


class JobFunction(Protocol):
    """What a worker knows of a job."""

    @property
    def name(self) -> str: ...
    @property
    def function(self) -> Callable[..., Coroutine[Any, Any, Any]]: ...
    @property
    def types(self) -> FunctionTypes | PickledTypes: ...
    @property
    def version(self) -> str: ...
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
    """The job that runs in the current task.

    Attributes:
        name: Its name.
        key: The key of this call.
        attempt: How often this call was started, including this time, but not runs that a worker's
            shutdown cut short.
        task_group: The job's task group, which ends with it.
        state: The state that the app's lifespan yielded, if an app runs the worker.

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
        """The seconds until the job is cancelled; None if it has neither timeout nor deadline.

        .. versionadded:: 0.1
        """
        if self._until is None:
            return None
        return max(self._until - asyncio.get_running_loop().time(), 0.0)


_CURRENT: ContextVar[RunningJob | None] = ContextVar("quattro_web.jobs.current", default=None)


def current_job() -> RunningJob:
    """Return the job that runs in the current task.

    ::

        @jobs.job()
        async def crawl(site: str) -> list[str]:
            tg = current_job().task_group
            pages = await tg.gather(fetch(f"{site}/1"), fetch(f"{site}/2"))

    Raises:
        JobsNotRunningError: If no job runs here, for example because its function was called
            directly.

    .. versionadded:: 0.1
    """
    job = _CURRENT.get()
    if job is None:
        msg = "no job runs here: the function was called directly, not with .remote(...)"
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
    function: str | None
    origin: str
    attempt: int
    is_kept: bool = False
    since: float = field(default_factory=time.monotonic)
    task: asyncio.Task[Any] | None = None
    has_begun: bool = False
    reason: str = ""
    is_seen_cancelled: bool = False
    outcome: bytes | None = None
    timeout: asyncio.Timeout | None = None
    group: TaskGroup | None = None  # while the function runs, in both

    def cancel(self, reason: str) -> None:
        # Once: its clean-up is not cut, whoever has cancelled it first.
        if self.task is not None and not self.reason and not self.task.cancelling():
            self.reason = reason
            if self.group is not None and self.timeout is not None:
                # Nor by its timeout, or by a child that fails meanwhile: a group which has not
                # cancelled its body itself would do so then.
                self.timeout.reschedule(None)
                self.group.cancel()
            elif self.has_begun:  # else it would end before it can say what becomes of it
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
        signer: Signer | None = None,
        failures: Counter[tuple[str, str]] | None = None,
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
        self._signer = signer or Signer()
        self._spans = CURRENT.get()
        self._failures = Counter() if failures is None else failures
        self._runs: dict[asyncio.Task[Any], _Run] = {}
        self._alive: dict[str, float] = {}
        self._versions_seen: set[tuple[str, str]] = set()
        self._offset = 0.0
        self._slots: EngineWorker | None = None
        self._has_lease = asyncio.Event()
        self._lent = 0
        self._is_ending = False
        where = re.sub(r"[^\w.-]", "_", socket.gethostname())
        self.name: str = f"{where}-{os.getpid()}-{uuid.uuid4().hex[:6]}"

    async def run(self, ready: Callable[[], None]) -> None:
        """Run calls until it is cancelled; then finish those that run, within the grace period."""
        RUNNING_JOBS[self] = self._runs
        try:
            await self._serve(ready)
        finally:
            del RUNNING_JOBS[self]

    async def _serve(self, ready: Callable[[], None]) -> None:
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
            name = escaped(run.job)
            logger.error(
                "job %s does not end, so neither does its worker", name, extra=facts(job=name)
            )

    def _lend(self, count: int) -> None:
        """Take that many calls more at once than before."""
        self._lent += count
        if self._slots is not None and not self._is_ending:
            self._slots.set_slots(self._concurrency + self._lent)

    # The lease

    async def _beat(self, connection: EngineConnection) -> None:
        """Renew the lease, and cancel the calls of those who have died."""
        loop = asyncio.get_running_loop()
        proved, latest_offset = loop.time(), 0.0
        while True:
            begin = loop.time()
            if begin - proved > self._lease and not self._engine.is_local:
                for run in self._runs.values():  # others have given them up
                    run.cancel(_OUT_OF_REACH)
            try:
                async with asyncio.timeout(self._timeout):
                    owners = {run.owner for run in self._runs.values() if run.owner}
                    since = begin + latest_offset if self._has_lease.is_set() else None
                    renewal = await connection.renew(
                        (self.name, ANY_WORKER),
                        self._lease,
                        owners,
                        since=since,
                        within=self._timeout,
                    )
                    proved = begin
                    self._has_lease.set()
                    self._offset = renewal.now - (begin + loop.time()) / 2
                    latest_offset = renewal.now - begin  # a lease is never shorter for it
                    self._alive = dict.fromkeys(renewal.alive, begin)
                    for run in self._runs.values():
                        if run.owner in owners and run.owner not in renewal.alive:
                            run.cancel(_UNWANTED)
                    await self._look(connection)
            except Exception as exc:  # noqa: BLE001  # whatever it is, it is unreachable
                logger.warning("the job engine does not answer: %r", exc)
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
        """Run a call that was signed as it has to be, and return its outcome, signed."""
        try:
            data = self._signer.opened(CALL, delivery.key, delivery.job, delivery.payload)
        except BadSignatureError as exc:
            logger.error("a call was rejected: %s", escaped(str(exc)))
            outcome = self._failure(exc)
            if delivery.key.startswith(KEPT_BY):
                # With another key, and not lost: what can't be read is a failure like another one.
                await self._settle(delivery, {}, outcome)
                outcome = b""
        else:
            outcome = await self._run_opened(delivery, data)
        return outcome and self._signer.signed(OUTCOME, delivery.key, delivery.job, outcome)

    async def _run_opened(self, delivery: Delivery, data: bytes) -> bytes:
        """Run a call, and return its outcome.

        In a task of its own: the engine, a lost lease and a shutdown may each cancel it, and the
        second of them would cut the clean-up that the first has begun.
        """
        if self._is_ending:  # it has come late: the shutdown would not see it
            raise HandedBackError
        try:
            header, arguments = unframe(data)
            owner, is_kept = str(header["owner"]), header.get("kept") is True
        except (ValueError, KeyError) as exc:
            logger.error("a call of an unknown kind was dropped: %s", escaped(repr(exc)))
            return self._failure(exc)
        if is_kept:
            async with self._or_hand_back():
                if await self._connection.is_settled(delivery.key):
                    return b""  # it was done, by a worker that could not say so any more
        job = self._jobs.get(delivery.job)
        run = _Run(
            delivery.job,
            owner,
            delivery.key,
            None if job is None else name_of(job.function),
            origin=str(header.get("origin") or owner or "a program"),
            attempt=delivery.deliveries,
            is_kept=is_kept,
        )
        filling = self._fill(run, delivery, header, arguments)
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
            name = escaped(run.job)
            logger.warning("job %s was cancelled: %s", name, run.reason, extra=facts(job=name))
        if run.outcome is None:
            await task  # it was cancelled, or is handed back
        outcome = run.outcome or b""
        if not is_kept:
            return outcome
        await self._settle(delivery, header, outcome)
        return b""

    async def _fill(
        self, run: _Run, delivery: Delivery, header: dict[str, Any], arguments: bytes
    ) -> None:
        """Keep the outcome of a call where it can't get lost.

        From 3.13 on, a group whose body fails while it is cancelled cancels its task once more: the
        task then ends as cancelled, whatever it returns.
        """
        run.has_begun = True
        if run.reason:
            current_task().cancel()
        run.outcome = await self._outcome(run, delivery, header, arguments)

    async def _outcome(
        self, run: _Run, delivery: Delivery, header: dict[str, Any], arguments: bytes
    ) -> bytes:
        job = self._jobs.get(delivery.job)
        if job is None:
            return self._unknown(f"{self.name} knows no job {delivery.job}")
        difference, runs_it = self._compared(job, header.get("version"))
        if not runs_it:
            return self._unknown(difference)
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
            try:
                args, kwargs = job.types.load_arguments(arguments)
            except Exception as exc:
                if not difference:
                    raise
                return self._unknown(f"{difference}: its arguments do not fit: {exc}", exc)
            began = time.monotonic()
            try:
                trace = header.get("trace")
                with self._spans.job(job.name, trace, is_handed_over=run.is_kept):
                    result = await self._call(job, run, header.get("deadline"), args, kwargs)
            finally:
                TASK_DURATIONS.observe(time.monotonic() - began, {KIND: "job"})
            body = job.types.dump_result(result)
            if len(body) > self._max_size:
                msg = f"the result of {job.name} has {len(body)} bytes, of at most {self._max_size}"
                raise ValueError(msg)
        except asyncio.CancelledError as exc:
            if not (run.reason or current_task().cancelling()):
                return self._failure(exc)  # of something that it awaited
            if run.reason == _CANCELLED:
                raise
            if may_begin_again and run.reason != _UNWANTED:
                raise HandedBackError from None
            text = f"the worker that ran {job.name} had to cancel it: {run.reason}"
            return self._failure(WorkerLostError(text))
        except HandedBackError:
            raise
        except BaseException as exc:  # noqa: BLE001  # also a SystemExit: it is the caller's
            return self._failure(exc)
        return frame({"ok": True, "worker": self.name, "version": job.version}, body)

    def _compared(self, job: JobFunction, version: object) -> tuple[str, bool]:
        """Return how the caller's version of a job is another one, and whether it is run still.

        What was derived from the types says why arguments do not fit, where they do not; what was
        given says that nothing fits. The log says it once of each.
        """
        if not isinstance(version, str) or version in ("", job.version):
            return "", True
        theirs = escaped(version)
        runs_it = version.rpartition("/")[0] == job.version.rpartition("/")[0]
        seen = self._versions_seen
        if (job.name, theirs) not in seen and len(seen) < _MOST_VERSIONS:
            seen.add((job.name, theirs))
            logger.warning(
                "a caller has version %s of job %s, and this worker has version %s: it is run %s",
                theirs,
                job.name,
                job.version,
                "where the arguments fit" if runs_it else "by workers of that version alone",
                extra=facts(job=job.name),
            )
        difference = (
            f"worker {self.name} has another version of {job.name} ({job.version}, the caller has "
            f"{theirs})"
        )
        return difference, runs_it

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
            route = escaped(str(header.get("route") or ""))
            path = route.partition(" ")[2]  # a field and a metric have no method in it
            fields = facts(job=escaped(delivery.job), origin=origin, route=path or None)
            told, data = unframe(outcome)
            error = json.loads(data)
            # One that is unknown may be of a release that is on its way.
            waits = told.get("unknown") is True and (age := _age(header)) < _MOST_WAIT
            if waits or (job is not None and delivery.deliveries < job.max_attempts):
                policy = RestartPolicy() if job is None else job.restart
                delay = policy.delay(delivery.deliveries - 1)
                if waits:
                    delay = max(delay, min(age / 4, _MOST_DELAY))
                logger.warning(
                    "job %s, handed over by %s, has failed, and is retried in %.1f s: %s",
                    escaped(delivery.job),
                    origin,
                    delay,
                    escaped(error["text"]),
                    extra=fields,
                )
                raise HandedBackError(delay, counts=not waits)
            logger.error(
                "job %s, handed over by %s, has failed for good after %d attempts: it is kept"
                "%s\n%s",
                escaped(delivery.job),
                origin,
                delivery.deliveries,
                f" (route {route})" if route else "",
                error.get("traceback", ""),
                extra=fields,
            )
            about = {"job": delivery.job, "attempts": delivery.deliveries, "at": time.time()}
            about |= {"origin": header.get("origin"), "route": header.get("route")}
            about |= {"type": error["type"], "text": error["text"]}
            kept = frame(about, delivery.payload)
            kept = self._signer.signed(KEPT, delivery.key, "", kept)
        try:
            async with asyncio.timeout(self._timeout):
                await self._connection.settle(delivery.key, kept)
        except Exception as exc:
            if kept is not None:
                raise HandedBackError(1.0) from exc
            logger.warning(
                "%s is done, but that could not be recorded: %r", escaped(delivery.key), exc
            )
        if kept is not None:
            pair = (escaped(delivery.job), route)
            has_room = pair in self._failures or len(self._failures) < _MOST_COUNTED
            self._failures[pair if has_room else ("", "")] += 1
            kind = str(error["type"]).replace(":", ".").removeprefix("builtins.")
            TASK_FAILURES.add("job", kind, path)

    async def _call(
        self,
        job: JobFunction,
        run: _Run,
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
        results: list[Any] = []
        try:
            async with asyncio.timeout_at(cut) as timeout:
                async with TaskGroup() as group:
                    run.timeout, run.group = timeout, group
                    token = _CURRENT.set(
                        RunningJob(
                            name=job.name,
                            key=run.key,
                            attempt=run.attempt,
                            task_group=group,
                            state=self._state,
                            _until=until,
                            _lend=self._lend,
                        )
                    )
                    results = [await job.function(*args, **kwargs)]
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
        finally:
            run.timeout = run.group = None
            if token is not None:
                _CURRENT.reset(token)
        if run.reason:
            raise asyncio.CancelledError
        if not results:
            msg = f"{job.name} has cancelled its task group before it had a result"
            raise RuntimeError(msg)
        return results[0]

    def _failure(self, exc: BaseException, **more: bool) -> bytes:
        return frame({"ok": False, "worker": self.name, **more}, dump_error(exc))

    def _unknown(self, text: str, cause: Exception | None = None) -> bytes:
        exc = UnknownJobError(text)
        exc.__cause__ = cause
        return self._failure(exc, unknown=True)


def _age(header: Mapping[str, Any]) -> float:
    """Return the seconds since a call was handed over; many, if that is not known."""
    at = header.get("at")
    return time.time() - at if isinstance(at, int | float) else math.inf
