"""What a request costs more while somebody measures it, and what a look at an app takes.

Each kind is measured in a process of its own, since providers are those of a whole process.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from types import FrameType
from typing import Any

from opentelemetry import metrics as otel_metrics
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from benchmarks import web_apps as apps
from benchmarks.goals import Goal, exactly
from benchmarks.measure import Samples, ratio, spread, turn
from benchmarks.report import Report
from benchmarks.size import Size
from benchmarks.web_callgrind import VALGRIND, counted
from benchmarks.web_process import Exchange, requests, started
from benchmarks.web_variants import CHILDREN, STAR, Variant
from quattro_web import install, request_task_group
from quattro_web.prometheus import TaskCollector
from quattro_web.tasks import app_tasks

Measure = Callable[[ASGIApp, int], Awaitable[float]]
TraceFunction = Callable[[FrameType, str, Any], Any]

OFF = "off"
LOOK = 50.0  # milliseconds of the event loop


# What there is in a process, before its app is made


def none_installed() -> None:
    """Forget that OpenTelemetry was imported: FastAPI does so, and Starlette does not."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "opentelemetry"]:
        del sys.modules[name]


def no_provider() -> None:
    """Leave OpenTelemetry as it is imported."""


def metrics() -> None:
    otel_metrics.set_meter_provider(MeterProvider([InMemoryMetricReader()]))


def prometheus() -> None:
    TaskCollector().register(CollectorRegistry())


def tracer() -> None:
    trace.set_tracer_provider(TracerProvider())


KINDS: dict[str, tuple[Callable[[], None], bool]] = {
    OFF: (none_installed, False),
    "off, once more": (none_installed, False),
    "no provider": (no_provider, False),
    "metrics": (metrics, False),
    "Prometheus": (prometheus, False),
    "traces": (tracer, False),
    "a span for each child": (tracer, True),
}


def installed(app: Starlette, kind: str) -> None:
    prepare, child_spans = KINDS[kind]
    prepare()
    install(app, child_spans=child_spans)


def telemetry_variants() -> list[Variant]:
    """Return the apps that are compared: with no children, and with ten."""
    return [
        Variant(STAR, kind, endpoint, partial(installed, kind=kind), None, count)
        for count, endpoint in ((0, apps.star_hello), (CHILDREN, apps.star_ours(CHILDREN)))
        for kind in KINDS
    ]


def telemetry(report: Report, size: Size, tool: Sequence[str] = VALGRIND) -> None:
    """Measure a request with telemetry and without, and a look at many requests."""
    if shutil.which(tool[0]) is None:
        report.note("Telemetry is measured by time, since valgrind is missing.")
        tell_requests(report, size, timed(size), "µs of CPU")
    else:
        variants = f"{__name__}:{telemetry_variants.__name__}"
        found = counted(size, tool, variants, is_exact=True)
        tell_requests(report, size, found, "thousand instructions")
    tell_look(report, size)


def timed(size: Size) -> Samples:
    """Return microseconds of CPU for a request, one of each variant per round."""
    variants = {variant.name: variant for variant in telemetry_variants()}
    samples: Samples = {name: [] for name in variants}
    for number in size.rounds(20):
        for name in turn(list(variants), number):
            samples[name].append(in_fork(variants[name], size, microseconds))
    return samples


def in_fork(variant: Variant, size: Size, measure: Measure) -> float:
    """Return what a request takes, in a process that is forked for it."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, str(asyncio.run(warm(variant.make(), size, measure))).encode())
        finally:
            os._exit(0)  # this process must not go on as its parent does
    os.close(writer)
    with os.fdopen(reader) as found:
        text = found.read()
    os.waitpid(pid, 0)
    return float(text)


async def warm(app: ASGIApp, size: Size, measure: Measure) -> float:
    async with started(app):
        await requests(app, size.warm_up)
        return await measure(app, size.timed)


async def microseconds(app: ASGIApp, count: int) -> float:
    """Return the microseconds of CPU that a request takes."""
    begin = time.process_time()
    await requests(app, count)
    return (time.process_time() - begin) / count * 1e6


async def bytecodes(app: ASGIApp, _count: int) -> float:
    """Return how many bytecodes of Python a request executes: the same number in each run."""
    executed = 0

    def trace_one(frame: FrameType, event: str, _: object) -> TraceFunction:
        nonlocal executed
        frame.f_trace_opcodes = True
        executed += event == "opcode"
        return trace_one

    async def traced() -> None:
        sys.settrace(trace_one)
        try:
            await requests(app, 1)
        finally:
            sys.settrace(None)

    await asyncio.create_task(traced())
    return executed


def tell_requests(report: Report, size: Size, samples: Samples, unit: str) -> None:
    """Report what a request of each kind costs."""
    variants, rows = telemetry_variants(), []
    executed = {variant.name: in_fork(variant, size, bytecodes) for variant in variants}
    for variant in variants:
        base = next(each for each in variants if each.group == variant.group)
        more = executed[variant.name] - executed[base.name]
        own, found = spread(samples[variant.name]).median, ratio(samples, variant.name, base.name)
        cells = [f"{executed[variant.name]:.0f}", f"{more:+.0f}", f"{own:.1f}", str(found)]
        rows.append([variant.group, variant.label, *cells])
        if not variant.children and variant != base:
            what = f"{variant.group}, {variant.label}"
            report.goal(Goal(what, "bytecodes more than off", 0, exactly(more), digits=0))
    title = f"{unit.capitalize()}, and bytecodes of Python, for a request with telemetry"
    header = ["", "", "bytecodes", "more than off", unit, "ratio"]
    report.table("telemetry", title, header, rows)


def tell_look(report: Report, size: Size) -> None:
    """Report what a snapshot takes while requests with ten children each are open."""
    count = max(size.connections)
    samples = asyncio.run(look(count, size))
    rows = [[name, str(number), str(spread(found))] for (name, number), found in samples.items()]
    (_, described), default = next(iter(samples.items()))
    report.goal(
        Goal(
            f"{count} requests of {CHILDREN} children, {described} tasks described",
            "milliseconds for a snapshot",
            LOOK,
            spread(default),
        )
    )
    title = f"A look at {count} open requests of {CHILDREN} children each"
    report.table("look", title, ["", "tasks described", "milliseconds"], rows)


async def look(count: int, size: Size) -> dict[tuple[str, int], list[float]]:
    """Have so many requests open; return milliseconds, by what is asked and what that describes."""
    arrived, freed = asyncio.Semaphore(0), asyncio.Event()

    async def child() -> None:
        arrived.release()
        await freed.wait()

    async def endpoint(request: Request) -> Response:
        group = request_task_group(request)
        for _ in range(CHILDREN):
            group.create_task(child())
        return PlainTextResponse(apps.TEXT)

    app = Starlette(routes=[Route("/", endpoint)])
    install(app)
    samples: dict[tuple[str, int], list[float]] = {}

    def sample(name: str, most: int | None) -> None:
        begin = time.process_time()
        tasks = app_tasks(app, most=most)
        if name.endswith("JSON"):
            tasks.as_json()
        seconds = time.process_time() - begin
        described = sum(
            1 + len(request.handler.children)
            for request in tasks.requests
            if request.handler is not None
        )
        samples.setdefault((name, described), []).append(seconds * 1000)

    async with started(app), asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(Exchange().run(app))
        for _ in range(count * CHILDREN):
            await arrived.acquire()
        for _ in size.rounds(10):
            sample("snapshot", 500)
            sample("snapshot, as JSON", 500)
            sample("all of it", None)
            sample("all of it, as JSON", None)
        freed.set()
    return samples
