"""uvicorn and granian under wrk: the CPU time of a request, until it is known well enough."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from functools import partial

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from benchmarks.goals import Goal
from benchmarks.measure import Samples, Spread, spread, steady_ratio, turn
from benchmarks.plot import Bar
from benchmarks.report import Report
from benchmarks.size import Size
from benchmarks.web import base_of
from benchmarks.web_load import HAS_CLOCKS, cpu_seconds, fetch
from benchmarks.web_server import SERVERS, Make, Serve, Server, serving
from benchmarks.web_variants import Variant, all_variants, variant_app

WRK = ("wrk", "--threads", "1", "--duration", "1s")  # it takes whole seconds
ROUNDS = 4  # of each batch
COUNT = "/count"
WITHIN = 0.02  # of the ratio, either way: then there are rounds enough
GOAL = 1.03
# The goals are about the last one; the others are what its ratio is compared with.
EXACT = ("bare", "by hand", "empty middleware", "ours")
PEERS = ("yield dependency", "BaseHTTPMiddleware")


def under_wrk(report: Report, size: Size, tool: Sequence[str] = WRK) -> None:
    """Measure uvicorn and granian under wrk, with few and with many connections."""
    if not HAS_CLOCKS:
        return  # as said already
    if shutil.which(tool[0]) is None:
        report.note("Left out: servers under wrk, which is missing: apt-get install wrk")
        return
    variants = [each for each in all_variants() if each.label in (*EXACT, *PEERS)]
    found = {
        (server, count): loaded(variants, serve, count, size, tool)
        for server, serve in SERVERS.items()
        for count in size.wrk
    }
    middle = size.wrk[len(size.wrk) // 2]
    rows, bars = [], []
    for variant in variants:
        cells = []
        for (server, count), samples in found.items():
            result = of_base(variant, variants, samples)
            own = spread(samples[variant.name]).median
            cells.append(f"{result.median:.2f} ({result.low:.2f}-{result.high:.2f}), {own:.0f} µs")
            if variant.label == "ours":
                measured_as = f"time over {server}, wrk, {count} connections"
                report.goal(Goal(f"{variant.group}, ours", measured_as, GOAL, result))
            if count == middle:
                goal = GOAL if variant.label == "ours" else None
                bars.append(Bar.of(f"{server}, {variant.group}", variant.label, result, goal))
        rows.append([variant.group, variant.label, *cells])
    title = "CPU time of a server for a request under wrk, by the number of connections"
    header = ["", "", *(f"{server}, {count}" for server, count in found)]
    bars.sort(key=lambda bar: bar.group.startswith("granian"))
    report.table("wrk", title, header, rows, bars=bars, unit=f"{middle} connections")


def of_base(variant: Variant, variants: Sequence[Variant], samples: Samples) -> Spread:
    """Return what a variant costs in terms of the framework alone."""
    return steady_ratio(samples, variant.name, base_of(variant, variants).name)


def loaded(
    variants: Sequence[Variant], serve: Serve, connections: int, size: Size, tool: Sequence[str]
) -> Samples:
    """Return microseconds of the server's CPU for a request, of batches until they agree.

    Two processes of one app are not equally fast, so each batch has new ones. Of the peers there
    is only the first batch.
    """
    samples: Samples = {variant.name: [] for variant in variants}
    exact = [variant for variant in variants if variant.label in EXACT]
    for batch in range(size.batches):
        now = exact if batch else variants
        with serving(makers(now), size.warm_up, serve) as servers:
            for number in range(min(ROUNDS, size.least)):
                for name in turn(list(servers), batch * ROUNDS + number):
                    samples[name].append(microseconds(servers[name], connections, tool))
        if batch and agree(of_base(variant, variants, samples) for variant in exact):
            break
    return samples


def agree(found: Iterable[Spread]) -> bool:
    """Whether the middle half of each is narrow enough."""
    return all(
        each.low / each.median >= 1 - WITHIN and each.high / each.median <= 1 + WITHIN
        for each in found
    )


def microseconds(server: Server, connections: int, tool: Sequence[str]) -> float:
    """Return what a request takes of the server's CPU."""
    url = f"http://127.0.0.1:{server.port}/"
    answered, seconds = asyncio.run(done_by(server))
    done = subprocess.run(
        [*tool, "--connections", str(connections), url], capture_output=True, text=True, check=True
    )
    if "Non-2xx" in done.stdout:
        msg = f"wrk failed:\n{done.stdout}"
        raise AssertionError(msg)
    now_answered, now_seconds = asyncio.run(done_by(server))
    return (now_seconds - seconds) / max(1, now_answered - answered) * 1e6


async def done_by(server: Server) -> tuple[int, float]:
    """Return the requests that a server has answered, and its CPU seconds, once it is idle."""
    seen = None
    while (now := await fetch(server.port, COUNT)) != seen:
        seen = now
        await asyncio.sleep(0.02)
    return int(now), cpu_seconds(server.pid)


class Counting:
    """An app that counts its requests: wrk leaves before some are answered, and omits them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._answered = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("path") == COUNT:
            await JSONResponse(self._answered)(scope, receive, send)
            return
        await self._app(scope, receive, send)
        self._answered += 1


def counting_app(framework: str, children: int, label: str) -> ASGIApp:
    return Counting(variant_app(framework, children, label))


def makers(variants: Sequence[Variant]) -> dict[str, Make]:
    """Return what another process makes the apps with."""
    return {
        each.name: partial(counting_app, each.framework, each.children, each.label)
        for each in variants
    }
