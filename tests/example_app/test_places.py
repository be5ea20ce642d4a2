"""Probes from several places: remote children of a request, where the board has places."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

import example_app.state
from example_app.settings import Settings
from tests.example_app.support import PATIENCE, ROOT, Site, running, served
from tests.jobs.conftest import redis

pytestmark = pytest.mark.anyio

__all__ = ["redis"]

A_TARGET = '[[target]]\nname = "a"\nurl = "{url}"\nslow_after = 30\n'
KEY = "k" * 32


def needs_docket() -> None:
    pytest.importorskip("docket", reason="pydocket is missing: pip install 'quattro-web[docket]'")


async def test_there_are_none_by_default(
    settings: Settings, web: dict[str, int | Exception]
) -> None:
    """Without BOARD_JOBS there are no places, and nobody needs docket."""
    async with running(settings) as board:
        answer = await board.client.get("/check/a/places")
        assert (answer.status_code, answer.json()["detail"]) == (
            404,
            "BOARD_JOBS is not set: no places",
        )
    code = "import sys, example_app.app; print({'docket', 'quattro_web.jobs'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


async def test_places_of_one_process(
    settings: Settings, web: dict[str, int | Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """D1: With memory:// each place probes a target in this process, and says what it has seen."""
    needs_docket()
    monkeypatch.setattr("example_app.places.new_client", vars(example_app.state)["new_client"])
    web["b.test"] = 503
    settings = replace(settings, jobs="memory://", places=("oslo", "rome"), jobs_key=KEY)
    async with running(settings) as board:
        for name, state in (("a", "up"), ("b", "down")):
            seen = (await board.client.get(f"/check/{name}/places")).json()
            assert {place: each["state"] for place, each in seen.items()} == {
                "oslo": state,
                "rome": state,
            }
        assert (await board.client.get("/check/c/places")).status_code == 404


@contextmanager
def worker(place: str, environ: dict[str, str]) -> Iterator[None]:
    """Run the worker of a place, as a person starts it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "quattro_web.jobs", "worker", "example_app.worker:jobs"],
        cwd=ROOT,
        env={**os.environ, **environ, "BOARD_PLACE": place},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert next(line for line in process.stdout if "the worker takes jobs" in line)
        yield
        process.terminate()
        output, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, output
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_places_elsewhere(tmp_path: Path, site: Site, redis: str) -> None:
    """D3: A place with a worker says what it has seen, and one without has seen nothing."""
    needs_docket()
    names = [f"{name}-{uuid.uuid4().hex[:8]}" for name in ("oslo", "rome")]
    environ = {"BOARD_JOBS": redis, "BOARD_PLACES": ",".join(names), "BOARD_JOBS_KEY": KEY}
    with (
        worker(names[0], environ),
        served(tmp_path, A_TARGET.format(url=site.url), **environ) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        seen = client.get("/check/a/places").json()
    assert seen[names[0]]["state"] == "up"
    assert seen[names[1]] is None


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"BOARD_JOBS": "http://cache"}, "engine is not a Redis URL"),
        ({"BOARD_JOBS": "memory://", "BOARD_JOBS_KEY": "s3cret"}, "at least 32 bytes, got 6"),
        ({"BOARD_JOBS": "memory://", "BOARD_PLACES": "a,*"}, "name must not contain any of"),
    ],
)
def test_settings_that_can_not_be_used(environ: dict[str, str], said: str, tmp_path: Path) -> None:
    """O3: A mistake in the settings of the places is told in one line, without the key."""
    needs_docket()
    done = subprocess.run(
        [sys.executable, "-m", "example_app"],
        cwd=ROOT,
        env={
            **os.environ,
            "PORT": "0",
            "BOARD_DATABASE": str(tmp_path / "board.db"),
            "PYTHONASYNCIODEBUG": "",
            **environ,
        },
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("status board: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert "s3cret" not in done.stderr
    assert "s3cret" not in repr(Settings.from_environment(environ))
