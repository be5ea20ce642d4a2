"""docket as an engine: on Redis, or with ``memory://`` in the process.

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
- redis-py 8 checks no connection before it uses it, where the protocol is RESP3, its default: each
  one that Redis has cut while it was idle would be an error. The URL asks for RESP2, which misses
  nothing here.
- A worker that sees an error of Redis takes nothing until all that it runs has ended: its commands
  wait for Redis instead.
- A cancellation is published and may be missed: whoever runs the call has to look as well.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import pickle
import pickletools
import re
import time
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import accumulate, islice
from typing import Any
from urllib.parse import urlsplit

from docket import CurrentExecution, Docket, Execution, Retry, Worker
from docket.dependencies import AdmissionBlocked, ForcedRetry
from docket.execution import TaskCall
from docket.strikelist import StrikeList
from opentelemetry import trace
from redis import exceptions as redis_errors

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
from quattro_web._util.escaping import escaped

logger = logging.getLogger("quattro_web")

MAX_KEPT = 10_000
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
_OPTIONS = ("max_connections=10000", "protocol=2")
_CANCELS_AT_ONCE = 16
# What the loop of a worker and the calls in it wait for, and how often they ask: see `_SafeRedis`.
_WAITED_FOR = {"evalsha", "get", "set", "hget", "xgroup_create", "xpending_range"}
_PAUSE = 0.1
_HANGS = 10.0
# Until a worker that takes no more has begun what it has read.
_LAST_CALLS = 1.0
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
        max_kept: How many of the calls are kept that have failed for good: the newest ones.

    Raises:
        ValueError: If *url* is none of these.
    """

    def __init__(self, url: str, *, name: str, redelivery: float, max_kept: int = MAX_KEPT) -> None:
        if not _is_url(url):
            msg = (  # it is not shown, since it may have a password
                "engine is not a Redis URL: it must be like "
                "memory:// or redis://user:password@host:6379/0, with special characters "
                "in the password percent-encoded"
            )
            raise ValueError(msg)
        self.is_local: bool = url.startswith("memory://")
        for option in () if self.is_local else _OPTIONS:
            if option.partition("=")[0] + "=" not in url:
                url += ("&" if "?" in url else "?") + option
        self._url = url
        self._name = name
        self._redelivery = timedelta(seconds=redelivery)
        self._max_kept = max_kept

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[EngineConnection]:
        docket = _SafeDocket(self._name, self._url, execution_ttl=timedelta(seconds=_KEPT))
        docket.tasks.clear()  # it offers three of its own
        async with docket:
            yield _DocketConnection(
                docket, self._redelivery, self._max_kept, is_local=self.is_local
            )


# A lease until ARGV[1], unless it is later than ARGV[2] by now, both in milliseconds.
_RENEW = """
local time = redis.call('TIME')
if time[1] * 1000 + math.floor(time[2] / 1000) <= tonumber(ARGV[2]) then
    redis.call('SET', KEYS[1], '1', 'PXAT', ARGV[1])
end
"""


