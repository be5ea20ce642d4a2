"""The files that other programs read, such as workflows and images, agree with the project."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from example_app.app import GRACE
from example_app.settings import Settings
from tests.packaging.test_pins import LINES, VERSIONS

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
EXAMPLE = ROOT / "example_app"
COMPOSE = sorted(EXAMPLE.glob("compose*.yaml"))
GROUPS: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    return document


def jobs_in(path: Path) -> dict[str, dict[str, Any]]:
    jobs: dict[str, dict[str, Any]] = read(path)["jobs"]
    return jobs


def made_by(job: dict[str, Any]) -> Iterator[str]:
    """Every target of make that a job calls, those of its matrix included."""
    for step in job["steps"]:
        for line in step.get("run", "").splitlines():
            for call in re.findall(r"\bmake ([^)|;&]*)", line):
                for word in shlex.split(call):
                    if word == "$TARGET":
                        yield from job["strategy"]["matrix"]["target"]
                    elif "=" not in word and not word.startswith("-"):
                        yield word


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_call_targets_that_there_are(path: Path) -> None:
    """Each job that runs something calls make, with targets of the Makefile."""
    for job in jobs_in(path).values():
        called = set(made_by(job))
        assert called <= TARGETS
        assert called or not any("run" in step for step in job["steps"])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_are_bounded_and_have_few_rights(path: Path) -> None:
    """A job ends in bounded time, uses actions by their commit, and keeps no credentials."""
    assert read(path)["permissions"] in ({}, {"contents": "read"})
    for job in jobs_in(path).values():
        assert job["timeout-minutes"] <= 60
        for step in job["steps"]:
            if uses := step.get("uses"):
                assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", uses)
                if uses.startswith("actions/checkout@"):
                    assert step["with"] == {"persist-credentials": False}


def test_an_action_is_the_same_one_everywhere() -> None:
    """All workflows use the same commit of an action."""
    text = "".join(path.read_text("utf-8") for path in WORKFLOWS)
    used = set(re.findall(r"uses: (\S+)@(\S+ # v[\d.]+)$", text, re.MULTILINE))
    assert len(used) == len({name for name, _ in used})


def test_every_python_is_tested() -> None:
    """Each change is tested on all Pythons of the classifiers, newest versions on both ends."""
    [*_, newest] = VERSIONS
    pythons = {
        path.stem: jobs_in(path)[job]["strategy"]["matrix"]["python"]
        for path, job in ((WORKFLOWS[0].with_name(f"{n}.yml"), n) for n in ("test", "newest"))
    }
    assert pythons == {"test": VERSIONS, "newest": [VERSIONS[0], newest]}


def test_only_the_upload_may_speak_for_the_project() -> None:
    """The release builds without rights, and the job that publishes runs nothing of its own."""
    jobs = jobs_in(ROOT / ".github" / "workflows" / "release.yml")
    assert jobs["build"]["permissions"] == {"contents": "read"}
    publish = jobs["publish"]
    assert publish["permissions"] == {"id-token": "write"}
    assert publish["environment"] == "pypi"
    assert not any("run" in step for step in publish["steps"])


def test_hooks_have_the_pinned_versions() -> None:
    """The hooks of pre-commit run the versions of constraints.txt."""
    [repo] = read(ROOT / ".pre-commit-config.yaml")["repos"]
    wanted = [each for hook in repo["hooks"] for each in hook["additional_dependencies"]]
    assert wanted
    assert {*wanted} <= {*LINES}


def test_the_documentation_is_built_as_here() -> None:
    """Read the Docs installs the group `docs` with the pins, and takes warnings for errors."""
    config = read(ROOT / ".readthedocs.yaml")
    assert config["build"]["tools"]["python"] in VERSIONS
    words = shlex.split(config["build"]["jobs"]["install"][-1])
    for option, value in (("--constraint", "constraints.txt"), ("--group", "docs")):
        assert words[words.index(option) + 1] == value
    assert "docs" in GROUPS["dependency-groups"]
    assert (ROOT / config["sphinx"]["configuration"]).is_file()
    assert config["sphinx"]["fail_on_warning"] is True


def instructions() -> list[tuple[str, str]]:
    lines = (EXAMPLE / "Dockerfile").read_text("utf-8").splitlines()
    parts = [line.partition(" ") for line in lines if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in parts]


def test_the_image_has_what_it_copies_and_installs() -> None:
    """The image copies what there is and what .dockerignore lets through, and installs what the
    project calls so, with the pins."""
    ignored = (ROOT / ".dockerignore").read_text("utf-8").split()
    for word, rest in instructions():
        if word == "COPY":
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists()
                assert f"!{source}" in ignored
    [install] = [rest for word, rest in instructions() if rest.startswith("pip install")]
    words = shlex.split(install)
    assert words[words.index("--constraint") + 1] == "constraints.txt"
    assert words[words.index("--group") + 1] in GROUPS["dependency-groups"]
    extras = words[-1].removeprefix(".[").removesuffix("]").split(",")
    assert {*extras} <= {*GROUPS["project"]["optional-dependencies"]}


def test_the_image_runs_the_board_itself() -> None:
    """Signals reach the board: no shell is around it, and it is not run as root."""
    words = [word for word, _ in instructions()]
    [command] = [rest for word, rest in instructions() if word == "CMD"]
    assert json.loads(command) == ["python", "-m", "example_app"]
    assert words.index("USER") < words.index("CMD")
    assert dict(instructions())["USER"] == "nobody"
    [python] = re.findall(r"^python:([\d.]+)-slim$", dict(instructions())["FROM"])
    assert python in VERSIONS


def known_variables() -> set[str]:
    source = (EXAMPLE / "settings.py").read_text("utf-8")
    source += (EXAMPLE / "worker.py").read_text("utf-8")
    return {*re.findall(r'"((?:BOARD_)?[A-Z_]+)"', source)}


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_services_can_be_started(path: Path) -> None:
    """A service has an image or a Dockerfile, waits for services that there are and that tell
    their health, and sets variables that the board reads; what is stopped has time to end."""
    services: dict[str, Any] = read(path)["services"]
    for name, service in services.items():
        if build := service.get("build"):
            context = (path.parent / build["context"]).resolve()
            assert context == ROOT
            assert (context / build["dockerfile"]).is_file()
            assert int(service["stop_grace_period"].removesuffix("s")) > (GRACE.total or 0)
        for other, wait in service.get("depends_on", {}).items():
            assert wait == {"condition": "service_healthy"}
            assert "test" in services[other]["healthcheck"]
        if "image" not in service:
            assert {*service["environment"]} <= known_variables()
        assert service.keys() & {"build", "image"} or name in read(COMPOSE[0])["services"]


def test_variants_have_their_lock_and_places_elsewhere() -> None:
    """One variant has the lock in PostgreSQL; in the other one the board and its places share a
    Redis, and each place of the board has a worker."""
    board = {
        path.stem: Settings.from_environment(read(path)["services"]["board"]["environment"])
        for path in COMPOSE
    }
    assert not board["compose"].lock
    assert board["compose.postgres"].lock.startswith("postgresql://")
    redis = board["compose.redis"]
    assert redis.lock == redis.jobs == "redis://redis"
    services = read(EXAMPLE / "compose.redis.yaml")["services"]
    workers = {
        service["environment"]["BOARD_PLACE"]: Settings.from_environment(service["environment"])
        for service in services.values()
        if "BOARD_PLACE" in service.get("environment", {})
    }
    assert workers.keys() == {*redis.places}
    assert {each.jobs for each in workers.values()} == {redis.jobs}
