"""docket as an engine: Redis, or ``memory://`` inside of the process.

What docket 0.27 does, as measured and read, and what follows here:

- It sends arguments, results and errors as cloudpickles, and reads pickles from its stream of
  strikes in each process. Here a message holds one bytes object, which is looked at before docket
  unpickles it; results are kept beside docket's; and strikes are not read.
- ``get_result()`` takes a connection for each call, of which redis-py allows 100. One pattern
  subscription for all calls of a process hears the same.
- A worker whose slots are all taken looks for ended calls every ``minimum_check_interval``: 200
  calls at once took 3 s with docket's 10 slots and 250 ms, also with ``memory://``.
- More than 100 calls that end at once are more connections than redis-py allows, and the error ends
  the loop of the worker for 5 seconds: the URL asks for more.
- A call that a worker does not know is completed with None: a fallback says what it was.
- What ``memory://`` publishes in a script, as docket does, reaches no subscription by pattern: each
  call is subscribed to there, where that costs no round trip.
- A cancellation is published and may be missed: whoever runs the call has to look as well.
"""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
import pickletools
import re
import time
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import accumulate, islice
from typing import Any
from urllib.parse import urlsplit

from docket import CurrentExecution, Docket, Execution, Retry, Worker
from docket.dependencies import AdmissionBlocked, ForcedRetry
from docket.execution import TaskCall
from docket.strikelist import StrikeList
from opentelemetry import trace

from quattro_web._jobs.engine import (
    CallState,
    Delivery,
    EngineConnection,
    EngineWorker,
    HandedBackError,
    News,
    Renewal,
    RunCall,
    Submission,
    Watch,
)

logger = logging.getLogger("quattro_web")

# How long an outcome, and docket's own notes, are kept for a process that may have missed the news.
_KEPT = 60
_A_DAY = 24 * 3600.0
_STATES = {
    b"scheduled": CallState.WAITING,
    b"queued": CallState.WAITING,
    b"running": CallState.RUNNING,
    b"completed": CallState.ENDED,
    b"failed": CallState.ENDED,
    b"cancelled": CallState.ENDED,
}
# It is what a full worker waits for and an idle one polls with: 1 % of a core.
_CHECK = timedelta(milliseconds=25)
_SCHEMES = {"memory", "redis", "rediss", "redis+sentinel", "rediss+sentinel", "unix"}
_CONNECTIONS = "max_connections=10000"
_CANCELS_AT_ONCE = 16
# What is fetched with one answer, so that it comes within its time.
_MOST_BYTES = 4 * 1024 * 1024
# The steps of the pickles of a tuple of one bytes object, and of an empty dict.
_ARGS = re.compile("PROTO (SHORT_BINBYTES|BINBYTES|BINBYTES8) TUPLE1 STOP")
_KWARGS = re.compile("PROTO EMPTY_DICT STOP")
_NUMBER = re.compile(r"[0-9]{1,9}")


class DocketEngine:
    """docket at a URL.

    Args:
        url: As docket takes it: ``redis://``, ``rediss://``, ``unix://``, ``redis+sentinel://`` or
            ``memory://``.
        name: The name of the docket, which all its keys begin with.
        redelivery: Seconds after which a call whose worker is silent is given to another.

    Raises:
        ValueError: If *url* is none of these.
    """

    def __init__(self, url: str, *, name: str, redelivery: float) -> None:
        if not _is_url(url):
            msg = (  # it is not shown, since it may have a password
                "engine is no URL of a Redis: it must be such as memory:// or "
                "redis://user:password@host:6379/0, with each special character of the password in "
                "its percent-encoded form"
            )
            raise ValueError(msg)
        self.is_local: bool = url.startswith("memory://")
        if not self.is_local and "max_connections=" not in url:
            url += ("&" if "?" in url else "?") + _CONNECTIONS
        self._url = url
        self._name = name
        self._redelivery = timedelta(seconds=redelivery)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[EngineConnection]:
        docket = _SafeDocket(self._name, self._url, execution_ttl=timedelta(seconds=_KEPT))
        docket.tasks.clear()  # it offers three of its own
        async with docket:
            yield _DocketConnection(docket, self._redelivery, is_local=self.is_local)