class _DocketConnection:
    def __init__(
        self, docket: Docket, redelivery: timedelta, max_kept: int, *, is_local: bool
    ) -> None:
        self._docket = docket
        self._max_kept = max_kept
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
            if not self._is_local and len(keys) > 1:
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
        async with self._docket.redis() as redis:
            async with _any(redis).pipeline() as pipeline:
                if kept is None:
                    self._forget(pipeline, [key])
                else:
                    pipeline.hset(self._docket.key("kept"), key, kept)
                    pipeline.zadd(self._docket.key("kept-at"), {key: time.time()})
                pipeline.set(self._settled_key(key), b"1", ex=int(_A_DAY))
                pipeline.zrange(self._docket.key("kept-at"), 0, -1 - self._max_kept)
                old = [each.decode() for each in (await pipeline.execute())[-1]]
            if old:
                async with _any(redis).pipeline() as pipeline:
                    self._forget(pipeline, old)
                    await pipeline.execute()
        for each in old:
            logger.error(
                "%s has failed for good, and is forgotten: more than max_kept=%d have failed since",
                escaped(each),
                self._max_kept,
            )

    def _forget(self, pipeline: Any, keys: Sequence[str]) -> None:
        pipeline.hdel(self._docket.key("kept"), *keys)
        pipeline.zrem(self._docket.key("kept-at"), *keys)

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
        async with self._docket.redis() as redis, _any(redis).pipeline() as pipeline:
            self._forget(pipeline, [key])
            await pipeline.execute()

    async def renew(
        self,
        names: Collection[str],
        seconds: float,
        others: Collection[str],
        *,
        since: float | None = None,
        within: float = math.inf,
    ) -> Renewal:
        others = [*others]
        if self._is_local:
            # All live and die together: nobody is dead since the event loop was blocked.
            seconds, since = _A_DAY, None
        async with self._docket.redis() as redis:
            has_clock = hasattr(redis, "time")
            async with _any(redis).pipeline() as pipeline:
                for name in names:
                    key = self._lease_key(name)
                    if since is None:
                        pipeline.set(key, b"1", px=int(seconds * 1000))
                    else:
                        ends = int((since + seconds) * 1000)
                        latest = min(ends, (since + within) * 1000)
                        pipeline.eval(_RENEW, 1, key, ends, int(latest))
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
        begun: set[str] = set()

        async def run_call(
            payload: bytes,
            execution: Execution = CurrentExecution(),  # noqa: B008
            retry: Retry = Retry(attempts=1),  # noqa: B008
        ) -> None:
            begun.add(execution.key)
            try:
                await run_and_keep(payload, execution, retry)
            except (AdmissionBlocked, ForcedRetry):
                raise
            except Exception as exc:
                # It is Redis that has failed. The message stays: after a while, somebody gets it.
                logger.warning("%r is left behind, since the engine failed: %r", execution.key, exc)
                raise AdmissionBlocked(execution, "the engine", handled=True) from exc
            finally:
                begun.discard(execution.key)

        async def run_and_keep(payload: bytes, execution: Execution, retry: Retry) -> None:
            key, count = execution.key, 1
            if execution.redelivered:
                if await self._has_outcome(key):
                    return  # a worker has done it, and could not say so any more
                count = await self._deliveries(execution)
            count += execution.attempt - 1  # of those that were handed back, what counts
            delivery = Delivery(execution.key, execution.function_name, payload, count)
            try:
                outcome = await run(delivery)
            except HandedBackError as exc:
                retry.attempts = None  # of this call, and for nothing else that may fail
                execution.attempt = count if exc.counts else count - 1  # docket adds one
                state, holder = await self._holder(key)
                if holder not in (None, name.encode()):
                    # Another one has it, since this one was silent: nothing here is docket's to do.
                    raise AdmissionBlocked(execution, "another worker", handled=True) from None
                if state != b"cancelled":
                    retry.after(timedelta(seconds=exc.delay))
                outcome = b""
            except asyncio.CancelledError:
                # It was cancelled, and has cleaned up, perhaps since another worker has done it.
                await self._put_outcome(key, b"", nx=True)
                raise
            await self._put_outcome(key, outcome)

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
                yield _DocketWorker(worker, begun)
        finally:
            log.removeFilter(_is_no_retry)

    async def _has_outcome(self, key: str) -> bool:
        """Whether a call has an outcome that is not empty: others may be of a run before."""
        async with self._docket.redis() as redis:
            return bool(await redis.get(self._outcome_key(key)))

    async def _put_outcome(self, key: str, outcome: bytes, *, nx: bool = False) -> None:
        async with self._docket.redis() as redis:
            await redis.set(self._outcome_key(key), outcome, ex=_KEPT, nx=nx)

    async def _holder(self, key: str) -> tuple[bytes | None, bytes | None]:
        """Return the state of a call, and the worker that has it."""
        runs = self._docket.runs_key(key)
        async with self._docket.redis() as redis:
            return await redis.hget(runs, "state"), await redis.hget(runs, "worker")

    async def _deliveries(self, execution: Execution) -> int:
        message_id = (execution.message_id or b"").decode()  # memory:// takes no bytes
        async with self._docket.redis() as redis:
            pending = await _any(redis).xpending_range(
                self._docket.stream_key, self._docket.worker_group_name, message_id, message_id, 1
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
        self._cancelled: set[str] = set()

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
        self._ended += [key for key, each in news.items() if each.state is CallState.ENDED]
        if self._cancelled:
            # These have no outcome, so that nothing has to be fetched.
            self._ended = [key for key in self._ended if key not in self._cancelled]
            await self._unfollow(self._cancelled)
            self._cancelled.clear()
        if self._ended:
            # Not at once: if this answer is lost, they are looked at again.
            outcomes = await self._connection.outcomes(self._ended[:1000], self._seen)
            self._seen = [*outcomes]
            self._ended = [key for key in self._ended if key not in outcomes]
            await self._unfollow(outcomes)
            for key, outcome in outcomes.items():
                news[key] = News(key, CallState.ENDED, outcome=outcome or None)
        return [each for each in news.values() if each.key not in self._ended]

    async def _unfollow(self, keys: Iterable[str]) -> None:
        if self._is_local:
            await self._pubsub.unsubscribe(*(self._prefix + key for key in keys))

    def _read(self, message: dict[str, Any]) -> News:
        data = _fields(message["data"])
        key = message["channel"].decode().removeprefix(self._prefix)
        state = _STATES.get(str(data.get("state")).encode(), CallState.WAITING)
        if data.get("state") == "cancelled":
            self._cancelled.add(key)
        return News(key, state, str(data.get("worker") or ""))


class _DocketWorker:
    def __init__(self, worker: Worker, begun: Collection[str]) -> None:
        self._worker = worker
        self._begun = begun

    def set_slots(self, slots: int) -> None:
        self._worker.concurrency = slots  # it is read before each poll

    async def take_no_more(self) -> None:
        self._worker.concurrency = 0
        with suppress(TimeoutError):  # of a Redis that is away
            async with asyncio.timeout(_LAST_CALLS):
                await asyncio.sleep(_CHECK.total_seconds())
                while self._is_reading() or self._is_claiming():  # noqa: ASYNC110
                    await asyncio.sleep(_CHECK.total_seconds())

    def _is_reading(self) -> bool:
        assert isinstance(self._worker.docket, _SafeDocket)
        return self._worker.docket.reads > 0

    def _is_claiming(self) -> bool:
        """Whether a call that was read has not begun yet."""
        tasks = self._worker._tasks_by_key  # noqa: SLF001
        return any(not task.done() and key not in self._begun for key, task in tasks.items())

    async def run(self) -> None:
        docket = self._worker.docket
        assert isinstance(docket, _SafeDocket)
        docket.waits = True
        task = asyncio.create_task(self._worker.run_forever())
        try:
            await asyncio.wait((task,))
        finally:
            # It waits for all that runs, and nothing may wait for a Redis that does not come back.
            docket.waits = False
            task.cancel()
            await asyncio.wait((task,))
        await task


class _SafeDocket(Docket):
    """A docket that never unpickles what somebody else may have written.

    Attributes:
        waits: Whether its commands wait for a Redis that is unreachable.
        reads: How many commands read from its stream just now.
    """

    waits = False
    reads = 0

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
    """A client whose streams hold nothing that could do harm when it is unpickled.

    In a worker, it waits for a Redis that is unreachable. docket's worker would end its loop at
    the first error, and begin anew when all that runs has ended: until then it would take nothing,
    hear of no cancellation, and let others have what it runs. And an outcome would be lost.
    """

    def __init__(self, redis: Any, docket: _SafeDocket) -> None:
        self._redis = redis
        self._docket = docket

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._redis, name)
        return partial(self._wait_for, found) if name in _WAITED_FOR else found

    async def _wait_for(self, command: Any, *args: Any, **kwargs: Any) -> Any:
        while True:
            try:
                # A connection that hangs is given up: TCP tries it less and less often.
                async with asyncio.timeout(_HANGS if self._docket.waits else None):
                    return await command(*args, **kwargs)
            except (redis_errors.ConnectionError, redis_errors.TimeoutError, TimeoutError) as exc:
                if not self._docket.waits:
                    raise
                logger.debug("a worker waits for Redis: %r", exc)
            await asyncio.sleep(_PAUSE)

    async def _read(self, command: Any, *args: Any, **kwargs: Any) -> Any:
        self._docket.reads += 1
        try:
            return await self._wait_for(command, *args, **kwargs)
        finally:
            self._docket.reads -= 1

    async def xreadgroup(self, *args: Any, **kwargs: Any) -> Any:
        found = await self._read(self._redis.xreadgroup, *args, **kwargs)
        return [(stream, await self._checked(messages)) for stream, messages in found]

    async def xautoclaim(self, *args: Any, **kwargs: Any) -> Any:
        cursor, messages, *rest = await self._read(self._redis.xautoclaim, *args, **kwargs)
        return [cursor, await self._checked(messages), *rest]

    async def _checked(self, messages: Any) -> list[Any]:
        kept = []
        for message_id, message in messages:
            if message and not is_harmless(message):
                logger.error("a foreign message was dropped: %r", message_id)
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
