"""How the cost grows with the number of open connections, and what is left after them."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from functools import partial

from starlette.types import ASGIApp

from benchmarks.core_growth import LINEAR, exponent
from benchmarks.goals import Goal, exactly
from benchmarks.measure import Samples, interleaved, spread
from benchmarks.memory import REPEATS, Left, left_of, tracing
from benchmarks.report import Report
from benchmarks.size import Size
from benchmarks.web_held import BY_HAND, KINDS, held_app
from benchmarks.web_load import HAS_CLOCKS, connected, cpu_seconds, fetch
from benchmarks.web_process import Exchange, started
from benchmarks.web_server import Server, serving

LEFT = 10.0  # bytes a connection


@dataclass(frozen=True)
class Grown:
    """What came out for one kind of app."""

    samples: Samples  # seconds, by the number of connections
    open_bytes: float  # of one
    open_tasks: float
    left: Left


async def answer(app: ASGIApp, path: str, count: int = 0) -> dict[str, int]:
    """Return the JSON that a request in process is answered with."""
    exchange = Exchange(path, f"count={count}".encode())
    await exchange.run(app)
    found: dict[str, int] = json.loads(b"".join(sent.get("body", b"") for sent in exchange.sent))
    return found


async def at_once(app: ASGIApp, count: int) -> dict[str, int]:
    """Have requests open at once; return what was there while they were."""
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(Exchange("/wait").run(app))
        return await answer(app, "/free", count)


async def repeated(app: ASGIApp, count: int, times: int) -> None:
    async with started(app):
        for _ in range(times):
            await at_once(app, count)


async def while_open(app: ASGIApp, count: int) -> dict[str, float]:
    """Return what there is for each request while they are open."""
    async with started(app):
        await at_once(app, 1)  # what is made once is made now
        before = await answer(app, "/alive")
        found = await at_once(app, count)
    return {key: (found[key] - before[key]) / count for key in found}


def grown_in_process(kind: str, size: Size) -> Grown:
    """Measure an app that is called directly."""
    app, counts = held_app(kind), size.connections
    times = {count: size.times_of(count) for count in counts}
    raw = interleaved(
        {f"{count}": partial(repeated, app, count, times[count]) for count in counts},
        size.rounds(15),
    )
    samples = {
        f"{count}": [seconds / times[count] for seconds in raw[f"{count}"]] for count in counts
    }
    # An app of its own for each event loop.
    with tracing():
        there = asyncio.run(while_open(held_app(kind), counts[-1]))
    left = left_of(partial(repeated, held_app(kind), counts[-1], 1))
    return Grown(samples, there["bytes"], there["tasks"], left)


async def over_wire(server: Server, count: int) -> tuple[float, dict[str, int]]:
    """Have requests open at once; return CPU seconds, and what was there while they were."""
    before = cpu_seconds(server.pid)
    async with connected(server.port, count, [count], "/wait") as clients:
        waiting = [client.work() for client in clients]
        found: dict[str, int] = await fetch(server.port, f"/free?count={count}")
        await asyncio.gather(*waiting)
    return cpu_seconds(server.pid) - before, found


async def settled(server: Server, tasks: int) -> dict[str, int]:
    """Return what is there when all clients have gone, which takes the server a moment to see."""
    end = time.monotonic() + 5
    while True:
        await asyncio.sleep(0.03)
        found: dict[str, int] = await fetch(server.port, "/alive")
        if found["tasks"] <= tasks or time.monotonic() > end:
            return found


async def grown_over_wire(server: Server, size: Size) -> Grown:
    """Measure an app that is served by uvicorn."""
    counts = size.connections
    samples: Samples = {f"{count}": [] for count in counts}
    most = counts[-1]
    await over_wire(server, most)  # the first time is for caches
    for _ in size.rounds(20):
        for count in counts:
            times = size.times_of(count)
            seconds = [(await over_wire(server, count))[0] for _ in range(times)]
            samples[f"{count}"].append(sum(seconds) / times)
    before = await fetch(server.port, "/trace")
    after = []
    for _ in range(REPEATS):
        _, found = await over_wire(server, most)
        after.append(await settled(server, before["tasks"]))
    open_bytes, open_tasks = (found[key] - after[-1][key] for key in ("bytes", "tasks"))
    return Grown(samples, open_bytes / most, open_tasks / most, Left.of(after))


def tell(report: Report, key: str, where: str, found: dict[str, Grown], size: Size) -> None:
    """Report what came out, with the goals for all but the app without our middleware."""
    counts, rows = size.connections, []
    for kind, grown in found.items():
        power = exponent(grown.samples, counts)
        cells = [f"{spread(grown.samples[f'{c}']).median / c * 1e6:.0f} µs" for c in counts]
        there = [f"{grown.open_bytes:.0f}", f"{grown.open_tasks:.2f}"]
        rows.append(
            [kind, *cells, str(power), *there, str(grown.left.tasks), str(grown.left.bytes)]
        )
        if kind == BY_HAND:
            continue
        what = f"{counts[0]} to {counts[-1]} connections, {kind}"
        report.goal(Goal(what, f"time {where}, power of their number", LINEAR, power))
    ours = [grown.left for kind, grown in found.items() if kind != BY_HAND]
    what = f"{counts[-1]} connections, ours"
    tasks = max(left.tasks for left in ours)
    report.goal(Goal(what, f"tasks left {where}", 0, exactly(tasks), digits=0))
    a_connection = max(left.bytes for left in ours) / counts[-1]
    report.goal(Goal(what, f"bytes left {where}, for each", LEFT, exactly(a_connection)))
    header = ["for each of", *map(str, counts), "grows with the power", "bytes while open"]
    header += ["tasks while open", "tasks left", "bytes left"]
    title = f"CPU time {where} for each request of so many that are open at once"
    report.table(key, title, header, rows)


def open_connections(report: Report, size: Size) -> None:
    """Have more and more requests open at once, in process and over uvicorn."""
    found = {kind: grown_in_process(kind, size) for kind in KINDS}
    tell(report, "open-in-process", "in process", found, size)
    if not HAS_CLOCKS:
        report.note("Left out: open connections of uvicorn, whose CPU time only Linux tells.")
        return
    with serving({kind: partial(held_app, kind) for kind in KINDS}, size.warm_up) as servers:
        found = {
            kind: asyncio.run(grown_over_wire(server, size)) for kind, server in servers.items()
        }
    tell(report, "open-over-uvicorn", "over uvicorn", found, size)