class _DocketConnection:
    def __init__(self, docket: Docket, redelivery: timedelta, *, is_local: bool) -> None:
        self._docket = docket
        self._is_local = is_local
        self._redelivery = redelivery
        self._cancels = asyncio.Semaphore(_CANCELS_AT_ONCE)

    async def submit(self, calls: Sequence[Submission]) -> Sequence[Exception | None]:
        now = datetime.now(UTC)
        # docket puts the current trace into what it sends: that of a request is that of its calls.
        traces: dict[trace.Span, list[Submission]] = {}
        for call in calls:
            traces.setdefault(call.context.run(trace.get_current_span), []).append(call)
        errors: dict[str, Exception | None] = {}
        for span, group in traces.items():
            with trace.use_span(span, record_exception=False, set_status_on_exception=False):
                executions = await self._docket.add_many(
                    [
                        # The name alone: it is the worker that has the function.
                        TaskCall(
                            _not_here,
                            (call.payload,),
                            {},
                            call.key,
                            now + timedelta(seconds=call.delay),
                            function_name=call.job,
                        )
                        for call in group
                    ]
                )
            for execution in executions:
                errors[execution.key] = _as_exception(execution.schedule_exception)
        return [errors[call.key] for call in calls]

    async def cancel(self, keys: Sequence[str]) -> None:
        async def cancel(key: str) -> None:
            async with self._cancels:
                await self._docket.cancel(key)

        await asyncio.gather(*map(cancel, keys))

    @asynccontextmanager
    async def watch(self, owner: str) -> AsyncIterator[Watch]:
        pattern = self._docket.key(f"state:{owner}:*")
        async with self._docket.redis() as redis:
            pubsub = _any(redis).pubsub()
            try:
                if not self._is_local:
                    await pubsub.psubscribe(pattern)
                    # The subscription holds when Redis has confirmed it.
                    await pubsub.get_message(ignore_subscribe_messages=False, timeout=None)
                yield _DocketWatch(
                    self, pubsub, self._docket.key("state:"), is_local=self._is_local
                )
            finally:
                await pubsub.aclose()

    async def look(self, keys: Sequence[str]) -> Sequence[News]:
        async with self._docket.redis() as redis, _any(redis).pipeline() as pipeline:
            for key in keys:
                runs = self._docket.runs_key(key)
                pipeline.hget(runs, "state")
                pipeline.hget(runs, "worker")
            replies = await pipeline.execute()
        found, ended = [], {}
        for key, state, worker in zip(keys, replies[::2], replies[1::2], strict=True):
            how_far = _STATES.get(state, CallState.LOST)
            if how_far is CallState.ENDED:
                ended[key] = (state, worker)
            else:
                found.append(News(key, how_far, (worker or b"").decode()))
        for key, outcome in (await self.outcomes([*ended])).items():
            state, worker = ended[key]
            how_far = CallState.ENDED
            if state == b"cancelled" and worker and outcome is None:
                how_far = CallState.RUNNING  # docket says so as soon as it is asked to cancel it
            found.append(News(key, how_far, (worker or b"").decode(), outcome or None))
        return found

    async def outcomes(
        self, keys: Sequence[str], seen: Sequence[str] = ()
    ) -> Mapping[str, bytes | None]:
        """Return outcomes of calls that have ended, as many as fit into one answer.

        Forget those that were seen.
        """
        if not keys:
            return {}
        sizes = [0] * len(keys)  # memory:// has no command for it, and nothing that takes long
        async with self._docket.redis() as redis:
            if not self._is_local:
                async with _any(redis).pipeline() as pipeline:
                    for key in keys:
                        pipeline.strlen(self._outcome_key(key))
                    sizes = await pipeline.execute()
            # Up to the first one that is over it.
            ends = accumulate(sizes)
            some = [
                key
                for key, size, end in zip(keys, sizes, ends, strict=True)
                if end - size < _MOST_BYTES
            ]
            async with _any(redis).pipeline() as pipeline:
                for key in some:
                    pipeline.get(self._outcome_key(key))
                if seen:
                    pipeline.delete(*map(self._outcome_key, seen))
                replies = await pipeline.execute()
        return dict(zip(some, replies[: len(some)], strict=True))

    async def cancelled(self, keys: Sequence[str]) -> Sequence[bool]:
        if not keys:
            return []
        async with self._docket.redis() as redis, _any(redis).pipeline() as pipeline:
            for key in keys:
                pipeline.hget(self._docket.runs_key(key), "state")
            return [_STATES.get(state) is CallState.ENDED for state in await pipeline.execute()]

    async def settle(self, key: str, kept: bytes | None) -> None:
        async with self._docket.redis() as redis, _any(redis).pipeline() as pipeline:
            if kept is None:
                pipeline.hdel(self._docket.key("kept"), key)
            else:
                pipeline.hset(self._docket.key("kept"), key, kept)
            pipeline.set(self._settled_key(key), b"1", ex=int(_A_DAY))
            await pipeline.execute()

    async def unsettle(self, key: str) -> None:
        async with self._docket.redis() as redis:
            await redis.delete(self._settled_key(key))

    async def is_settled(self, key: str) -> bool:
        async with self._docket.redis() as redis:
            return bool(await redis.exists(self._settled_key(key)))

    async def kept(self) -> Mapping[str, bytes]:
        async with self._docket.redis() as redis:
            found = await redis.hgetall(self._docket.key("kept"))
        return {key.decode(): data for key, data in found.items()}

    async def forget(self, key: str) -> None:
        async with self._docket.redis() as redis:
            await redis.hdel(self._docket.key("kept"), key)

    async def renew(
        self, names: Collection[str], seconds: float, others: Collection[str]
    ) -> Renewal:
        others = [*others]
        if self._is_local:
            # All live and die together: nobody is dead since the event loop was blocked.
            seconds = _A_DAY
        async with self._docket.redis() as redis:
            has_clock = hasattr(redis, "time")
            async with _any(redis).pipeline() as pipeline:
                for name in names:
                    pipeline.set(self._lease_key(name), b"1", px=int(seconds * 1000))
                for name in others:
                    pipeline.exists(self._lease_key(name))
                if has_clock:
                    pipeline.time()
                replies = await pipeline.execute()
        found = replies[len(names) : len(names) + len(others)]
        alive = frozenset(name for name, exists in zip(others, found, strict=True) if exists)
        if not has_clock:  # memory:// has no other clock than that of its process
            return Renewal(alive, time.time())
        whole, micro = replies[-1]
        return Renewal(alive, int(whole) + int(micro) / 1e6)

    @asynccontextmanager
    async def worker(
        self, name: str, jobs: Iterable[str], run: RunCall
    ) -> AsyncIterator[EngineWorker]:
        docket = self._docket

        async def run_call(
            payload: bytes,
            execution: Execution = CurrentExecution(),  # noqa: B008
            retry: Retry = Retry(attempts=1),  # noqa: B008
        ) -> None:
            count = await self._deliveries(execution) if execution.redelivered else 1
            count += execution.attempt - 1  # of those that were handed back, what counts
            delivery = Delivery(execution.key, execution.function_name, payload, count)
            try:
                outcome = await run(delivery)
            except HandedBackError as exc:
                retry.attempts = None  # of this call, and for nothing else that may fail
                execution.attempt = count if exc.counts else count - 1  # docket adds one
                state, holder = await self._holder(execution.key)
                if holder not in (None, name.encode()):
                    # Another one has it, since this one was silent: nothing here is docket's to do.
                    raise AdmissionBlocked(execution, "another worker", handled=True) from None
                if state != b"cancelled":
                    retry.after(timedelta(seconds=exc.delay))
                outcome = b""
            except asyncio.CancelledError:
                # It was cancelled, and has cleaned up, perhaps since another worker has done it.
                await self._put_outcome(execution.key, b"", nx=True)
                raise
            await self._put_outcome(execution.key, outcome)

        # docket names its logs and spans by what is registered; the fallback runs the rest.
        docket.register(run_call, names=[*jobs] or None)
        worker = Worker(
            docket,
            name=name,
            concurrency=1,
            redelivery_timeout=self._redelivery,
            reconnection_delay=timedelta(seconds=1),
            minimum_check_interval=_CHECK,
            schedule_automatic_tasks=False,
            fallback_task=run_call,
        )
        log = logging.getLogger("docket.dependencies")
        log.addFilter(_is_no_retry)
        try:
            async with worker:
                yield _DocketWorker(worker)
        finally:
            log.removeFilter(_is_no_retry)

    async def _put_outcome(self, key: str, outcome: bytes, *, nx: bool = False) -> None:
        async with self._docket.redis() as redis:
            await redis.set(self._outcome_key(key), outcome, ex=_KEPT, nx=nx)

    async def _holder(self, key: str) -> tuple[bytes | None, bytes | None]:
        """Return the state of a call, and the worker that has it."""
        runs = self._docket.runs_key(key)
        async with self._docket.redis() as redis, _any(redis).pipeline() as pipeline:
            pipeline.hget(runs, "state")
            pipeline.hget(runs, "worker")
            state, worker = await pipeline.execute()
        return state, worker

    async def _deliveries(self, execution: Execution) -> int:
        async with self._docket.redis() as redis:
            pending = await _any(redis).xpending_range(
                self._docket.stream_key,
                self._docket.worker_group_name,
                execution.message_id,
                execution.message_id,
                1,
            )
        return int(pending[0]["times_delivered"]) if pending else 2

    def _outcome_key(self, key: str) -> str:
        return self._docket.key(f"outcome:{key}")

    def _settled_key(self, key: str) -> str:
        return self._docket.key(f"settled:{key}")

    def _lease_key(self, name: str) -> str:
        return self._docket.key(f"lease:{name}")


