"""The wheel, and virtual environments that have it and nothing else of this project."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Run = Callable[[str], str]


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command with the source tree out of its reach; return what it printed."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COV_", "VIRTUAL_"))}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel to test: that of $QUATTRO_WEB_WHEEL, or one that is built now."""
    if given := os.environ.get("QUATTRO_WEB_WHEEL"):  # pragma: no branch
        return Path(given).resolve(strict=True)  # pragma: no cover - CI gives one
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", out, ROOT, cwd=out)
    (built,) = out.glob("*.whl")
    return built


def environment(where: Path, *requirements: str | Path) -> Run:
    """Make a virtual environment; return what runs a program in it, away from the source."""
    run(sys.executable, "-m", "venv", "--without-pip", where / "venv", cwd=where)
    python = where / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet")
    run(*pip, *requirements, cwd=where)
    # -I: neither the current directory nor PYTHONPATH; -W error: an import must not warn.
    return lambda program: run(python, "-I", "-W", "error", "-c", program, cwd=where)


@pytest.fixture(scope="session")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run a program where the wheel is installed without any of its dependencies."""
    return environment(tmp_path_factory.mktemp("bare"), "--no-deps", wheel)


@pytest.fixture(scope="session")
def web(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run a program where the wheel and what it depends on is installed: starlette, no fastapi."""
    return environment(tmp_path_factory.mktemp("web"), wheel)
