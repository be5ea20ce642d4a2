"""``python -m quattro_web.jobs``: a worker beside the processes that serve an app."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from starlette.applications import Starlette

from quattro_web._app.run import AppRun, AppSettings, LifespanPhase
from quattro_web._jobs.jobs import Jobs, jobs_of
from quattro_web._telemetry.offer import offer_metrics, traced_groups
from quattro_web._tree.dump import Dumping, checked_signal
from quattro_web._util.asyncio import current_task
from quattro_web._util.spans import CURRENT

logger = logging.getLogger("quattro_web")

_LAST_WORDS = 3.0
"""Seconds for what a worker tells the engine when its jobs have ended."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m quattro_web.jobs")
    commands = parser.add_subparsers(required=True)
    worker = commands.add_parser("worker", help="run the jobs of an app until a SIGTERM")
    worker.add_argument("app", help="the app as module:app, or its Jobs object")
    worker.add_argument(
        "--grace",
        type=float,
        default=30.0,
        help="seconds that running jobs may take to finish at the end",
    )
    worker.add_argument(
        "--dump-signal",
        type=_signal,
        metavar="NAME",
        help="a signal, such as SIGUSR1, that makes the worker log what it is running",
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s:     %(message)s")
    # docket says of each job when it begins and ends.
    logging.getLogger("docket").setLevel(logging.WARNING)
    sys.path.insert(0, str(Path.cwd()))
    asyncio.run(_work(_found(options.app), options.grace, options.dump_signal))


def _signal(name: str) -> int | None:
    try:
        return checked_signal(getattr(signal, name, name))
    except (TypeError, ValueError) as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


async def _work(found: Starlette | Jobs, grace: float, dump_signal: int | None) -> None:
    jobs = found if isinstance(found, Jobs) else jobs_of(found)
    if jobs is None:
        sys.exit("the app has no jobs: call quattro_web.install(app, jobs=jobs)")
    offer_metrics()
    CURRENT.set(traced_groups(found, child_spans=False)[1])  # of jobs: it serves no requests
    loop, task = asyncio.get_running_loop(), current_task()
    seen = AppRun(AppSettings())  # for those who look: it has no requests, and no pumps
    last_resorts: list[asyncio.TimerHandle] = []

    def stop() -> None:
        task.cancel()
        seen.shutdown.begin()
        left = 0.0 if last_resorts else grace  # a second signal ends the grace period
        last_resorts.append(loop.call_later(left + jobs.clean_up + _LAST_WORDS, _leave))

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    with Dumping(dump_signal, seen), suppress(asyncio.CancelledError):  # of the lifespan
        # The lifespan of the app alone, for what it yields: its pumps run where it is served.
        app = None if isinstance(found, Jobs) else found
        lifespan = nullcontext() if app is None else app.router.lifespan_context(app)
        seen.enter(LifespanPhase.START_UP)
        async with lifespan as state:
            seen.lifespan = None
            await _run(jobs, state or {}, grace)
            seen.enter(LifespanPhase.SHUTDOWN)
            for last_resort in last_resorts:
                last_resort.cancel()
    logger.info("the worker has ended")


def _leave() -> None:
    """End the process, which a job keeps from ending: others get what it runs."""
    logger.critical("the worker exits now: a job in it has swallowed its cancellation")
    logging.shutdown()
    os._exit(1)


async def _run(jobs: Jobs, state: Any, grace: float) -> None:
    """Run jobs until a signal, and return then: a lifespan ends as it does in a server."""
    try:
        async with jobs.open():
            await jobs.run_worker(
                state=state, grace=grace, ready=lambda: logger.info("the worker takes jobs")
            )
    except asyncio.CancelledError:
        while current_task().uncancel():  # a second one has hurried it
            pass


def _found(where: str) -> Starlette | Jobs:
    module_name, _, name = where.partition(":")
    found: Any = importlib.import_module(module_name)
    for part in (name or "app").split("."):
        found = getattr(found, part, None)
    if not isinstance(found, Starlette | Jobs):
        sys.exit(f"{where} is neither a Starlette or FastAPI app nor a Jobs object: {found!r}")
    return found