class _DocketWatch:
    def __init__(
        self, connection: _DocketConnection, pubsub: Any, prefix: str, *, is_local: bool
    ) -> None:
        self._connection = connection
        self._pubsub = pubsub
        self._prefix = prefix
        self._is_local = is_local
        self._seen: list[str] = []
        self._ended: list[str] = []  # whose outcomes are to be fetched

    async def follow(self, keys: Sequence[str]) -> None:
        if self._is_local:
            await self._pubsub.subscribe(*(self._prefix + key for key in keys))

    async def next(self) -> Sequence[News]:
        news: dict[str, News] = {}
        message = await self._pubsub.get_message(timeout=0.0 if self._ended else 1.0)
        while message is not None and len(news) < 1000:
            if message["type"] in ("pmessage", "message"):
                each = self._read(message)
                news[each.key] = each
            # What is there already, so that the outcomes of all are fetched at once.
            message = await self._pubsub.get_message(timeout=0.0)
        self._ended += [each.key for each in news.values() if each.state is CallState.ENDED]
        if self._ended:
            # Not at once: if this answer is lost, they are looked at again.
            outcomes = await self._connection.outcomes(self._ended[:1000], self._seen)
            self._seen = [*outcomes]
            self._ended = [key for key in self._ended if key not in outcomes]
            if self._is_local:
                await self._pubsub.unsubscribe(*(self._prefix + key for key in outcomes))
            for key, outcome in outcomes.items():
                news[key] = News(key, CallState.ENDED, outcome=outcome or None)
        return [each for each in news.values() if each.key not in self._ended]

    def _read(self, message: dict[str, Any]) -> News:
        data = _fields(message["data"])
        key = message["channel"].decode().removeprefix(self._prefix)
        state = _STATES.get(str(data.get("state")).encode(), CallState.WAITING)
        return News(key, state, str(data.get("worker") or ""))


