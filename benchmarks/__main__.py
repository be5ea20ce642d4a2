"""What quattro_core and quattro_web cost, beside what others cost: `python -m benchmarks`.

Each table is the result of interleaved runs, as ratios: the median of all rounds, and where the
middle half of them is in parentheses. All goals come at the end, beside what was measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.core_background import background
from benchmarks.core_gather import gather
from benchmarks.core_growth import growth
from benchmarks.core_limit import limit
from benchmarks.core_map import map_
from benchmarks.core_spawning import spawning
from benchmarks.report import Report
from benchmarks.size import FULL, QUICK, TINY, Size
from benchmarks.web import children, connections, in_time, instructions
from benchmarks.web_growth import open_connections
from benchmarks.web_streams import streams
from benchmarks.web_telemetry import telemetry
from benchmarks.web_wrk import under_wrk

BENCHMARKS: dict[str, Callable[[Report, Size], None]] = {
    "spawning": spawning,
    "background": background,
    "limit": limit,
    "map": map_,
    "gather": gather,
    "growth": growth,
    "instructions": instructions,
    "time": in_time,
    "connections": connections,
    "children": children,
    "open": open_connections,
    "telemetry": telemetry,
    "wrk": under_wrk,
    "streams": streams,
}
SIZES = {size.name: size for size in (FULL, QUICK, TINY)}


def main() -> None:
    """Run the benchmarks that are asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"all, or some of: {', '.join(BENCHMARKS)}")
    parser.add_argument(
        "--size", choices=SIZES, default="quick", help="how many rounds, and of what"
    )
    parser.add_argument("--uvloop", action="store_true", help="requests in process on uvloop")
    parser.add_argument(
        "--json",
        type=Path,
        help="also write the results to this file; of some, into what it has of all",
    )
    arguments: Any = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in BENCHMARKS]:
        parser.error(f"there is no benchmark {', '.join(unknown)}: {', '.join(BENCHMARKS)}")
    size = replace(SIZES[arguments.size], uvloop=arguments.uvloop)
    report = Report(size.name)
    for name in arguments.names or BENCHMARKS:
        BENCHMARKS[name](report, size)
    report.close(arguments.json, only=arguments.names)


if __name__ == "__main__":
    main()
