"""OpenTelemetry: which trace a job belongs to."""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from typing import Any

import pytest

pytest.importorskip("docket", reason="pydocket is missing: pip install 'quattro-web[docket]'")

from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from redis.asyncio import Redis

from quattro_core import TaskGroup
from quattro_web import install
from quattro_web.fastapi import RequestTaskGroup
from quattro_web.jobs import Jobs
from quattro_web.testing import AppClient
from tests.jobs.functions import Functions


def span(number: int) -> trace.Span:
    return trace.NonRecordingSpan(trace.SpanContext(number, number, is_remote=False))


def test_calls_are_of_the_trace_of_their_caller(redis: str, name: str) -> None:
    """D1: Calls that are submitted together have each the trace of who has called."""

    async def call(f: Functions, number: int) -> None:
        with trace.use_span(span(number)):
            async with TaskGroup() as tg:
                tg.create_task(f.double.remote(1))
                tg.create_task(f.double.remote(2))

    async def scene() -> None:
        f = Functions(redis, name)
        async with Redis.from_url(redis) as client, f.jobs.open():
            tasks = [asyncio.create_task(call(f, number)) for number in (7, 8)]
            tasks.append(asyncio.create_task(f.double.remote(3)))  # type: ignore[arg-type]
            while await client.xlen(f"{name}:stream") < 5:
                await asyncio.sleep(0.01)
            sent: Any = await client.xrange(f"{name}:stream")
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        found = Counter(message.get(b"traceparent", b"")[3:35].lstrip(b"0") for _, message in sent)
        assert found == {b"7": 2, b"8": 2, b"": 1}

    asyncio.run(scene())


class Traced:
    """An app with a tracer, and a job of each kind."""

    def __init__(self, name: str) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.app = app = FastAPI(telemetry={"tracer_provider": provider})
        jobs = Jobs("memory://", name=name, timeout=20.0)
        done = asyncio.Event()

        @jobs.job(name="double")
        async def double(number: int) -> int:
            with provider.get_tracer("of the app").start_as_current_span("its own"):
                return 2 * number

        @jobs.job(name="handed over")
        async def handed_over() -> None:
            done.set()

        @app.get("/")
        async def handler(tg: RequestTaskGroup) -> int:
            await jobs.hand_over(handed_over.call())
            await done.wait()
            return (await tg.gather(double.remote(2)))[0]

        install(app, jobs=jobs)

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        """Those that have ended, by name."""
        found = self._exporter.get_finished_spans()
        assert len({span.name for span in found}) == len(found)
        return {span.name: span for span in found}


needs_telemetry = pytest.mark.skipif(
    "telemetry" not in inspect.signature(FastAPI).parameters, reason="needs FastAPI 0.142"
)


@needs_telemetry
def test_remote_child_is_in_the_trace_of_its_request() -> None:
    """D1, O1: A remote child has a span below that of its request, which ends after it; a job that
    was handed over has one in a trace of its own, which is linked to the request's."""
    traced = Traced("one")

    async def main() -> None:
        async with AppClient(traced.app) as client:
            assert (await client.get("/")).json() == 4

    asyncio.run(main())
    found = traced.spans
    request, job, own = found["GET /"], found["double"], found["its own"]
    assert job.parent is not None
    assert request.context is not None
    assert job.parent.span_id == request.context.span_id
    assert own.parent is not None
    assert job.context is not None
    assert own.parent.span_id == job.context.span_id
    assert job.end_time is not None
    assert request.end_time is not None
    assert job.end_time <= request.end_time
    handed_over = found["handed over"]
    assert handed_over.parent is None
    assert handed_over.context is not None
    [link] = handed_over.links
    assert link.context.trace_id == request.context.trace_id != handed_over.context.trace_id


@needs_telemetry
def test_apps_with_tracers_of_their_own() -> None:
    """O1: Of two apps in one process, each has the spans of its own jobs, and an app without a
    tracer has none, whichever has started last."""
    first, second, untraced = Traced("first"), Traced("second"), FastAPI()
    jobs = Jobs("memory://", name="untraced", timeout=20.0)

    @jobs.job(name="double")
    async def double(number: int) -> int:
        return 2 * number

    @untraced.get("/")
    async def handler(tg: RequestTaskGroup) -> int:
        return (await tg.gather(double.remote(2)))[0]

    install(untraced, jobs=jobs)

    async def main() -> None:
        async with (
            AppClient(first.app) as one,
            AppClient(second.app) as two,
            AppClient(untraced) as three,
        ):
            for client in (one, two, three):
                assert (await client.get("/")).json() == 4

    asyncio.run(main())
    names = {"GET /", "fastapi.endpoint", "double", "its own", "handed over"}
    for traced in (first, second):
        assert names <= set(traced.spans)