class _DocketWorker:
    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def set_slots(self, slots: int) -> None:
        self._worker.concurrency = slots  # it is read before each poll

    async def take_no_more(self) -> None:
        self._worker.concurrency = 0
        await asyncio.sleep(2 * _CHECK.total_seconds())

    async def run(self) -> None:
        await self._worker.run_forever()


class _SafeDocket(Docket):
    """A docket that never unpickles what somebody else may have written."""

    @property
    def strike_list(self) -> StrikeList:
        return self._strikes

    @strike_list.setter
    def strike_list(self, _: StrikeList) -> None:
        self._strikes = StrikeList()  # one that reads no stream

    @asynccontextmanager
    async def redis(self) -> AsyncIterator[Any]:
        async with super().redis() as redis:
            yield _SafeRedis(redis, self)


class _SafeRedis:
    """A client whose streams hold nothing that could do harm when it is unpickled."""

    def __init__(self, redis: Any, docket: Docket) -> None:
        self._redis = redis
        self._docket = docket

    def __getattr__(self, name: str) -> Any:
        return getattr(self._redis, name)

    async def xreadgroup(self, *args: Any, **kwargs: Any) -> Any:
        found = await self._redis.xreadgroup(*args, **kwargs)
        return [(stream, await self._checked(messages)) for stream, messages in found]

    async def xautoclaim(self, *args: Any, **kwargs: Any) -> Any:
        cursor, messages, *rest = await self._redis.xautoclaim(*args, **kwargs)
        return [cursor, await self._checked(messages), *rest]

    async def _checked(self, messages: Any) -> list[Any]:
        kept = []
        for message_id, message in messages:
            if message and not is_harmless(message):
                logger.error("a message of somebody else was dropped: %r", message_id)
                stream, group = self._docket.stream_key, self._docket.worker_group_name
                await self._redis.xack(stream, group, message_id)
                await self._redis.xdel(stream, message_id)
                continue
            kept.append((message_id, message))
        return kept


