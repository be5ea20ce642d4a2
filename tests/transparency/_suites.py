"""The test suites of Starlette and FastAPI, of the versions that are installed here."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import quattro_core
import quattro_web

ROOT = Path(__file__).parents[2]
PLUGIN = Path(__file__).parent / "around.py"
# All that is fetched and installed for it; a folder of git's ignorance that `make clean` removes.
# The pins are those of `make`; without them it is the newest of everything.
PINNED = bool(os.environ.get("PIP_CONSTRAINT"))
NAME = "transparency" if PINNED else "transparency-newest"
CACHE = ROOT / ".venvs" / f"{NAME}-{sys.version_info.major}.{sys.version_info.minor}"
PYTHON = CACHE / "venv" / "bin" / "python"

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
REQUIREMENTS: list[str] = PYPROJECT["dependency-groups"]["transparency"]

Outcomes = dict[str, str]


class UnavailableError(Exception):
    """The suites, or what they need, can't be fetched or installed."""


@dataclass(frozen=True)
class Suite:
    """One project's own tests."""

    name: str
    ignore: tuple[str, ...] = ()
    at_least: int = 0  # as many tests have to pass; fewer means that the suite was not really run
    version: str = field(default="", init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "version", version(self.name))

    @property
    def folder(self) -> Path:
        return CACHE / f"{self.name}-{self.version}"

    def fetch(self) -> None:
        """Unpack the source distribution, which holds the tests."""
        if self.folder.exists():
            return
        wanted = f"{self.name}=={self.version}"
        _pip("download", "--no-deps", "--no-binary", self.name, "--dest", str(CACHE), wanted)
        with tarfile.open(f"{self.folder}.tar.gz") as archive:
            # Python 3.11.4 came with filters; before, all is trusted that a tar file says.
            if hasattr(tarfile, "data_filter"):
                archive.extraction_filter = tarfile.data_filter
            archive.extractall(CACHE)
        if not (self.folder / "tests").is_dir():
            msg = f"the source distribution of {wanted} holds no tests"
            raise UnavailableError(msg)

    def run(self, mode: str, *tests: str) -> Outcomes:
        """Run the suite, or some files of it, and tell how each test came out."""
        outcomes = CACHE / f"{self.name}-{mode}.json"
        outcomes.unlink(missing_ok=True)
        options = ["-q", "--tb=short", "-p", "no:cacheprovider", "-p", "around", "--around", mode]
        ignored = [f"--ignore={path}" for path in self.ignore]
        done = subprocess.run(
            [str(PYTHON), "-m", "pytest", *options, f"--outcomes={outcomes}", *ignored, *tests],
            cwd=self.folder,
            env=_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        outcomes.with_suffix(".log").write_text(done.stdout)
        if not outcomes.exists():
            msg = f"{self.name}'s tests did not run:\n{done.stdout[-4000:]}"
            raise RuntimeError(msg)
        by_test: Outcomes = json.loads(outcomes.read_text())
        return by_test


def suites() -> list[Suite]:
    return [
        Suite("starlette", at_least=500),
        Suite("fastapi", ("tests/benchmarks", "tests/memory_benchmarks"), at_least=2000),
    ]


def prepare(*wanted: Suite) -> None:
    """Fetch the suites, and make the environment that they run in."""
    CACHE.mkdir(parents=True, exist_ok=True)
    if not PYTHON.exists():
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", CACHE / "venv"], check=True)
    pinned = [f"{suite.name}=={suite.version}" for suite in suites()]
    stamp = CACHE / "installed.txt"
    pins = (ROOT / "constraints.txt").read_text() if PINNED else ""
    installed = "\n".join([*pinned, *REQUIREMENTS, pins])
    if not stamp.exists() or stamp.read_text() != installed:
        _pip("install", *pinned, *REQUIREMENTS)
        stamp.write_text(installed)
    for suite in wanted:
        suite.fetch()
    # Copies, since this project's own `tests` must not get in the way of theirs.
    ours = CACHE / "ours"
    shutil.rmtree(ours, ignore_errors=True)
    for package in (quattro_core, quattro_web):
        folder = Path(str(package.__file__)).parent
        shutil.copytree(folder, ours / folder.name)
    shutil.copy(PLUGIN, ours)


def file_of(test: str) -> str:
    return re.split("::", test, maxsplit=1)[0]


def _pip(*arguments: str) -> None:
    pip = [sys.executable, "-m", "pip", "--python", str(PYTHON)]
    command = [*pip, "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        msg = f"pip {arguments[0]} failed:\n{done.stderr[-2000:]}"
        raise UnavailableError(msg)


def _environment() -> dict[str, str]:
    """Return an environment without what changes a test run: ours may itself be one."""
    private = ("PYTEST", "PYTHON", "COV")
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(private)
    }
    return environment | {"PYTHONPATH": str(CACHE / "ours"), "PYTHONDONTWRITEBYTECODE": "1"}
