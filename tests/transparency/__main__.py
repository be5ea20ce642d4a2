"""Run the test suites of Starlette and FastAPI with the middleware around every app."""

from __future__ import annotations

import argparse
import sys
import time

from tests.transparency._differences import compare, failed, passed
from tests.transparency._suites import CACHE, Suite, prepare, suites

MODES = ("innermost", "outermost", "opened-innermost", "opened-outermost", "opened-endpoint")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.transparency", description=__doc__)
    parser.add_argument("--all", action="store_true", help="every suite in every mode")
    parser.add_argument("--suite", action="append", choices=("starlette", "fastapi"))
    parser.add_argument("--mode", action="append", choices=MODES)
    arguments = parser.parse_args()
    names = ("starlette", "fastapi") if arguments.all else arguments.suite or ("starlette",)
    modes = MODES if arguments.all else arguments.mode or ("innermost",)
    wanted = [suite for suite in suites() if suite.name in names]
    prepare(*wanted)
    print(f"{'suite':<20} {'mode':<18} {'passed':>6} {'broken':>6} {'seconds':>7}")
    # Every suite is run, whatever came out of the one before.
    broken = [_run(suite, modes) for suite in wanted]
    return min(sum(broken), 1)


def _run(suite: Suite, modes: tuple[str, ...]) -> int:
    broken = 0
    begin = time.monotonic()
    plain = suite.run("plain")
    ok = passed(plain)
    _row(suite, "plain", len(ok), 0, begin)
    print(f"  {len(failed(plain))} fail without the middleware, and do not count")
    for mode in modes:
        begin = time.monotonic()
        difference = compare(suite, mode, plain)
        _row(suite, mode, difference.passed, len(difference.broken), begin)
        for kind in ("broken", "explained", "unsteady"):
            for test in getattr(difference, kind):
                print(f"  {kind}: {test}")
        broken += len(difference.broken)
        if difference.broken:
            print(f"  see {(CACHE / f'{suite.name}-{mode}.log').name} in {CACHE.parent.name}")
    if len(ok) < suite.at_least:
        print(f"  only {len(ok)} of {suite.name}'s tests pass by themselves: is something missing?")
        return broken + 1
    return broken


def _row(suite: Suite, mode: str, count: int, broken: int, begin: float) -> None:
    label = f"{suite.name} {suite.version}"
    seconds = time.monotonic() - begin
    print(f"{label:<20} {mode:<18} {count:>6} {broken:>6} {seconds:>7.0f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
