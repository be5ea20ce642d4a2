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
from collections.abc import Callable, Sequence
from pkgutil import resolve_name

from starlette.types import ASGIApp

from benchmarks.measure import Samples
from benchmarks.size import Size
from benchmarks.web_process import loop_factory, requests, started
from benchmarks.web_variants import Variant

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

VALGRIND = ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null")


def counted(
    size: Size,
    tool: Sequence[str] = VALGRIND,
    variants: str = "benchmarks.web_variants:all_variants",
    *,
    is_exact: bool = False,
) -> Samples:
    """Return thousands of instructions for a request of each variant.

    Args:
        size: How many requests.
        tool: What counts.
        variants: The function that returns them.
        is_exact: Whether what depends on the time is left out: the garbage collector, and timers.
    """
    numbers = [str(size.warm_up), str(size.counted), str(int(size.uvloop))]
    command = [sys.executable, "-m", __name__, *numbers, variants, str(int(is_exact))]
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
    if len(totals) < len(resolve_name(variants)()):
        sys.exit(f"valgrind failed:\n{done.stderr[-3000:]}")
    return {name: [(twice - once) / size.counted / 1000] for name, (once, twice) in totals.items()}


def fork_all(
    warm_up: int,
    count: int,
    variants: Sequence[Variant],
    *,
    uvloop: bool,
    is_exact: bool,
) -> None:
    """Make the requests that are counted, and print which process made which."""
    gc.collect()
    gc.freeze()
    if is_exact:
        gc.disable()
    factory = still_loop if is_exact else loop_factory(uvloop=uvloop)
    for variant in variants:
        pids = [fork(variant, warm_up + total, factory) for total in (count, 2 * count)]
        for pid in pids:
            _, status = os.waitpid(pid, 0)
            if status:
                sys.exit(f"{variant.name} failed")
            print(pid, variant.name, flush=True)


def still_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop whose time stands still, so that no timer fires."""
    loop = asyncio.new_event_loop()
    loop.time = lambda: 0.0  # type: ignore[method-assign]  # of this loop alone
    return loop


def fork(variant: Variant, total: int, factory: LoopFactory | None) -> int:
    """Make requests in a child; return its process number."""

    async def run(app: ASGIApp) -> None:
        async with started(app):
            await requests(app, total)

    pid = os.fork()
    if pid == 0:
        try:
            with asyncio.Runner(loop_factory=factory) as runner:
                runner.run(run(variant.make()))
        except BaseException:  # noqa: BLE001 - this process must not go on as its parent does
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    return pid


def main() -> None:
    warm_up, count, uvloop = (int(argument) for argument in sys.argv[1:4])
    make: Callable[[], Sequence[Variant]] = resolve_name(sys.argv[4])
    fork_all(
        warm_up,
        count,
        make(),
        uvloop=bool(uvloop),
        is_exact=bool(int(sys.argv[5])),
    )


if __name__ == "__main__":
    main()
