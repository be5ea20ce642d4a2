"""What jobs refuse, when they are made and not when they are called."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("docket", reason="pydocket is missing: pip install 'quattro-web[docket]'")

from starlette.applications import Starlette
from starlette.testclient import TestClient

from quattro_web import app_health, install
from quattro_web.jobs import Jobs, JobsNotRunningError
from tests.jobs.functions import double, fan_out, sleep


@pytest.mark.parametrize(
    "url",
    ["", "cache", "http://cache", "redis+cluster://cache", "redis://:s3cret/word@cache:x/0"],
)
def test_url(url: str) -> None:
    """O3: What is no URL of a Redis is an error that does not show it."""
    with pytest.raises(ValueError, match="engine is not a Redis URL") as caught:
        Jobs(url)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"engine": 7}, "engine must be a Redis URL or a JobEngine, got 7"),
        ({"name": 7}, "name must be a str"),
        *(({"name": f"a{c}b"}, "name must not contain any of") for c in "*?[]\\"),
        ({"lease": 0}, "lease must be"),
        ({"clean_up": -1}, "clean_up must be"),
        ({"timeout": "2"}, "timeout must be"),
        ({"redelivery": float("inf")}, "redelivery must be"),
        ({"concurrency": 0}, "concurrency must be"),
        ({"max_kept": 0}, "max_kept must be"),
        ({"max_size": None}, "max_size must be"),
        ({"pickle": "no", "signing_key": "k" * 32}, "pickle must be True or False, got 'no'"),
    ],
)
def test_options(options: dict[str, Any], error: str) -> None:
    """A bad option is an error that names it."""
    with pytest.raises((TypeError, ValueError), match=error):
        Jobs(**{"engine": "memory://", **options})


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"timeout": 0}, "timeout must be"),
        ({"max_attempts": 0}, "max_attempts must be"),
        ({"idempotent": "no"}, "idempotent must be True or False, got 'no'"),
        ({"version": ""}, "version must not be empty"),
        ({"version": 2}, "version must be a str, got 2"),
    ],
)
def test_job_options(options: dict[str, Any], error: str) -> None:
    """A bad option of a job is an error that names it."""
    with pytest.raises((TypeError, ValueError), match=error):
        Jobs("memory://").job(**options)


def test_job_functions() -> None:
    """A job is an async function, and has a name that no other one has."""
    jobs = Jobs("memory://")
    with pytest.raises(TypeError, match="a job must be an async function, got <built-in"):
        jobs.job()(print)  # type: ignore[arg-type]
    job = jobs.job()(double)
    assert repr(job) == "<Job tests.jobs.functions.double>"
    assert job.__wrapped__ is double  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"there is a job tests\.jobs\.functions\.double already"):
        jobs.job()(double)
    assert repr(jobs) == "<Jobs tests.jobs.functions.double>"


def test_annotations_are_read_at_the_start() -> None:
    """An annotation that can't travel is an error when the jobs are opened, with the job's name."""
    jobs = Jobs("memory://")

    @jobs.job(name="odd")
    async def odd(what: asyncio.Event) -> None: ...

    async def main() -> None:
        async with jobs.open():
            pass

    with pytest.raises(Exception, match="Event") as caught:
        asyncio.run(main())
    assert caught.value.__notes__ == ["its annotations can't travel: odd"]


def test_outside_of_a_job() -> None:
    """R12: Where no job runs, current_job() says so, as in a function that is simply called."""
    with pytest.raises(JobsNotRunningError, match="the function was called directly"):
        asyncio.run(fan_out())


def test_hand_over_options() -> None:
    """A delay is a number of seconds that can be waited for."""
    jobs = Jobs("memory://")
    job = jobs.job()(sleep)
    with pytest.raises(ValueError, match="delay must be at least 0 and finite, got -1"):
        asyncio.run(jobs.hand_over(job.call(1.0), delay=-1))
    with pytest.raises(JobsNotRunningError, match="install"):
        asyncio.run(jobs.hand_over(job.call(1.0)))


def test_install_takes_pumps_beside() -> None:
    """A1: The pumps of the jobs are beside those of the app, which may be added later."""
    app = Starlette()

    async def poll() -> None:
        await asyncio.Event().wait()

    install(app, pumps=[poll], jobs=Jobs("memory://"))
    with TestClient(app):
        names = [pump.name for pump in app_health(app).pumps]
    assert names[:2] == ["jobs", "jobs worker"]
    assert "poll" in names[2]
