"""The jobs of an app: functions that can be called here, and run elsewhere."""

from __future__ import annotations

import asyncio
import inspect
import math
import re
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, update_wrapper
from types import CoroutineType
from typing import Any, Generic, ParamSpec, TypeVar, cast
from urllib.parse import quote
from weakref import WeakKeyDictionary

from quattro_core import RestartPolicy, TaskStatus
from quattro_web._jobs.client import JobsClient
from quattro_web._jobs.docket_engine import DocketEngine
from quattro_web._jobs.engine import JobEngine, Submission
from quattro_web._jobs.errors import JobsNotRunningError
from quattro_web._jobs.wire import FunctionTypes, frame, load_error, unframe
from quattro_web._jobs.worker import JobWorker, running_job
from quattro_web._pumps.pump import Pump
from quattro_web._request.watch import time_left_here
from quattro_web._util.arguments import (
    checked_limit,
    checked_seconds,
    checked_text,
    required_seconds,
)
from quattro_web._util.scope import Connection, describe, scope_of

P = ParamSpec("P")
R = TypeVar("R")

_PATTERN = re.compile(r"[*?\[\]\\]")
_JOBS_OF: WeakKeyDictionary[Any, Jobs] = WeakKeyDictionary()


class Job(Generic[P, R]):
    """An async function that can be run elsewhere, made by `Jobs.job`.

    Called, it is the function that it was, and runs here.

    Attributes:
        function: The function.
        name: Its name, by which workers know it.
        timeout: How many seconds it may take; None means no limit.
        max_attempts: How often it may be begun, where it may be begun more than once.
        idempotent: Whether it may be, when a worker dies that runs it.
        restart: When it is begun again, if it was handed over and has failed.

    .. versionadded:: 0.1
    """

    def __init__(
        self,
        jobs: Jobs,
        function: Callable[P, Coroutine[Any, Any, R]],
        *,
        name: str,
        timeout: float | None,
        max_attempts: int,
        idempotent: bool,
        restart: RestartPolicy,
    ) -> None:
        update_wrapper(self, function)
        self._jobs = jobs
        self.function: Callable[P, Coroutine[Any, Any, R]] = function
        self.name: str = name
        self.timeout: float | None = timeout
        self.max_attempts: int = max_attempts
        self.idempotent: bool = idempotent
        self.restart: RestartPolicy = restart

    # Not Coroutine[Any, Any, R]: with it, mypy takes two of them in a gather for Any.
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[object, None, R]:
        """Run the function here."""
        return self.function(*args, **kwargs)

    def remote(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[object, None, R]:
        """Run the function on a worker, and return its result.

        ::

            cover, index = await tg.gather(render.remote(0), render.remote(1))

        The coroutine is a child of whatever group it is given to. If it is cancelled, so is the
        function on its worker, and its clean-up is awaited: up to the *clean_up* of `Jobs`, after
        which it is given up, and named in the log. An error comes back as itself, with the worker
        and its traceback as the cause.

        Raises:
            JobsNotRunningError: If the jobs are not open in this event loop.
            JobsUnavailableError: If the engine is out of reach, or there is no worker: 503.
            WorkerLostError: If its worker has died, and it may not be begun again: 503.
            UnknownJobError: If its worker does not know it: 503.
            JobTimeoutError: If it has taken longer than its *timeout*.
            RemoteError: If it has failed with an exception that can't be made again here.
            TypeError: If the function takes other arguments.
            ValueError: If an argument, or the result, is not what its annotation says, or if the
                arguments are larger than *max_size*.

        .. versionadded:: 0.1
        """
        coro = self._remote(args, kwargs)
        # What asyncio and the logs call the task.
        named = cast("CoroutineType[Any, Any, R]", coro)
        named.__name__ = named.__qualname__ = f"{self.name}.remote"
        return coro

    def call(self, *args: P.args, **kwargs: P.kwargs) -> JobCall:
        """Return a call of the function, for `Jobs.hand_over`.

        Raises:
            TypeError: If the function takes other arguments.
            ValueError: If an argument is not what its annotation says, or if they are larger than
                *max_size*.

        .. versionadded:: 0.1
        """
        return JobCall(self.name, self._arguments(args, kwargs))

    def _arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        arguments = self.types.dump_arguments(args, kwargs)
        if len(arguments) > self._jobs.max_size:
            msg = (
                f"the arguments of {self.name} have {len(arguments)} bytes, "
                f"of at most {self._jobs.max_size}"
            )
            raise ValueError(msg)
        return arguments

    async def _remote(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
        client = self._jobs.client(self.name)
        arguments = self._arguments(args, kwargs)
        around = running_job()
        # A job that waits for another lends its place to it, as a child does in a group.
        with nullcontext() if around is None else around.lending():
            outcome = await client.call(
                self.name,
                arguments,
                is_idempotent=self.idempotent,
                time_left=time_left_here() if around is None else around.time_left,
            )
        header, body = unframe(outcome)
        if header.get("ok"):
            return cast("R", self.types.load_result(body))
        raise load_error(body, str(header.get("worker")))

    @cached_property
    def types(self) -> FunctionTypes:
        """How its arguments and its result travel."""
        return FunctionTypes(self.function)

    def __repr__(self) -> str:
        return f"<Job {self.name}>"


@dataclass(frozen=True)
class JobCall:
    """A call of a job, with its arguments, made by `Job.call`.

    Attributes:
        job: The name of the job.
        arguments: Its arguments, as JSON.

    .. versionadded:: 0.1
    """

    job: str
    arguments: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class FailedJob:
    """A job that was handed over, and has failed for good.

    Attributes:
        key: The key of the call, for `Jobs.start_again` and `Jobs.forget`.
        job: The name of the job.
        origin: The request that has handed it over, as its method and path; empty if not known.
        error: The class and the text of its last error.
        attempts: How often it was begun.
        at: When it has failed.

    .. versionadded:: 0.1
    """

    key: str
    job: str
    origin: str
    error: str
    attempts: int
    at: datetime


class Jobs:
    """Functions that run in other processes, on other machines, as children of the requests here.

    ::

        jobs = Jobs("redis://cache")

        @jobs.job(timeout=60)
        async def render(page: int) -> bytes: ...

        install(app, jobs=jobs)

    Arguments and results travel as JSON, by the annotations of the function.

    Args:
        engine: The URL of docket's Redis, or ``"memory://"``, whose worker runs in this process.
        name: A name, to tell the jobs of this app from others in the same Redis, which would be
            taken by its workers.
        concurrency: How many jobs a worker runs at once.
        lease: After how many seconds a silent process counts as dead: the jobs of its requests are
            cancelled then, at most a fifth of it later. A request whose worker is silent, or that
            has lost the engine, gets an error then.
        clean_up: How many seconds a cancelled job may take for its clean-up.
        timeout: How many seconds the engine may take for an answer.
        max_size: How many bytes the arguments or the result of a job may have, as JSON.
        redelivery: After how many seconds a job whose worker is silent is given to another, if it
            is idempotent.

    Attributes:
        clean_up: How many seconds a cancelled job may take for its clean-up.
        max_size: How many bytes the arguments or the result of a job may have.

    Raises:
        TypeError: If an argument is of a wrong type.
        ValueError: If *engine* is no such URL, if *name* has a character that Redis takes for part
            of a pattern, if a duration is not positive and finite, or if a number is below 1.

    .. versionadded:: 0.1
    """

    def __init__(
        self,
        engine: str | JobEngine,
        *,
        name: str = "jobs",
        concurrency: int = 50,
        lease: float = 5.0,
        clean_up: float = 10.0,
        timeout: float = 2.0,
        max_size: int = 8 * 1024 * 1024,
        redelivery: float = 10.0,
    ) -> None:
        if _PATTERN.search(checked_text("name", name)):
            msg = f"name must have none of *?[]\\, which Redis takes for a pattern, got {name!r}"
            raise ValueError(msg)
        required_seconds("redelivery", redelivery)
        self._concurrency = _number("concurrency", concurrency)
        self.max_size: int = _number("max_size", max_size)
        self._lease = required_seconds("lease", lease)
        self.clean_up: float = required_seconds("clean_up", clean_up)
        self._timeout = required_seconds("timeout", timeout)
        if not (isinstance(engine, str) or hasattr(engine, "connect")):
            msg = f"engine must be the URL of a Redis, or a JobEngine, got {engine!r}"
            raise TypeError(msg)
        if isinstance(engine, str):
            engine = DocketEngine(engine, name=name, redelivery=redelivery)
        self._engine = engine
        self._jobs: dict[str, Job[..., Any]] = {}
        self._clients: list[tuple[asyncio.AbstractEventLoop, JobsClient]] = []

    def job(
        self,
        *,
        name: str | None = None,
        timeout: float | None = None,
        max_attempts: int = 3,
        idempotent: bool = False,
        restart: RestartPolicy | None = None,
    ) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], Job[P, R]]:
        """Make a `Job` of the decorated function.

        Args:
            name: Its name; by default that of the function, with its module.
            timeout: After how many seconds it is cancelled, and fails with `JobTimeoutError`. None
                means that only its request ends it.
            max_attempts: How often it may be begun, if it is idempotent and its worker dies, or if
                it was handed over.
            idempotent: Whether it may be begun again when its worker has died in the middle of it.
                If not, the request fails at once with `WorkerLostError`.
            restart: After which time it is begun again if it was handed over and has failed: by the
                *base* and the *ceiling* of the policy. None means its defaults.

        Raises:
            TypeError: If it is no async function, or if another argument is of a wrong type.
            ValueError: If there is a job of this name, if *timeout* is not positive and finite, or
                *max_attempts* is below 1.

        .. versionadded:: 0.1
        """
        checked_seconds("timeout", timeout)
        _number("max_attempts", max_attempts)

        def decorate(function: Callable[P, Coroutine[Any, Any, R]]) -> Job[P, R]:
            if not inspect.iscoroutinefunction(function):
                msg = f"a job must be an async function, got {function!r}"
                raise TypeError(msg)
            own_name = name or f"{function.__module__}.{function.__qualname__}"
            if own_name in self._jobs:
                msg = f"there is a job {own_name} already: give this one a name"
                raise ValueError(msg)
            job = Job(
                self,
                function,
                name=own_name,
                timeout=timeout,
                max_attempts=max_attempts,
                idempotent=idempotent,
                restart=RestartPolicy() if restart is None else restart,
            )
            self._jobs[own_name] = job
            return job

        return decorate

    def pumps_for(self, app: Any) -> Iterable[Pump]:
        """Return the pumps that an app needs for its jobs; `quattro_web.install` calls it."""
        _JOBS_OF[app] = self
        pumps = [Pump(self._client_pump, name="jobs", on_failure="restart")]
        if self._engine.is_local:
            pumps.append(Pump(self._worker_pump, name="jobs worker", on_failure="restart"))
        return pumps

    @asynccontextmanager
    async def open(self, *, wait: float = 2.0) -> AsyncIterator[None]:
        """Connect to the engine, so that jobs can be called in this event loop.

        `quattro_web.install` does it for an app; this is for programs without one.

        Args:
            wait: How many seconds to wait for the engine, which may come later as well.

        .. versionadded:: 0.1
        """
        self._check_types()
        client = JobsClient(
            self._engine, lease=self._lease, clean_up=self.clean_up, timeout=self._timeout
        )
        async with client.open():
            await client.wait_up(wait)
            entry = (asyncio.get_running_loop(), client)
            self._clients.append(entry)
            try:
                yield
            finally:
                self._clients.remove(entry)

    async def run_worker(
        self,
        *,
        state: Mapping[str, Any] | None = None,
        grace: float = 30.0,
        ready: Callable[[], None] | None = None,
    ) -> None:
        """Run jobs in this process until it is cancelled.

        Jobs that call others need `open` around it.

        Args:
            state: What the jobs find in the ``state`` of `RunningJob`.
            grace: How many seconds they may finish in when it is cancelled; those that are not
                done are cancelled then.
            ready: Called when it takes jobs.

        .. versionadded:: 0.1
        """
        self._check_types()
        worker = JobWorker(
            self._engine,
            self._jobs,
            concurrency=self._concurrency,
            lease=self._lease,
            timeout=self._timeout,
            max_size=self.max_size,
            grace=grace,
            clean_up=self.clean_up,
            state=state or {},
        )
        await worker.run(ready or (lambda: None))

    async def hand_over(
        self,
        call: JobCall,
        *,
        key: str | None = None,
        delay: float = 0.0,
        conn: Connection | None = None,
    ) -> str:
        """Hand a job over to the engine, for work that is not lost with this process.

        ::

            await jobs.hand_over(send_mail.call(order_id), key=f"mail-{order_id}", conn=request)

        When it returns, the engine has it: it is done at least once, whatever dies here, and tried
        again up to the *max_attempts* of the job. It is not cancelled with the request. What fails
        for good is logged by its worker, and kept: see `failed`.

        Args:
            call: What to do.
            key: A name for it: of two calls of a job with the same key within a day, one is done.
                None means that each is another one. One that has failed for good is not begun again
                by its key, but by `start_again`.
            delay: After how many seconds it may begin, by the clocks of this machine and of the
                worker's.
            conn: The request, which the log then names.

        Returns:
            The key of the call.

        Raises:
            JobsNotRunningError: If the jobs are not open in this event loop.
            JobsUnavailableError: If the engine has not answered in time: 503. It may have the call
                all the same, so that trying again needs a *key*.
            ValueError: If *delay* is negative or not finite.

        .. versionadded:: 0.1
        """
        if not (math.isfinite(delay) and delay >= 0):
            msg = f"delay must be at least 0 and finite, got {delay!r}"
            raise ValueError(msg)
        origin = "" if conn is None else describe(scope_of(conn))
        job = quote(call.job, safe=" ")  # a colon in it would be the end of it
        own_key = f"kept:{job}:{uuid.uuid4().hex if key is None else key}"
        header = {"owner": "", "kept": True, "origin": origin}
        payload = frame(header, call.arguments)
        await self.client(call.job).hand_over(Submission(own_key, call.job, payload, delay))
        return own_key

    async def failed(self) -> list[FailedJob]:
        """Return the jobs that were handed over and have failed for good, the first one first.

        Raises:
            JobsUnavailableError: If the engine has not answered in time.

        .. versionadded:: 0.1
        """
        found = []
        for key, data in (await self.client("failed").kept()).items():
            header, _ = unframe(data)
            found.append(
                FailedJob(
                    key=key,
                    job=header["job"],
                    origin=header["origin"] or "",
                    error=f"{header['type'].partition(':')[2]}: {header['text']}",
                    attempts=header["attempts"],
                    at=datetime.fromtimestamp(header["at"], UTC),
                )
            )
        return sorted(found, key=lambda each: each.at)

    async def start_again(self, key: str) -> None:
        """Hand a job that has failed for good over once more; it is kept until it is done.

        Raises:
            JobsUnavailableError: If the engine has not answered in time.
            KeyError: If there is none of this key.

        .. versionadded:: 0.1
        """
        client = self.client("start_again")
        header, payload = unframe((await client.kept())[key])
        await client.start_again(Submission(key, header["job"], payload))

    async def forget(self, key: str) -> None:
        """Forget a job that has failed for good.

        Raises:
            JobsUnavailableError: If the engine has not answered in time.

        .. versionadded:: 0.1
        """
        await self.client("forget").forget(key)

    def client(self, job: str) -> JobsClient:
        """Return what calls jobs in this event loop; *job* wants it.

        Raises:
            JobsNotRunningError: If there is none.
        """
        loop = asyncio.get_running_loop()
        for its_loop, client in reversed(self._clients):
            if its_loop is loop:
                return client
        msg = f"the jobs do not run, so {job} can't: call quattro_web.install(app, jobs=jobs)"
        raise JobsNotRunningError(msg)

    def _check_types(self) -> None:
        """Make what reads and writes arguments, so that a bad annotation fails at the start."""
        for job in self._jobs.values():
            try:
                job.types  # noqa: B018
            except Exception as exc:
                exc.add_note(f"its annotations can't travel: {job.name}")
                raise

    async def _client_pump(self, task_status: TaskStatus) -> None:
        async with self.open():
            task_status.started()
            await asyncio.get_running_loop().create_future()

    async def _worker_pump(self, state: Mapping[str, Any], task_status: TaskStatus) -> None:
        # Requests have ended before pumps do: what still runs then was handed over.
        await self.run_worker(state=state, grace=3.0, ready=task_status.started)

    def __repr__(self) -> str:  # without the URL, which may have a password
        return f"<Jobs {', '.join(self._jobs)}>"


def jobs_of(app: Any) -> Jobs | None:
    """Return the jobs that an app was installed with."""
    return _JOBS_OF.get(app)


def _number(name: str, value: int) -> int:
    number = checked_limit(name, value)
    if number is None:
        msg = f"{name} must be an int, got None"
        raise TypeError(msg)
    return number
