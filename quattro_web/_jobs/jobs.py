"""The jobs of an app: functions that are called here, and run elsewhere."""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import re
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
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
from quattro_web._jobs.docket_engine import MAX_KEPT, DocketEngine
from quattro_web._jobs.engine import JobEngine, Submission
from quattro_web._jobs.errors import BadSignatureError, JobsNotRunningError, RemoteError
from quattro_web._jobs.signing import CALL, KEPT, Signer, checked_keys
from quattro_web._jobs.wire import FunctionTypes, PickledTypes, frame, load_error, unframe
from quattro_web._jobs.worker import KEPT_BY, JobWorker, running_job
from quattro_web._pumps.pump import Pump
from quattro_web._request.watch import time_left_here
from quattro_web._util.arguments import (
    checked_bool,
    checked_limit,
    checked_seconds,
    checked_text,
    required_seconds,
)
from quattro_web._util.escaping import escaped
from quattro_web._util.routes import route_of
from quattro_web._util.scope import Connection, describe, scope_of

logger = logging.getLogger("quattro_web")

P = ParamSpec("P")
R = TypeVar("R")

_PATTERN = re.compile(r"[*?\[\]\\]")
_JOBS_OF: WeakKeyDictionary[Any, Jobs] = WeakKeyDictionary()


