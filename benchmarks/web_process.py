"""Requests in process: the ASGI app called directly, one request after the other."""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.types import ASGIApp, Message

from benchmarks.web_variants import FAST, STAR, Variant, spawning, unused

Samples = dict[str, list[float]]

SCOPE = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "path": "/",
    "raw_path": b"/",
    "root_path": "",
    "query_string": b"",
    "client": ("127.0.0.1", 40000),
    "server": ("127.0.0.1", 8000),
}
HEADERS = [(b"host", b"127.0.0.1:8000"), (b"user-agent", b"benchmark"), (b"accept", b"*/*")]
WARM_UP = 50  # the interpreter specialises its code by then


def all_variants() -> list[Variant]:
    return [*unused(FAST), *unused(STAR), *spawning(FAST), *spawning(STAR)]


async def requests(app: ASGIApp, count: int) -> None:
    """Make *count* requests, and see that each was answered."""
    # As in a server: the body comes once, and then nothing does before the end of the response.
    unread = True
    sent: list[Message] = []

    async def receive() -> Message:
        nonlocal unread
        if unread:
            unread = False
            return {"type": "http.request", "body": b"", "more_body": False}
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    for _ in range(count):
        unread = True
        sent.clear()
        await app({**SCOPE, "headers": list(HEADERS), "state": {}}, receive, send)
        if sent[0]["status"] != 200 or sent[-1].get("more_body"):
            msg = f"not a complete answer: {sent}"
            raise AssertionError(msg)


@asynccontextmanager
async def started(app: ASGIApp) -> AsyncIterator[None]:
    """Run the lifespan of *app* around the block, as a server does."""
    inbox: asyncio.Queue[Message] = asyncio.Queue()
    outbox: asyncio.Queue[Message] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": SCOPE["asgi"], "state": {}}

    async def run() -> None:
        await app(scope, inbox.get, outbox.put)

    lifespan = asyncio.create_task(run())
    for half in ("startup", "shutdown"):
        inbox.put_nowait({"type": f"lifespan.{half}"})
        message = await outbox.get()
        assert message["type"] == f"lifespan.{half}.complete", message
        if half == "startup":
            yield
    await lifespan


def loop_factory(*, uvloop: bool) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if not uvloop:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop]
    factory = importlib.import_module("uvloop").new_event_loop
    return factory


def timed(*, quick: bool, uvloop: bool) -> Samples:
    """Return microseconds of CPU for a request, one of each variant per round."""
    rounds, count = (9, 150) if quick else (25, 300)
    apps = {variant.name: variant.make() for variant in all_variants()}
    samples: Samples = {name: [] for name in apps}
    order = list(apps)

    async def warm(app: ASGIApp) -> None:
        async with started(app):
            await requests(app, WARM_UP)

    async def measured(name: str) -> None:
        app = apps[name]
        async with started(app):
            begin = time.process_time()
            await requests(app, count)
            samples[name].append((time.process_time() - begin) / count * 1e6)

    with asyncio.Runner(loop_factory=loop_factory(uvloop=uvloop)) as runner:
        for app in apps.values():
            runner.run(warm(app))
        gc.collect()
        gc.freeze()
        for _ in range(rounds):
            random.shuffle(order)
            for name in order:
                runner.run(measured(name))
    return samples


def counted(*, quick: bool, uvloop: bool) -> Samples:
    """Return thousands of instructions for a request, counted by callgrind.

    Everything is imported in one process, which forks one child for N requests and one for 2 N, for
    each variant: whatever is not a request is the same in both, and drops out of the difference.
    """
    count = 60 if quick else 150
    tool = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    command = [sys.executable, "-m", "benchmarks.web", "--forks", str(count)]
    done = subprocess.run(
        [*tool, *command, *(["--uvloop"] if uvloop else [])],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONHASHSEED": "0"},
    )
    collected = dict(re.findall(r"==(\d+)== Collected : (\d+)", done.stderr))
    totals: dict[str, list[int]] = {}
    for pid, name in re.findall(r"^(\d+) (.+)$", done.stdout, re.MULTILINE):
        totals.setdefault(name, []).append(int(collected[pid]))
    if len(totals) < len(all_variants()):
        sys.exit(f"valgrind failed:\n{done.stderr[-3000:]}")
    return {name: [(twice - once) / count / 1000] for name, (once, twice) in totals.items()}


def fork_all(count: int, *, uvloop: bool) -> None:
    """Make the requests that `counted` counts."""

    async def run(app: ASGIApp, total: int) -> None:
        async with started(app):
            await requests(app, WARM_UP + total)

    variants = all_variants()
    gc.collect()
    gc.freeze()
    for variant in variants:
        for total in (count, 2 * count):
            pid = os.fork()
            if pid == 0:
                with asyncio.Runner(loop_factory=loop_factory(uvloop=uvloop)) as runner:
                    runner.run(run(variant.make(), total))
                os._exit(0)
            _, status = os.waitpid(pid, 0)
            if status:
                sys.exit(f"{variant.name} failed")
            print(pid, variant.name, flush=True)
