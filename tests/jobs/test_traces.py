"""OpenTelemetry: which trace a job belongs to."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

pytest.importorskip("docket", reason="pydocket is missing: pip install 'quattro-web[docket]'")

from opentelemetry import trace
from redis.asyncio import Redis

from quattro_core import TaskGroup
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
