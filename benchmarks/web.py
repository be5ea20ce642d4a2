"""What a request costs with quattro_web, as a ratio to the framework without it.

In process, the ASGI app called directly, one request after the other; variants interleaved.
``python -m benchmarks.web [--quick] [--callgrind | --server]``.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Message

from benchmarks.web_apps import VARIANTS, Variant
from benchmarks.web_server import served

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


def loop_factory(*, uvloop: bool) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if not uvloop:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop]
    factory = importlib.import_module("uvloop").new_event_loop
    return factory


def timed(*, quick: bool, uvloop: bool) -> Samples:
    """Return microseconds of CPU for a request, one of each variant per round."""
    rounds, count = (9, 150) if quick else (25, 300)
    samples: Samples = {variant.name: [] for variant in VARIANTS}
    apps = {variant.name: variant.make() for variant in VARIANTS}
    order = list(apps)
    with asyncio.Runner(loop_factory=loop_factory(uvloop=uvloop)) as runner:
        for app in apps.values():
            runner.run(requests(app, WARM_UP))
        gc.collect()
        gc.freeze()
        for _ in range(rounds):
            random.shuffle(order)
            for name in order:
                begin = time.process_time()
                runner.run(requests(apps[name], count))
                samples[name].append((time.process_time() - begin) / count * 1e6)
    return samples


def counted(*, quick: bool, uvloop: bool) -> Samples:
    """Return thousands of instructions for a request, counted by callgrind.

    Everything is imported in one process, which forks one child for N requests and one for 2 N, for
    each variant: whatever is not a request is the same in both, and drops out of the difference.
    """
    if shutil.which("valgrind") is None:
        sys.exit("--callgrind needs valgrind: apt-get install valgrind")
    count = 60 if quick else 200
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
    if len(totals) < len(VARIANTS):
        sys.exit(f"valgrind failed:\n{done.stderr[-3000:]}")
    return {name: [(twice - once) / count / 1000] for name, (once, twice) in totals.items()}


def fork_all(count: int, *, uvloop: bool) -> None:
    gc.collect()
    gc.freeze()
    for variant in VARIANTS:
        for total in (count, 2 * count):
            pid = os.fork()
            if pid == 0:
                app = variant.make()
                with asyncio.Runner(loop_factory=loop_factory(uvloop=uvloop)) as runner:
                    runner.run(requests(app, WARM_UP + total))
                os._exit(0)
            _, status = os.waitpid(pid, 0)
            if status:
                sys.exit(f"{variant.name} failed")
            print(pid, variant.name, flush=True)


def ratios(variant: Variant, samples: Samples) -> list[float]:
    return [
        ours / theirs
        for ours, theirs in zip(samples[variant.name], samples[variant.baseline], strict=True)
    ]


def table(samples: Samples, unit: str) -> str:
    """Return a Markdown table: medians, the ratio with its middle half, and the goal."""
    lines = [f"| | {unit} | ratio | middle half | goal |", "| --- | --- | --- | --- | --- |"]
    for variant in VARIANTS:
        ratio = ratios(variant, samples)
        middle = "-"
        if len(ratio) > 1:
            low, _, high = statistics.quantiles(ratio, n=4)
            middle = f"{low:.3f} to {high:.3f}"
        median, own = statistics.median(ratio), statistics.median(samples[variant.name])
        goal = "-"
        if variant.goal is not None:
            goal = f"{variant.goal:.2f} {'met' if median <= variant.goal else 'MISSED'}"
        if variant.name == variant.baseline:
            middle = "-"
        lines.append(f"| {variant.name} | {own:.1f} | {median:.3f} | {middle} | {goal} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.web", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--uvloop", action="store_true", help="in process on uvloop")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--callgrind", action="store_true", help="count instructions with valgrind")
    how.add_argument("--server", action="store_true", help="CPU time of a real uvicorn")
    how.add_argument("--forks", type=int, help=argparse.SUPPRESS)
    arguments: Any = parser.parse_args()
    loop = "uvloop" if arguments.uvloop else "asyncio"
    if arguments.forks:
        fork_all(arguments.forks, uvloop=arguments.uvloop)
    elif arguments.callgrind:
        print(f"Instructions for a request in process, {loop}\n")
        print(table(counted(quick=arguments.quick, uvloop=arguments.uvloop), "thousand"))
    elif arguments.server:
        print("CPU time of uvicorn (httptools, uvloop) for a request, 50 connections\n")
        print(table(served(quick=arguments.quick), "µs"))
    else:
        print(f"CPU time for a request in process, {loop}\n")
        print(table(timed(quick=arguments.quick, uvloop=arguments.uvloop), "µs"))


if __name__ == "__main__":
    main()
