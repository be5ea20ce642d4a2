"""Requests in process, counted in instructions by valgrind's callgrind.

Everything is imported in one process, which forks one child for N requests and one for 2 N, for
each variant: whatever is not a request is the same in both, and drops out of the difference.
"""

from __future__ import annotations

import asyncio
import gc
import os
import re
import subprocess
import sys
from collections.abc import Sequence

from starlette.types import ASGIApp

from benchmarks.measure import Samples
from benchmarks.size import Size
from benchmarks.web_process import loop_factory, requests, started
from benchmarks.web_variants import Variant, all_variants

VALGRIND = ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null")


def counted(size: Size, tool: Sequence[str] = VALGRIND) -> Samples:
    """Return thousands of instructions for a request of each variant."""
    numbers = [str(size.warm_up), str(size.counted), str(int(size.uvloop))]
    command = [sys.executable, "-m", __name__, *numbers]
    done = subprocess.run(
        [*tool, *command],
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
    return {name: [(twice - once) / size.counted / 1000] for name, (once, twice) in totals.items()}


def fork_all(warm_up: int, count: int, *, uvloop: bool) -> None:
    """Make the requests that are counted, and print which process made which."""
    variants = all_variants()
    gc.collect()
    gc.freeze()
    for variant in variants:
        pids = [fork(variant, warm_up + total, uvloop=uvloop) for total in (count, 2 * count)]
        for pid in pids:
            _, status = os.waitpid(pid, 0)
            if status:
                sys.exit(f"{variant.name} failed")
            print(pid, variant.name, flush=True)


def fork(variant: Variant, total: int, *, uvloop: bool) -> int:
    """Make requests in a child; return its process number."""

    async def run(app: ASGIApp) -> None:
        async with started(app):
            await requests(app, total)

    pid = os.fork()
    if pid == 0:
        try:
            with asyncio.Runner(loop_factory=loop_factory(uvloop=uvloop)) as runner:
                runner.run(run(variant.make()))
        except BaseException:  # noqa: BLE001 - this process must not go on as its parent does
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    return pid


if __name__ == "__main__":
    numbers = [int(argument) for argument in sys.argv[1:]]
    fork_all(numbers[0], numbers[1], uvloop=bool(numbers[2]))
