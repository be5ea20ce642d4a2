"""The metrics of a worker: how long jobs take, and which have failed for good."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("docket", reason="pydocket is missing: pip install 'quattro-web[docket]'")

from quattro_core import RestartPolicy
from quattro_web._util.counts import TASK_DURATIONS, TASK_FAILURES
from quattro_web.jobs import Jobs


def test_metrics_of_a_worker(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """O1: How long each job has run is told, and what was handed over and has failed for good is
    counted, with its class and its route, which are fields of its log entries as well."""
    seen: list[tuple[float, dict[str, str]]] = []
    monkeypatch.setattr(TASK_DURATIONS, "observers", [lambda *each: seen.append(each)])
    key = {
        "quattro.task.kind": "job",
        "error.type": "ZeroDivisionError",
        "http.route": "/orders/{order}",
    }

    def count() -> int:
        return next((n for labels, n in TASK_FAILURES.counted() if labels == key), 0)

    before = count()
    jobs = Jobs("memory://", timeout=20.0)
    policy = RestartPolicy(base=0.01, ceiling=0.01)

    @jobs.job(name="fine")
    async def fine() -> int:
        return 1

    @jobs.job(name="fails", max_attempts=2, restart=policy)
    async def fails() -> None:
        raise ZeroDivisionError

    class Route:
        path = "/orders/{order}"
        endpoint = None

    conn: dict[str, Any] = {
        "type": "http",
        "method": "POST",
        "path": "/orders/7",
        "root_path": "",
        "app_root_path": "",
        "headers": [],
        "route": Route(),
    }

    async def main() -> None:
        ready = asyncio.Event()
        async with jobs.open():
            worker = asyncio.create_task(jobs.run_worker(ready=ready.set))
            await ready.wait()
            assert await fine.remote() == 1
            await jobs.hand_over(fails.call(), conn=conn)
            async with asyncio.timeout(60):
                while count() == before:
                    await asyncio.sleep(0.01)
            worker.cancel()
            await asyncio.wait([worker])

    asyncio.run(main())
    assert count() == before + 1
    assert [labels for _, labels in seen] == [{"quattro.task.kind": "job"}] * 3
    assert all(seconds >= 0 for seconds, _ in seen)
    [record] = [each for each in caplog.records if "has failed for good" in each.getMessage()]
    fields = {name: value for name, value in vars(record).items() if name.startswith("quattro_")}
    assert fields == {
        "quattro_job": "fails",
        "quattro_origin": "POST /orders/7",
        "quattro_route": "/orders/{order}",
    }