def is_harmless(message: dict[bytes, bytes]) -> bool:
    """Whether a message is one that `_DocketConnection.submit` could have made.

    Its pickles have no class and no function in them: those are what a pickle can call. And docket
    can read the rest, since what it can't read ends its worker.
    """
    try:
        text = {
            name.decode(): value.decode()  # the others are of a trace
            for name, value in message.items()
            if name not in (b"args", b"kwargs")
        }
        numbers = (text["attempt"], text["generation"])
        return (
            {"key", "function"} <= text.keys()
            and all(_NUMBER.fullmatch(number) for number in numbers)
            and datetime.fromisoformat(text["when"]).tzinfo is not None
            and _is_pickle(message[b"args"], _ARGS)
            and _is_pickle(message[b"kwargs"], _KWARGS)
        )
    except Exception:  # noqa: BLE001  # a broken pickle may raise anything
        return False


def _is_pickle(data: bytes, pattern: re.Pattern[str]) -> bool:
    """Whether a pickle says this, and can be loaded: a few bytes of another may take gigabytes."""
    names = [op.name for op, _, _ in islice(pickletools.genops(data), 10)]
    steps = " ".join(name for name in names if name not in ("FRAME", "MEMOIZE"))
    return pattern.fullmatch(steps) is not None and pickle.loads(data) is not None  # noqa: S301


def _fields(data: bytes | str) -> dict[str, Any]:
    """Return the fields of a message of docket's; none if it is of another kind."""
    try:
        fields = json.loads(data)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _is_url(url: str) -> bool:
    scheme, _, rest = url.partition("://")
    if scheme not in _SCHEMES:
        return False
    try:
        # The members of a sentinel's URL are docket's to read.
        return bool("sentinel" in scheme or urlsplit(f"//{rest}").port or True)
    except ValueError:
        return False


def _is_no_retry(record: logging.LogRecord) -> bool:
    """Whether a record says anything that our own log does not say: docket logs each retry."""
    return not (record.exc_info and isinstance(record.exc_info[1], ForcedRetry))


async def _not_here(payload: bytes) -> None:
    """Stand for the function of a job where it is only called."""


def _as_exception(exc: BaseException | None) -> Exception | None:
    return exc if isinstance(exc, Exception) else None


def _any(redis: Any) -> Any:
    """Return a client whose methods are more than those that docket declares."""
    return redis
