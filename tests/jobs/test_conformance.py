"""The conformance suite notices what an adapter does wrong: each of these breaks one sentence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("docket", reason="pydocket is missing: pip install 'quattro-web[docket]'")

from quattro_web._jobs.docket_engine import DocketEngine
from quattro_web._jobs.engine import CallState, Delivery, HandedBackError, JobEngine, News
from tests.jobs.conformance import JobEngineConformance

Change = Callable[[Any], Any]


class Faulty:
    """An engine, or a part of one, some of whose methods are others."""

    def __init__(self, part: Any, changes: dict[str, Change]) -> None:
        self._part = part
        self._changes = changes

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._part, name)
        return self._changes[name](found) if name in self._changes else found

    def _entering(self, name: str, *args: Any) -> Any:
        @asynccontextmanager
        async def entered() -> AsyncIterator[Faulty]:
            async with getattr(self._part, name)(*args) as part:
                yield Faulty(part, self._changes)

        return entered()

    def connect(self) -> Any:
        return self._entering("connect")

    def watch(self, owner: str) -> Any:
        return self._entering("watch", owner)

    def worker(self, name: str, jobs: Any, run: Any) -> Any:
        return self._entering("worker", name, jobs, self._changes.get("running", _same)(run))


class Suite(JobEngineConformance):
    """The tests of an engine that is broken, which need not wait for long."""

    patience = 1.5

    def __init__(self, changes: dict[str, Change], url: str = "") -> None:
        self._changes = changes
        self._url = url

    def __reduce__(self) -> Any:  # in another process, as it is
        return Suite, ({}, self._url)

    def make_engine(self, name: str) -> JobEngine:
        url = self._url or f"memory://{name}"
        engine: Any = DocketEngine(url, name=name, redelivery=self.redelivery)
        return Faulty(engine, self._changes)


def _same(method: Any) -> Any:
    return method


def _nothing(_: Any) -> Any:
    async def method(*args: Any, **kwargs: Any) -> None: ...

    return method


def returning(value: Any) -> Change:
    """Return something else, whatever there is to return."""

    def change(method: Any) -> Any:
        async def changed(*args: Any, **kwargs: Any) -> Any:
            await method(*args, **kwargs)
            return value

        return changed

    return change


def answering(change_of: Callable[[Any], Any]) -> Change:
    """Change what is returned."""

    def change(method: Any) -> Any:
        async def changed(*args: Any, **kwargs: Any) -> Any:
            return change_of(await method(*args, **kwargs))

        return changed

    return change


def asking(change_of: Callable[[Any], Any]) -> Change:
    """Change the first argument."""

    def change(method: Any) -> Any:
        async def changed(first: Any, *args: Any, **kwargs: Any) -> Any:
            return await method(change_of(first), *args, **kwargs)

        return changed

    return change


def each(**changes: Any) -> Callable[[Sequence[Any]], list[Any]]:
    """Change the fields of each of what there is."""
    return lambda found: [replace(one, **changes) for one in found]


def swapped(**states: CallState) -> Callable[[Sequence[News]], list[News]]:
    """Say another state."""
    return lambda found: [
        replace(news, state=states.get(news.state.name, news.state)) for news in found
    ]


def delivered(**changes: Any) -> Change:
    """Change what a worker gets."""

    def change(run: Any) -> Any:
        return lambda delivery: run(replace(delivery, **changes))

    return change


def twice(method: Any) -> Any:
    async def changed(first: Any) -> Any:
        await method(first)
        await asyncio.sleep(0.1)
        return await method(first)

    return changed


def submitting_each(method: Any) -> Any:
    """Submit also what is known already: under another key, as far as the engine knows."""

    async def submit(calls: Any) -> Any:
        count = [next(NUMBERS) for _ in calls]
        return await method(
            [replace(c, key=f"{c.key}#{n}") for c, n in zip(calls, count, strict=True)]
        )

    return submit


NUMBERS = iter(range(10**9))


def without_number(run: Any) -> Any:
    return lambda delivery: run(replace(delivery, key=delivery.key.partition("#")[0]))


def known_jobs_alone(run: Any) -> Any:
    async def changed(delivery: Delivery) -> Any:
        return await run(delivery) if delivery.job == "job" else b""

    return changed


def never_back(run: Any) -> Any:
    async def changed(delivery: Delivery) -> Any:
        try:
            return await run(delivery)
        except HandedBackError:
            return b""

    return changed


def back_here(run: Any) -> Any:
    async def changed(delivery: Delivery) -> Any:
        while True:
            try:
                return await run(delivery)
            except HandedBackError:
                pass

    return changed


def back(**changes: Any) -> Change:
    """Hand back in another way."""

    def change(run: Any) -> Any:
        async def changed(delivery: Delivery) -> Any:
            try:
                return await run(delivery)
            except HandedBackError as exc:
                options = {"delay": exc.delay, "counts": exc.counts, **changes}
                raise HandedBackError(options["delay"], counts=options["counts"]) from None

        return changed

    return change


def run_twice(run: Any) -> Any:
    async def changed(delivery: Delivery) -> Any:
        await run(delivery)
        return await run(delivery)

    return changed


def more_slots(method: Any) -> Any:
    return lambda slots: method(2 * slots)


def first_slots(method: Any) -> Any:
    return lambda slots: method(2)


def never_without_news(method: Any) -> Any:
    async def changed() -> Any:
        while not (news := await method()):
            pass
        return news

    return changed


def others_too(found: Sequence[News]) -> list[News]:
    return [*found, News("b:a:1", CallState.ENDED)] if found else []


def alive_always(method: Any) -> Any:
    async def changed(names: Any, seconds: Any, others: Any, **options: Any) -> Any:
        found = await method(names, seconds, others, **options)
        return replace(found, alive=frozenset(others))

    return changed


def for_long(method: Any) -> Any:
    async def changed(names: Any, seconds: float, others: Any, **options: Any) -> Any:
        return await method(names, 100 * seconds, others, **options)

    return changed


def from_now_on(method: Any) -> Any:
    async def changed(names: Any, seconds: float, others: Any, **_: Any) -> Any:
        return await method(names, seconds, others)

    return changed


def waited_for(method: Any) -> Any:
    async def changed(names: Any, seconds: float, others: Any, **options: Any) -> Any:
        return await method(names, seconds, others, since=options.get("since"))

    return changed


E, W, R, L = CallState.ENDED, CallState.WAITING, CallState.RUNNING, CallState.LOST

# What an adapter does wrong, and the test that has to notice it.
FAULTS: dict[str, tuple[str, dict[str, Change]]] = {
    "another payload": ("call_arrives", {"submit": asking(each(payload=b"x"))}),
    "another job": ("call_arrives", {"running": delivered(job="x")}),
    "deliveries from 0": ("call_arrives", {"running": delivered(deliveries=0)}),
    "no delay": ("call_that_is_delayed", {"submit": asking(each(delay=0.0))}),
    "known keys": (
        "known_key_is_submitted_once",
        {"submit": submitting_each, "running": without_number},
    ),
    "runs twice": ("many_are_submitted", {"running": run_twice}),
    "another outcome": ("many_are_submitted", {"next": answering(each(outcome=b""))}),
    "no word on each": ("many_are_submitted", {"submit": returning([])}),
    "no cancellation": ("cancelled_while_it_waits", {"cancel": _nothing}),
    "cancelled twice": ("cancelled_while_it_runs", {"cancel": twice}),
    "others cancelled": (
        "cancelled_while_it_runs",
        {"cancel": asking(lambda keys: [*keys, "a:2"])},
    ),
    "end before its clean-up": (
        "cancelled_while_it_runs",
        {"look": answering(swapped(RUNNING=E))},
    ),
    "outcome of the cancelled": (
        "cancelled_when_it_has_ended",
        {"look": answering(each(outcome=None))},
    ),
    "none was cancelled": (
        "cancellation_that_was_not_told",
        {"cancelled": answering(lambda found: [False] * len(found))},
    ),
    "all were cancelled": (
        "cancellation_that_was_not_told",
        {"cancelled": answering(lambda found: [True] * len(found))},
    ),
    "not followed": ("news", {"follow": _nothing}),
    "no worker": ("news", {"next": answering(each(worker=""))}),
    "no news of a start": ("news", {"next": answering(swapped(RUNNING=W))}),
    "news of others": ("news_of_others", {"next": answering(others_too)}),
    "waits for news": ("no_news", {"next": never_without_news}),
    "waiting is lost": ("looking", {"look": answering(swapped(WAITING=L))}),
    "lost is waiting": ("looking", {"look": answering(swapped(LOST=W))}),
    "running is waiting": ("looking", {"look": answering(swapped(RUNNING=W))}),
    "looks at nothing": ("looking", {"look": returning([])}),
    "outcome is lost": ("outcome_is_kept", {"look": answering(each(outcome=None))}),
    "never settled": ("settled", {"is_settled": returning(False)}),
    "always settled": ("settled", {"is_settled": returning(True)}),
    "not unsettled": ("settled", {"unsettle": _nothing}),
    "nothing kept": ("kept", {"kept": returning({})}),
    "not forgotten": ("kept", {"forget": _nothing}),
    "not settled": ("kept", {"settle": _nothing}),
    "known for ever": ("submitted_once_more", {"submit": asking(lambda calls: calls[:0])}),
    "always alive": ("leases", {"renew": alive_always}),
    "never renewed": ("leases", {"renew": asking(lambda names: ())}),
    "a clock of its own": (
        "leases",
        {"renew": answering(lambda found: replace(found, now=float(next(NUMBERS)) * -60))},
    ),
    "unknown job is dropped": ("unknown_job", {"running": known_jobs_alone}),
    "too many slots": ("slots", {"set_slots": more_slots}),
    "slots for ever": ("slots", {"set_slots": first_slots}),
    "takes more": ("takes_no_more", {"take_no_more": _nothing}),
    "not handed back": ("handed_back", {"running": never_back}),
    "each counts": ("handed_back", {"running": back(counts=True)}),
    "none counts": ("handed_back", {"running": back(counts=False)}),
    "handed back at once": ("handed_back", {"running": back(delay=0.0)}),
    "cancelled runs again": ("handed_back_when_it_was_cancelled", {"running": back_here}),
}
# Where there is more than one process.
FAULTS_BETWEEN_PROCESSES: dict[str, tuple[str, dict[str, Change]]] = {
    "leases for ever": ("lease_runs_out", {"renew": for_long}),
    "late renewals": ("late_renewal", {"renew": from_now_on}),
    "renewals of those who wait no longer": ("late_renewal", {"renew": waited_for}),
    "dead workers": ("worker_dies", {"running": delivered(deliveries=1)}),
}
# What the engine itself has to be broken for.
BY_HAND = {"worker_stands_still", "out_of_reach"}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_noticed(fault: str) -> None:
    """D1, D2, D3, D4: An adapter that breaks a sentence of the protocol fails its test."""
    test, changes = FAULTS[fault]
    with pytest.raises((AssertionError, TimeoutError, ValueError)):
        getattr(Suite(changes), f"test_{test}")()


@pytest.mark.parametrize("fault", FAULTS_BETWEEN_PROCESSES)
def test_fault_between_processes_is_noticed(fault: str, redis: str) -> None:
    """D2, D3, D4: So does one whose processes do not learn of the end of each other."""
    test, changes = FAULTS_BETWEEN_PROCESSES[fault]
    suite = Suite(changes, redis)
    suite.patience = 6.0
    with pytest.raises((AssertionError, TimeoutError)):
        getattr(suite, f"test_{test}")()


def test_each_test_is_needed() -> None:
    """D1: Each test of the suite notices something."""
    tests = {name.removeprefix("test_") for name in dir(Suite) if name.startswith("test_")}
    found = {test for test, _ in (*FAULTS.values(), *FAULTS_BETWEEN_PROCESSES.values())}
    assert found | BY_HAND == tests
