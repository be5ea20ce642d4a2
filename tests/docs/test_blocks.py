"""Every block of code in the README and the documentation does what the page says."""

from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import PAGES, blocks, execute, id_of, output_of

# What a test runs, reads or checks; the rest are directives of the pages themselves.
KNOWN = {
    "python",
    "text",
    "sh",
    "toml",
    "yaml",
    "ini",
    "dockerfile",
    "{code-block} python",  # a program in a process of its own
    "{eval-rst}",
    "{toctree}",
    "{include} ../CHANGELOG.md",
    "{include} ../CONTRIBUTING.md",
    "{include} ../README.md",
}


# A page that forks a server may do so while threads of other tests are still about.
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
# fastapi-utils 0.8 asks asyncio, which has deprecated that with Python 3.14.
@pytest.mark.filterwarnings("ignore:.*asyncio.iscoroutinefunction:DeprecationWarning")
@pytest.mark.parametrize("page", PAGES, ids=id_of)
def test_python_runs_and_prints_what_the_page_shows(
    page: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each page is one program; a text block right after a Python block is what that prints."""
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))  # no lock is held by another run
    namespace: dict[str, Any] = {"__name__": "__main__"}
    printed: str | None = None
    for block in blocks(page):
        if block.language == "python":
            execute(block, namespace)
            printed = capsys.readouterr().out
        elif block.language == "{code-block} python":
            printed = output_of(block)
        elif block.language == "text" and printed is not None:
            assert printed == block.text, f"{id_of(page)}, line {block.line}"
            printed = None


@pytest.mark.parametrize("page", PAGES, ids=id_of)
def test_no_block_is_of_an_unknown_kind(page: Path) -> None:
    """A block in a language that no test runs would be an example that nobody has tried."""
    assert {block.language for block in blocks(page)} <= KNOWN
