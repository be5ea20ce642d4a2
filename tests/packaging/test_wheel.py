"""What is in the wheel, and what it says of itself."""

import tomllib
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(300)  # the first test builds the wheel


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


@pytest.fixture(scope="module")
def metadata(wheel: Path, names: list[str]) -> Message:
    (path,) = (name for name in names if name.endswith(".dist-info/METADATA"))
    with zipfile.ZipFile(wheel) as archive:
        return message_from_bytes(archive.read(path))


def test_holds_the_two_packages_alone(names: list[str]) -> None:
    """The wheel installs quattro_core, quattro_web and the plugin of pytest: no tests, no docs."""
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {
        "pytest_quattro_web.py",
        "quattro_core",
        "quattro_web",
    }


def test_holds_every_module(names: list[str]) -> None:
    """No module of the source tree is missing in the wheel, and none is in it that is not there."""
    sources = {
        path.relative_to(ROOT).as_posix()
        for package in ("quattro_core", "quattro_web")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc" and path.parent.name != "plugin"
    }
    installed = {name for name in names if ".dist-info/" not in name}
    assert installed == sources | {"pytest_quattro_web.py"}


@pytest.mark.parametrize("package", ["quattro_core", "quattro_web"])
def test_is_typed(names: list[str], package: str) -> None:
    """Type checkers use the annotations of both packages."""
    assert f"{package}/py.typed" in names


def test_carries_the_licence(names: list[str], metadata: Message) -> None:
    """The licence is in the wheel, and named by its metadata."""
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert metadata["License-Expression"] == "Apache-2.0"


def test_depends_on_starlette_alone(metadata: Message) -> None:
    """Nothing but starlette, the anyio it needs, filelock and platformdirs comes along unless asked
    for."""
    requirements = metadata.get_all("Requires-Dist") or []
    assert [r for r in requirements if "extra ==" not in r] == [
        "anyio>=4.10",
        "filelock>=3.20.3",
        "platformdirs>=4.12",
        "starlette>=0.46",
    ]
    extras = ["asyncpg", "cron", "docket", "fastapi", "opentelemetry", "prometheus", "psycopg"]
    extras.append("redis")
    assert metadata.get_all("Provides-Extra") == extras
    assert metadata["Requires-Python"] == ">=3.11"


def test_version_is_said_once(metadata: Message) -> None:
    """The version is that of pyproject.toml, and the changelog knows it."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert metadata["Version"] == version
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text()
