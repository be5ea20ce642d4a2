"""Metrics: what runs, what has failed, and how pumps are."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from quattro_web import (
    Pump,
    RestartPolicy,
    app_task_group,
    cancel_on_disconnect,
    install,
    request_task_group,
    set_deadline,
)
from quattro_web._util.counts import MOST, Counts
from quattro_web.testing import AppClient
from tests.support.apps import settle
from tests.support.asgi import run
from tests.support.server import ROOT
from tests.telemetry.reading import Counted, key, opentelemetry, prometheus
from tests.tree.looking import Stuck


async def forever() -> None:
    await asyncio.Event().wait()


def active() -> dict[Any, int]:
    """Return what `quattro.task.active` says, told by both, without what is 0."""
    points = opentelemetry("quattro.task.active")
    found = {labels: int(point.value) for labels, point in points.items()}
    of_prometheus = prometheus("quattro_task_active")
    assert sorted(found.values()) == sorted(of_prometheus.values())
    return {tuple(value for _, value in labels): count for labels, count in found.items() if count}


def test_active_tasks() -> None:
    """O1: The metrics tell how many children, pumps and pieces of handed-over work there are, and
    how many of them wait for their turn."""
    stuck = Stuck()

    async def handler(request: Request) -> Response:
        tg = request_task_group(request)
        tg.create_background_task(forever())
        for _ in range(5):
            tg.create_task(stuck.wait())
        for _ in range(3):
            app_task_group(request).create_task(stuck.wait())
        return PlainTextResponse()

    app = Starlette(routes=[Route("/", handler)])
    install(app, pumps=[forever], concurrency_limit=2, app_concurrency_limit=1)

    async def main() -> None:
        before = active()
        async with AppClient(app) as client:
            request = client.start("GET", "/")
            await settle()
            now = active()
            grown = {kind: now[kind] - before.get(kind, 0) for kind in now}
            assert {kind: count for kind, count in grown.items() if count} == {
                ("background", "running"): 1,
                ("foreground", "running"): 2,
                ("foreground", "waiting"): 3,
                ("handed_over", "running"): 1,
                ("handed_over", "waiting"): 2,
                ("pump", "running"): 1,
            }
            stuck.free()
            await request.response()
        assert active() == before

    run(main())


class OddError(Exception):
    pass


ODD = f"{OddError.__module__}.OddError"


def test_failures() -> None:
    """O1: Each failure of a child, of handed-over work and of a pump is counted, with its class and
    the route that it comes from; and nothing is that is none."""

    async def fails() -> None:
        raise OddError

    async def not_found() -> None:
        raise HTTPException(404)

    async def child(request: Request) -> Response:
        request_task_group(request).create_task(fails())
        return PlainTextResponse()

    async def background(request: Request) -> Response:
        request_task_group(request).create_background_task(not_found())
        await forever()
        return PlainTextResponse()

    async def hands_over(request: Request) -> Response:
        app_task_group(request).create_task(fails())
        return PlainTextResponse()

    async def fine(request: Request) -> Response:
        tg = request_task_group(request)
        tg.create_background_task(forever())
        cancelled = tg.create_task(forever())
        await asyncio.sleep(1)
        cancelled.cancel()
        return PlainTextResponse()

    async def flaky() -> None:
        raise OddError

    functions = (child, background, hands_over, fine)
    app = Starlette(
        routes=[Mount("/{shop}", routes=[Route(f"/{f.__name__}/{{id}}", f) for f in functions])]
    )
    install(app, pumps=[Pump(flaky, on_failure="ignore", name="flaky")])

    async def main() -> None:
        counted = Counted("quattro.task.failures")
        async with AppClient(app, raise_app_exceptions=False) as client:
            for number in (1, 2):
                for function in functions:
                    await client.get(f"/north/{function.__name__}/{number}")
            await client.wait_work_done()
            assert counted.grown() == {
                key(
                    quattro__task__kind="foreground",
                    error__type=ODD,
                    http__route="/{shop}/child/{id}",
                ): 2,
                key(
                    quattro__task__kind="background",
                    error__type="starlette.exceptions.HTTPException",
                    http__route="/{shop}/background/{id}",
                ): 2,
                key(
                    quattro__task__kind="handed_over",
                    error__type=ODD,
                    http__route="/{shop}/hands_over/{id}",
                ): 2,
            }

    run(main())


def test_cancellations() -> None:
    """O1: Each request that is cancelled is counted, with the reason and the route."""

    async def is_late(request: Request) -> Response:
        set_deadline(request, 1)
        await forever()
        return PlainTextResponse()

    async def is_left(request: Request) -> Response:
        cancel_on_disconnect(request)
        await forever()
        return PlainTextResponse()

    async def is_cut(request: Request) -> Response:
        await forever()
        return PlainTextResponse()

    app = FastAPI()
    for function in (is_late, is_left, is_cut):
        app.add_route(f"/{function.__name__}/{{id}}", function)
    install(app)

    async def main() -> None:
        counted = Counted("quattro.request.cancellations")
        async with AppClient(app) as client:
            assert (await client.get("/is_late/1")).status_code == 504
            left = client.start("GET", "/is_left/1")
            await settle()
            left.disconnect()
            await left.wait_finished()
            client.start("GET", "/is_cut/1")
            await settle()
        assert counted.grown() == {
            key(quattro__cancel__reason="deadline", http__route="/is_late/{id}"): 1,
            key(quattro__cancel__reason="disconnect", http__route="/is_left/{id}"): 1,
            key(quattro__cancel__reason="shutdown", http__route="/is_cut/{id}"): 1,
        }

    run(main())


def test_rejections() -> None:
    """O1: What is refused since too many wait is counted, with the limit."""
    stuck = Stuck()

    async def handler(request: Request) -> Response:
        tg = request_task_group(request)
        tg.create_task(stuck.wait())
        tg.create_task(stuck.wait())
        return PlainTextResponse()

    async def hands_over(request: Request) -> Response:
        app_tg = app_task_group(request)
        app_tg.create_tasks(*[stuck.wait()] * 1)
        app_tg.create_task(stuck.wait())
        return PlainTextResponse()

    async def hands_over_all(request: Request) -> Response:
        app_task_group(request).create_tasks(stuck.wait(), stuck.wait())
        return PlainTextResponse()

    app = Starlette(
        routes=[
            Route("/", handler),
            Route("/hands-over", hands_over),
            Route("/hands-over-all", hands_over_all),
        ]
    )
    install(app, total_limit=1, max_waiting=0, app_concurrency_limit=1, app_max_waiting=0)

    async def main() -> None:
        counted = Counted("quattro.task.rejections")
        async with AppClient(app) as client:
            for path in ("/", "/hands-over", "/hands-over-all"):
                assert (await client.get(path)).status_code == 503
            assert counted.grown() == {
                key(quattro__limit="total_limit"): 1,
                key(quattro__limit="app_concurrency_limit"): 2,
            }
            stuck.free()

    run(main())


def test_pumps() -> None:
    """O1: The metrics tell which pump is up, and how often each was started again."""
    fails, is_again = asyncio.Event(), asyncio.Event()

    async def flaky() -> None:
        if fails.is_set():
            is_again.set()
            await forever()
        await fails.wait()
        raise OddError

    app = Starlette()
    policy = RestartPolicy(base=10, ceiling=10)
    install(app, pumps=[Pump(flaky, name="flaky metrics", on_failure="restart", restart=policy)])

    async def main() -> None:
        pump = key(quattro__pump__name="flaky metrics")
        async with AppClient(app):
            assert opentelemetry("quattro.pump.up")[pump].value == 1
            fails.set()
            for _ in range(5):
                await asyncio.sleep(0)
            assert opentelemetry("quattro.pump.up")[pump].value == 0
            await is_again.wait()
            assert opentelemetry("quattro.pump.up")[pump].value == 1
            assert opentelemetry("quattro.pump.restarts")[pump].value == 1
            name = (("quattro_pump_name", "flaky metrics"),)
            assert prometheus("quattro_pump_up")[name] == 1
            assert prometheus("quattro_pump_restarts_total")[name] == 1
            assert pump not in opentelemetry("quattro.lock.held")
        assert pump not in opentelemetry("quattro.pump.up")

    run(main())


def test_durations() -> None:
    """O1: The metrics tell how long handed-over work and shutdowns take."""

    async def handler(request: Request) -> Response:
        app_task_group(request).create_task(asyncio.sleep(0))
        return PlainTextResponse()

    app = Starlette(routes=[Route("/", handler)])
    install(app)
    kind = key(quattro__task__kind="handed_over")

    async def main() -> None:
        async with AppClient(app) as client:
            await client.get("/")
            await client.wait_work_done()

    before = prometheus("quattro_task_duration_seconds_count")
    run(main())
    labels = (("quattro_task_kind", "handed_over"),)
    work = opentelemetry("quattro.task.duration")[kind]
    now = prometheus("quattro_task_duration_seconds_count")
    assert now[labels] == before.get(labels, 0) + 1
    assert work.count >= 1
    assert work.sum >= 0
    shutdown = opentelemetry("quattro.shutdown.duration")[()]
    assert shutdown.count >= 1
    buckets = prometheus("quattro_task_duration_seconds_bucket")
    counts = [
        count for labels, count in buckets.items() if ("quattro_task_kind", "handed_over") in labels
    ]
    assert counts == sorted(counts)
    assert counts[-1] == now[labels]


def test_lock_that_is_held(tmp_path: Path) -> None:
    """O1: The metrics tell whether this process holds the lock of a pump."""
    from quattro_web import FileLock

    app = Starlette()
    lock = FileLock(tmp_path / "lock")
    install(app, pumps=[Pump(forever, name="held metrics", once=lock)])
    pump = key(quattro__pump__name="held metrics")

    async def main() -> None:
        async with AppClient(app):
            async with asyncio.timeout(60):
                while not opentelemetry("quattro.lock.held")[pump].value:
                    await asyncio.sleep(0.01)

    asyncio.run(main())


def test_kinds_beyond_a_bound() -> None:
    """O3: Nobody fills the memory with new kinds of what is counted."""
    counts = Counts("http.route")
    for number in range(MOST + 10):
        counts.add(str(number))
    counted = counts.counted()
    assert len(counted) == MOST + 1
    assert counted[-1] == ({"http.route": "_OTHER"}, 10)


def test_several_processes() -> None:
    """O1: In prometheus_client's multiprocess mode, the numbers of each process are its own."""
    code = """
from prometheus_client import CollectorRegistry, generate_latest
from quattro_web.prometheus import TaskCollector
registry = CollectorRegistry()
TaskCollector().register(registry)
print(generate_latest(registry).decode())
"""
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": "/nonexistent"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert '{pid="' in result.stdout


@pytest.mark.parametrize("module", ["opentelemetry", "prometheus_client"])
def test_without_the_extra(module: str) -> None:
    """O2: Without OpenTelemetry and without Prometheus all works, and the module that needs one
    says which extra has it."""
    code = f"""
import asyncio, sys
sys.modules[{module!r}] = None
from starlette.applications import Starlette
from quattro_web import install
from quattro_web.testing import AppClient
app = Starlette()
install(app)
async def main():
    async with AppClient(app) as client:
        await client.get("/")
asyncio.run(main())
try:
    import quattro_web.prometheus
except ModuleNotFoundError as exc:
    print(exc)
"""
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    needs = "quattro_web.prometheus needs prometheus_client: pip install 'quattro-web[prometheus]'"
    assert result.stdout.strip() == (needs if module == "prometheus_client" else "")
