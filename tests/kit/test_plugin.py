"""The fixture of the pytest plugin, in runs of pytest of their own."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks
from tests.kit.pytests import Outcome, run_pytest

HERE = Path(__file__).parent
PAGE = ROOT / "docs" / "testing.md"
LEAVING = (HERE / "leaving.py", HERE / "leaving_alone.py")
NOTHING = {HERE / "leaving_nothing.py": 30, HERE / "leaving_nothing_alone.py": 5}
FILES = {
    name: file
    for file in LEAVING
    for name in re.findall(r"def (test_\w+__by_\w+)", file.read_text())
}
EAGER = {"test_eager__by_test"}
HAS_EAGER = hasattr(asyncio, "eager_task_factory")

SMALL = """
import asyncio, sys
import pytest

def leave():
    async def main():
        asyncio.create_task(asyncio.sleep(10))
        await asyncio.sleep(0)
    asyncio.run(main())

def test_leaves():
    leave()

@pytest.mark.allow_leaked_tasks
def test_may():
    leave()
"""


VIRTUAL = """
import pytest
from starlette.applications import Starlette
from {plugin} import fixture
from quattro_web import install
from quattro_web.testing import AppClient, advance

app = Starlette()
install(app)

@fixture
async def client():
    async with AppClient(app) as client:
        yield client

@pytest.mark.{mark}
async def test_virtual(client):
    await advance(3600)
    assert (await client.get("/")).status_code == 404
"""


@pytest.fixture(scope="module")
def leaving(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    said: dict[str, str] = {}
    for file in LEAVING:
        outcome = run_pytest(tmp_path_factory.mktemp(file.stem), file)
        said.update(outcome.said)
    return said


@pytest.mark.parametrize("name", [name for name in FILES if HAS_EAGER or name not in EAGER])
def test_names_what_was_left_and_the_line_that_made_it(leaving: dict[str, str], name: str) -> None:
    """Whoever runs the loop, a task that is left fails its test, with the file and the line."""
    said, file = leaving[name], FILES[name]
    assert said.startswith("error"), said
    made = [(str(path), int(line)) for path, line in re.findall(r"made in \S+, (.+):(\d+)", said)]
    lines = file.read_text().splitlines()
    path, line = made[0]
    assert path == str(file)
    assert lines[line - 1].endswith(f"# left by {name.rpartition('__by_')[2]}")
    assert lines[line - 1].strip() in said
    assert len(made) == (2 if "two_of_them" in name else 1)


def test_says_what_it_has_outlived(leaving: dict[str, str]) -> None:
    """The message names the request, the lifespan or the loop that has ended before."""
    said = leaving
    assert "when GET /leaky had ended" in said["test_client__by_leaky"]
    assert "when GET /by_child had ended" in said["test_child_of_a_request__by_child"]
    assert "when the lifespan of the app had ended" in said["test_lifespan__by_lifespan"]
    assert "when its event loop ended" in said["test_run__by_test"]
    assert "when its event loop was closed" in said["test_closed_loop__by_test"]
    assert "old (old one), made in" in said["test_two_of_them__by_test"]


@pytest.mark.parametrize("file", NOTHING, ids=lambda file: file.stem)
def test_finds_nothing_where_nothing_was_left(tmp_path: Path, file: Path) -> None:
    """No test fails whose tasks end by themselves, are owned by a group, or were cancelled."""
    outcome = run_pytest(tmp_path, file)
    assert len(outcome.said) > NOTHING[file]
    assert outcome.said == dict.fromkeys(outcome.said, ""), outcome.output
    assert outcome.status == 0


def small(where: Path, *options: str, more: str = "") -> Outcome:
    file = where / "test_small.py"
    file.write_text(SMALL + more)
    return run_pytest(where, file, *options)


def test_does_nothing_unless_asked(tmp_path: Path) -> None:
    """Without the fixture nothing fails, and nothing of ours was imported."""
    more = """
def test_modules():
    ours = {"quattro_web", "quattro_core", "starlette", "fastapi"}
    assert not ours & {name.partition(".")[0] for name in sys.modules}
    assert "pytest_quattro_web" in sys.modules
    assert "site-packages" not in str(asyncio.BaseEventLoop.create_task)
"""
    outcome = small(tmp_path, more=more)
    assert outcome.said == {"test_leaves": "", "test_may": "", "test_modules": ""}, outcome.output


def test_is_on_for_all_tests_if_the_option_says_so(tmp_path: Path) -> None:
    """With the option, each test has the fixture, but for one that is marked."""
    outcome = small(tmp_path, "-o", "no_leaked_tasks=true")
    assert "left behind" in outcome.said["test_leaves"], outcome.output
    assert outcome.said["test_may"] == ""


def test_uvloop_that_comes_later(tmp_path: Path) -> None:
    """The loops of uvloop are watched as well if the test is the first to import it."""
    more = """
assert "uvloop" not in sys.modules

def test_late(no_leaked_tasks):
    import uvloop
    async def main():
        asyncio.create_task(asyncio.sleep(10))
        await asyncio.sleep(0)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
"""
    outcome = small(tmp_path, more=more)
    assert "its event loop ended" in outcome.said["test_late"], outcome.output


@pytest.mark.parametrize(
    ("mark", "plugin", "told", "other"),
    [
        ("anyio", "pytest", "def anyio_backend", "asyncio"),
        ("asyncio", "pytest_asyncio", "def pytest_asyncio_loop_factories", "anyio"),
    ],
)
def test_async_plugins_take_the_virtual_clock(
    tmp_path: Path, mark: str, plugin: str, told: str, other: str
) -> None:
    """pytest-asyncio and anyio's plugin run tests on the virtual clock, each without the other,
    with what the page has for the conftest.py."""
    [conftest] = [block.text for block in blocks(PAGE) if told in block.text]
    (tmp_path / "conftest.py").write_text(conftest)
    file = tmp_path / "test_virtual.py"
    file.write_text(VIRTUAL.format(plugin=plugin, mark=mark))
    options = ("-p", f"no:{other}", "-W", "ignore::pytest.PytestConfigWarning")
    outcome = run_pytest(tmp_path, file, "-o", "no_leaked_tasks=true", *options)
    assert len(outcome.said) == 1, outcome.output
    assert set(outcome.said.values()) == {""}, outcome.output


def test_loading_it_costs_nothing() -> None:
    """Loading the plugin imports pytest, and nothing else that is not there with it."""
    program = (
        "import sys, pytest; before = {*sys.modules}; import pytest_quattro_web; "
        "print(len({*sys.modules} - before))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "1\n", done.stderr
