"""The layers: which module may import which."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STANDARD = sys.stdlib_module_names


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(), path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            assert node.module is not None
            yield node.module


def id_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", modules("quattro_core"), ids=id_of)
def test_core_imports_the_standard_library_alone(path: Path) -> None:
    """quattro_core imports itself and the standard library."""
    assert {name.split(".")[0] for name in imports(path)} <= {*STANDARD, "quattro_core"}


# What one file alone imports.
OWN = {
    "cancel_scopes.py": {"anyio"},
    "docket_engine.py": {"docket", "opentelemetry", "redis"},
    "file.py": {"filelock", "platformdirs"},
    "fastapi.py": {"fastapi"},
    "otel.py": {"opentelemetry"},
    "postgres.py": {"asyncpg", "psycopg"},
    "prometheus.py": {"prometheus_client"},
    "pytest_quattro_web.py": {"pytest"},
    "redis.py": {"redis"},
    "spans.py": {"opentelemetry"},
    "wire.py": {"pydantic", "typing_extensions"},
}


@pytest.mark.parametrize("path", modules("quattro_web"), ids=id_of)
def test_web_imports_starlette_and_the_root_of_core(path: Path) -> None:
    """quattro_web imports itself, starlette, quattro_core at its root (but for what makes tasks,
    and for those that wait for threads), and others in one file."""
    allowed = {*STANDARD, "quattro_web", "quattro_core", "starlette"}
    allowed |= OWN.get(path.name, set())
    names = list(imports(path))
    assert {name.split(".")[0] for name in names} <= allowed
    inner = {name for name in names if name.startswith("quattro_core.")}
    inside = {f"quattro_core._{name}" for name in ("deadlock", "tasks", "threads", "workers")}
    assert inner <= inside


@pytest.mark.parametrize("path", modules("example_app"), ids=id_of)
def test_example_uses_the_public_api(path: Path) -> None:
    """example_app imports the packages at their roots or public modules, as any user would."""
    ours = {name for name in imports(path) if name.startswith(("quattro_core", "quattro_web"))}
    public = ("fastapi", "jobs", "postgres", "prometheus", "redis")
    assert ours <= {"quattro_core", "quattro_web", *(f"quattro_web.{name}" for name in public)}
