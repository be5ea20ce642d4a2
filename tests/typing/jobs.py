"""Types of `quattro_web.jobs`, which the type checkers check: nothing of this runs."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import assert_type

from starlette.applications import Starlette

from quattro_core import TaskGroup
from quattro_web import install
from quattro_web.jobs import Job, JobCall, Jobs, RunningJob, current_job

jobs = Jobs("memory://")


@jobs.job(timeout=60, max_attempts=3)
async def render(page: int, *, scale: float = 1.0) -> bytes:
    return bytes(page)


@jobs.job()
async def count(text: str) -> int:
    return len(text)


assert_type(render.timeout, float | None)
install(Starlette(), jobs=jobs)


async def calls(tg: TaskGroup) -> None:
    assert_type(await render(1), bytes)
    coro = render.remote(1, scale=2.0)
    await assert_type(coro, Coroutine[object, None, bytes])
    assert_type(await tg.create_task(render.remote(1)), bytes)
    assert_type(await tg.gather(render.remote(0), render.remote(1)), tuple[bytes, bytes])
    assert_type(await tg.gather(render.remote(0), count.remote("x")), tuple[bytes, int])
    assert_type(await tg.gather(render(0), count("x")), tuple[bytes, int])
    async for page in tg.map(render.remote, range(2, 900), limit=50):
        assert_type(page, bytes)
    assert_type(render.call(1), JobCall)
    assert_type(await jobs.hand_over(render.call(7), key="order-7"), str)
    assert_type(current_job(), RunningJob)
    assert_type(current_job().task_group, TaskGroup)
    await render.remote("1")  # type: ignore[arg-type]
    await render.remote()  # type: ignore[call-arg]
    render.call(1, scale="2")  # type: ignore[arg-type]


async def wrong(job: Job[[int], bytes]) -> None:
    jobs.job()(len)  # type: ignore[arg-type]
    jobs.job(timeout="60")  # type: ignore[arg-type]
    await job.remote(1, 2)  # type: ignore[call-arg]