class Job(Generic[P, R]):
    """An async function that can run in another process; `Jobs.job` creates it.

    Calling it runs the function in this process, as before.

    Attributes:
        function: The function.
        name: Its name, which workers know it by.
        timeout: How many seconds it may take; None means no limit.
        max_attempts: How often it may be started, if it may be started more than once.
        idempotent: Whether it may be started again when its worker dies.
        restart: The delays before it is started again, if it was handed over and failed.

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
        version: str | None,
    ) -> None:
        update_wrapper(self, function)
        self._jobs = jobs
        self.function: Callable[P, Coroutine[Any, Any, R]] = function
        self.name: str = name
        self.timeout: float | None = timeout
        self.max_attempts: int = max_attempts
        self.idempotent: bool = idempotent
        self.restart: RestartPolicy = restart
        self._version = version

    # Not Coroutine[Any, Any, R]: with it, mypy takes two of them in a gather for Any.
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[object, None, R]:
        """Run the function here."""
        return self.function(*args, **kwargs)

    def remote(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[object, None, R]:
        """Run the function on a worker, and return its result.

        ::

            cover, index = await tg.gather(render.remote(0), render.remote(1))

        Start the coroutine in any task group. If it is cancelled, the function on its worker is
        cancelled too, and this waits for its clean-up, for up to *clean_up* seconds (see `Jobs`);
        after that it stops waiting, and the log names the job. An error keeps its class, and its
        cause has the worker and the traceback there.

        Raises:
            JobsNotRunningError: If jobs are not open in this event loop.
            JobsUnavailableError: If the engine is unreachable, or there is no worker: 503.
            WorkerLostError: If its worker died, and the job may not be started again: 503.
            UnknownJobError: If its worker does not know it, or knows another version: 503.
            JobTimeoutError: If it took longer than its *timeout*.
            BadSignatureError: If worker and web have different signing keys, or somebody else wrote
                the result.
            RemoteError: If it failed with an exception that can't be recreated here.
            TypeError: If the function takes other arguments.
            ValueError: If an argument or the result does not match its annotation, or if the
                arguments exceed *max_size*.

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
            ValueError: If an argument does not match its annotation, or if the arguments exceed
                *max_size*.

        .. versionadded:: 0.1
        """
        return JobCall(self.name, self._arguments(args, kwargs), self.version)

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
                version=self.version,
            )
        header, body = unframe(outcome)
        if not header.get("ok"):
            raise load_error(body, str(header.get("worker")))
        try:
            return cast("R", self.types.load_result(body))
        except ValueError as exc:
            other = header.get("version", self.version)
            if other == self.version:
                raise
            msg = (
                f"worker {header.get('worker')} has another version of {self.name} ({other}, here "
                f"it is {self.version}): its result does not fit: {exc}"
            )
            raise RemoteError(msg) from exc

    @cached_property
    def types(self) -> FunctionTypes | PickledTypes:
        """How its arguments and its result travel."""
        return (PickledTypes if self._jobs.pickle else FunctionTypes)(self.function)

    @property
    def version(self) -> str:
        """Its version: the given *version*, if any, and a hash of how its arguments are encoded.

        .. versionadded:: 0.1
        """
        given = "" if self._version is None else f"{self._version}/"
        return given + self.types.version

    def __repr__(self) -> str:
        return f"<Job {self.name}>"


@dataclass(frozen=True)
class JobCall:
    """A call of a job with its arguments; `Job.call` creates it.

    Attributes:
        job: The name of the job.
        arguments: Its arguments, as JSON or a pickle.
        version: The version of the job.

    .. versionadded:: 0.1
    """

    job: str
    arguments: bytes = field(repr=False)
    version: str = ""


@dataclass(frozen=True, kw_only=True)
class FailedJob:
    """A job that was handed over and failed for good.

    Attributes:
        key: The key of the call, for `Jobs.start_again` and `Jobs.forget`.
        job: The name of the job.
        origin: The method and path of the request that handed it over; empty if unknown.
        route: The route of that request, such as ``POST /orders/{order}``.
        error: The class and the message of its last error.
        attempts: How often it was started.
        at: When it failed.

    .. versionadded:: 0.1
    """

    key: str
    job: str
    origin: str
    route: str
    error: str
    attempts: int
    at: datetime


class Jobs:
    """Functions that run in other processes, also on other machines, as children of requests.

    ::

        jobs = Jobs("redis://cache")

        @jobs.job(timeout=60)
        async def render(page: int) -> bytes: ...

        install(app, jobs=jobs)

    Arguments and results are sent as JSON, converted by the function's annotations, or as pickles.

    Args:
        engine: The URL of docket's Redis; or ``"memory://"``, with a worker in this process.
        name: A name that keeps this app's jobs apart from others in the same Redis: workers of apps
            with the same name take each other's jobs.
        concurrency: How many jobs a worker runs at once.
        lease: After how many seconds a silent process counts as dead. The jobs of its requests are
            then cancelled, at most a fifth of that time later. A request whose worker is silent, or
            that has lost the engine, gets an error after this time.
        clean_up: How many seconds a cancelled job may take for its clean-up.
        timeout: How many seconds the engine may take to answer.
        max_size: How many bytes the encoded arguments or the encoded result of a job may have.
        redelivery: After how many seconds an idempotent job whose worker is silent is given to
            another worker.
        max_kept: How many handed-over jobs that failed for good are kept, with their arguments; the
            oldest are dropped first.
        signing_key: A secret of at least 32 bytes that web and workers share. They sign every
            message with it, and reject messages that are unsigned, or signed for another call or
            job. Given several keys, the first one signs and all of them are accepted, so that you
            can rotate keys.
        pickle: Whether arguments and results are sent as pickles, for classes that JSON can't
            represent. Requires a *signing_key*: whoever has that key can run code in your
            processes.

    Attributes:
        clean_up: How many seconds a cancelled job may take for its clean-up.
        max_size: How many bytes the arguments or the result of a job may have.
        pickle: Whether they are sent as pickles.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If *engine* is not such a URL, if *name* has a character with a meaning in Redis
            patterns, if a duration is not positive and finite, if a number is below 1, if a key is
            too short, or if *pickle* is true without a *signing_key*.

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
        max_kept: int = MAX_KEPT,
        signing_key: str | bytes | Sequence[str | bytes] | None = None,
        pickle: bool = False,
    ) -> None:
        if _PATTERN.search(checked_text("name", name)):
            msg = (
                "name must not contain any of *?[]\\, which have a meaning in Redis patterns, "
                f"got {name!r}"
            )
            raise ValueError(msg)
        required_seconds("redelivery", redelivery)
        _number("max_kept", max_kept)
        self._concurrency = _number("concurrency", concurrency)
        self.max_size: int = _number("max_size", max_size)
        self._lease = required_seconds("lease", lease)
        self.clean_up: float = required_seconds("clean_up", clean_up)
        self._timeout = required_seconds("timeout", timeout)
        keys = checked_keys(signing_key)
        if pickle and not keys:
            msg = (
                "pickle=True needs a signing_key: whoever writes to the engine could run code here"
            )
            raise ValueError(msg)
        self._signer = Signer(keys, name)
        self.pickle: bool = checked_bool("pickle", pickle)
        if not (isinstance(engine, str) or hasattr(engine, "connect")):
            msg = f"engine must be a Redis URL or a JobEngine, got {engine!r}"
            raise TypeError(msg)
        if isinstance(engine, str):
            engine = DocketEngine(engine, name=name, redelivery=redelivery, max_kept=max_kept)
        self._engine = engine
        self._jobs: dict[str, Job[..., Any]] = {}
        self._failures: Counter[tuple[str, str]] = Counter()
        self._clients: list[tuple[asyncio.AbstractEventLoop, JobsClient]] = []

    def job(
        self,
        *,
        name: str | None = None,
        timeout: float | None = None,
        max_attempts: int = 3,
        idempotent: bool = False,
        restart: RestartPolicy | None = None,
        version: str | None = None,
    ) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], Job[P, R]]:
        """Turn the decorated function into a `Job`.

        Args:
            name: Its name; by default that of the function, with its module.
            timeout: After how many seconds it is cancelled, and fails with `JobTimeoutError`. None
                means that only its request can cancel it.
            max_attempts: How often it may be started, if it is idempotent and its worker dies, or
                if it was handed over.
            idempotent: Whether it may be started again when its worker dies while running it. If
                not, the request fails with `WorkerLostError` at once.
            restart: The delays before it is started again if it was handed over and failed; only
                *base* and *ceiling* of the policy are used. None means the policy's defaults.
            version: Change it when the function does something else with the same arguments:
                workers with another version do not run the call. None means that any worker runs it
                whose function takes the same arguments.

        Raises:
            TypeError: If the function is not async, or if another argument has the wrong type.
            ValueError: If a job of this name exists, if *timeout* is not positive and finite, or if
                *max_attempts* is below 1.

        .. versionadded:: 0.1
        """
        checked_seconds("timeout", timeout)
        _number("max_attempts", max_attempts)
        checked_bool("idempotent", idempotent)
        if version is not None and not checked_text("version", version):
            msg = "version must not be empty: None means that there is none"
            raise ValueError(msg)

        def decorate(function: Callable[P, Coroutine[Any, Any, R]]) -> Job[P, R]:
            if not inspect.iscoroutinefunction(function):
                msg = f"a job must be an async function, got {function!r}"
                raise TypeError(msg)
            own_name = name or f"{function.__module__}.{function.__qualname__}"
            if own_name in self._jobs:
                msg = f"there is a job {own_name} already: give this one another name"
                raise ValueError(msg)
            job = Job(
                self,
                function,
                name=own_name,
                timeout=timeout,
                max_attempts=max_attempts,
                idempotent=idempotent,
                restart=RestartPolicy() if restart is None else restart,
                version=version,
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

        `quattro_web.install` does this for an app; call it in programs without an app.

        Args:
            wait: How many seconds to wait for the engine; if it is not there by then, it may still
                appear later.

        .. versionadded:: 0.1
        """
        self._check_types()
        client = JobsClient(
            self._engine,
            lease=self._lease,
            clean_up=self.clean_up,
            timeout=self._timeout,
            signer=self._signer,
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
        """Run jobs in this process until cancelled.

        If jobs call other jobs, wrap it in `open`.

        Args:
            state: What the jobs get as ``state`` of their `RunningJob`.
            grace: How many seconds running jobs may take to finish after a cancellation; after
                that, they are cancelled.
            ready: Called when the worker begins to take jobs.

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
            signer=self._signer,
            failures=self._failures,
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
        """Hand a job over to the engine, for work that must survive this process.

        ::

            await jobs.hand_over(send_mail.call(order_id), key=f"mail-{order_id}", conn=request)

        Once this returns, the engine has the call: it is run at least once, whatever happens to
        this process, and retried up to the job's *max_attempts*. It is not cancelled with the
        request. If it fails for good, its worker logs the error and keeps the call: see `failed`.

        Args:
            call: The call.
            key: An idempotency key: of two calls of a job with the same key, only one runs. The key
                is remembered while its job waits or runs, and for a day afterwards. None means that
                every call runs. Within that day, a call that failed for good is not restarted by
                its key; use `start_again`.
            delay: After how many seconds it may start; depends on the clocks of this machine and
                the worker's.
            conn: The request: the log names it, and failures are counted by its route.

        Returns:
            The key of the call.

        Raises:
            JobsNotRunningError: If jobs are not open in this event loop.
            JobsUnavailableError: If the engine did not answer in time: 503. It may still have
                received the call, so retry only with a *key*.
            ValueError: If *delay* is negative or not finite.

        .. versionadded:: 0.1
        """
        if not (math.isfinite(delay) and delay >= 0):
            msg = f"delay must be at least 0 and finite, got {delay!r}"
            raise ValueError(msg)
        scope = None if conn is None else scope_of(conn)
        job = quote(call.job, safe=" ")  # a colon in it would be the end of it
        own_key = f"{KEPT_BY}{job}:{uuid.uuid4().hex if key is None else key}"
        header = {"owner": "", "kept": True, "version": call.version, "at": time.time()}
        client = self.client(call.job)
        header |= client.trace()
        if scope is not None:
            header |= {"origin": describe(scope), "route": route_of(scope)}
        payload = self._signer.signed(CALL, own_key, call.job, frame(header, call.arguments))
        await client.hand_over(Submission(own_key, call.job, payload, delay))
        return own_key

    @property
    def failures(self) -> Mapping[tuple[str, str], int]:
        """How many handed-over jobs failed for good, in the workers of this process.

        The keys are pairs: the name of the job, and the route of the request that handed it over
        (empty if unknown). Counting begins with the process. There are at most 1000 pairs; further
        failures are counted under two empty strings.

        .. versionadded:: 0.1
        """
        return dict(self._failures)

    async def failed(self) -> list[FailedJob]:
        """Return the handed-over jobs that failed for good, oldest first.

        Raises:
            JobsUnavailableError: If the engine did not answer in time.

        .. versionadded:: 0.1
        """
        found = []
        for key, data in (await self.client("failed").kept()).items():
            try:
                header, _ = unframe(self._signer.opened(KEPT, key, "", data))
            except BadSignatureError as exc:
                logger.error("the kept call of %s was rejected: %s", escaped(key), exc)
                continue
            found.append(
                FailedJob(
                    key=key,
                    job=header["job"],
                    origin=header["origin"] or "",
                    route=header.get("route") or "",
                    error=f"{header['type'].partition(':')[2]}: {header['text']}",
                    attempts=header["attempts"],
                    at=datetime.fromtimestamp(header["at"], UTC),
                )
            )
        return sorted(found, key=lambda each: each.at)

    async def start_again(self, key: str) -> None:
        """Hand over a job that failed for good once more; it is kept until it succeeds.

        Raises:
            BadSignatureError: If the kept call is not signed correctly.
            JobsUnavailableError: If the engine did not answer in time.
            KeyError: If no failed job has this key.

        .. versionadded:: 0.1
        """
        client = self.client("start_again")
        data = self._signer.opened(KEPT, key, "", (await client.kept())[key])
        header, payload = unframe(data)
        await client.start_again(Submission(key, header["job"], payload))

    async def forget(self, key: str) -> None:
        """Forget a job that failed for good.

        Raises:
            JobsUnavailableError: If the engine did not answer in time.

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
                job.version  # noqa: B018
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
