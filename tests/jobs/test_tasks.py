"""What a worker runs right now, as it is seen by the ways that show what an app does."""

from __future__ import annotations

import asyncio
import signal
import sys

import pytest

pytest.importorskip("docket", reason="pydocket is missing: pip install 'quattro-web[docket]'")

from fastapi import FastAPI

from quattro_web import install
from quattro_web._jobs.command import main
from quattro_web._telemetry.readings import active_tasks
from quattro_web.fastapi import RequestTaskGroup
from quattro_web.jobs import Jobs, current_job
from quattro_web.tasks import app_tasks
from quattro_web.testing import AppClient
from tests.locks.services import RedisService
from tests.support.server import Server, uvicorn
from tests.support.wire import Wire
from tests.tree.looking import Stuck, named

APP = "tests.jobs.web:app"


def counted() -> int:
    """Return how many jobs are active, as the metric has it."""
    key = {"quattro.task.kind": "job", "quattro.task.state": "running"}
    [count] = [count for labels, count in active_tasks() if labels == key]
    return count


def test_jobs_of_an_app() -> None:
    """O1: Where the worker runs in the app's process, its jobs are shown with what they have
    started, and counted."""
    stuck = Stuck()
    app = FastAPI()
    jobs = Jobs("memory://", name="seen", timeout=20.0)

    @jobs.job(name="render")
    async def render() -> None:
        current_job().task_group.create_task(stuck.wait(), name="a page")

    @app.post("/books/{book}")
    async def handler(book: int, tg: RequestTaskGroup) -> None:
        tg.create_task(render.remote())

    install(app, jobs=jobs)

    async def main() -> None:
        async with AppClient(app) as client:
            assert counted() == 0
            request = client.start("POST", "/books/7")
            async with asyncio.timeout(60):
                await stuck.reached.wait()  # by the page, which the job has started
            tasks = app_tasks(app)
            [job] = tasks.jobs
            assert (job.job, job.attempt, counted()) == ("render", 1, 1)
            assert named(job.task, "a page").function.endswith("Stuck.wait")
            assert job.task.function.endswith("render")
            few = app_tasks(app, most=1)
            assert (few.jobs, few.tasks_left_out > 0) == ((), True)
            stuck.free()
            await request.response()
            assert counted() == 0

    asyncio.run(main())


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX signal")
def test_signal_to_a_worker(own_redis: RedisService) -> None:
    """O1: At the signal, a worker logs its jobs with where each is, and from whom it comes."""
    env = {"JOBS_URL": own_redis.url, "JOBS_NAME": "seen", "PYTHONASYNCIODEBUG": ""}
    command = ["-m", "quattro_web.jobs", "worker", APP, "--grace", "0", "--dump-signal", "SIGUSR1"]
    with (
        Server(command, env=env, ready=False) as worker,
        Server(uvicorn(APP), env=env) as web,
        Wire(web.port) as wire,
    ):
        worker.wait_for("the worker takes jobs")
        wire.ask("/sleep/600")
        worker.wait_for("begins in")
        with Wire(web.port) as other:
            assert other.get("/hand-over/stay").status == 200
        worker.wait_for("begins to stay")
        worker.send(signal.SIGUSR1)
        place = r"at {0}, .*functions\.py:\d+, awaits asyncio\.tasks\.sleep"
        worker.wait_for(r"process \d+ \(MainProcess\): 0 open requests, ")
        worker.wait_for(
            r"job sleep from \S+-\d+-\w+, attempt 1, for \d+\.\d s: sleep \[job sleep\], "
            + place.format("sleep")
        )
        worker.wait_for(
            r"job stay from GET /hand-over/stay, attempt 1, for \d+\.\d s: stay \[job stay\], "
            + place.format("stay")
        )
        worker.send(signal.SIGKILL)
        assert worker.wait() == -signal.SIGKILL


@pytest.mark.parametrize("name", ["SIGTERM", "SIGNONE"])
def test_bad_signal(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """O1: A signal that has another meaning, or is none, is an error that says so."""
    with pytest.raises(SystemExit):
        main(["worker", "shop:app", "--dump-signal", name])
    assert "--dump-signal: dump_signal must be a signal" in capsys.readouterr().err
