"""Every block of code in the README and the documentation does what the page says."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import PAGES, ROOT, blocks, execute

KNOWN = {
    "python",
    "sh",
    "text",
    "{eval-rst}",
    "{toctree}",
    "{include} ../CHANGELOG.md",
}


def id_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=id_of)
def test_python_runs_and_prints_what_the_page_shows(
    page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each page is one program; a text block right after a Python block is what that prints."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    printed: str | None = None
    for block in blocks(page):
        if block.language == "python":
            execute(block, namespace)
            printed = capsys.readouterr().out
        elif block.language == "text" and printed is not None:
            assert printed == block.text, f"{id_of(page)}, line {block.line}"
            printed = None


@pytest.mark.parametrize("page", PAGES, ids=id_of)
def test_no_block_is_of_an_unknown_kind(page: Path) -> None:
    """A block in a language that no test runs would be an example that nobody has tried."""
    assert {block.language for block in blocks(page)} <= KNOWN


def test_commands_of_the_readme_exist() -> None:
    """Each line of the README's shell blocks is a target of the Makefile."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):.*## ", makefile, re.MULTILINE))
    lines = [
        line.partition("#")[0].split()
        for block in blocks(ROOT / "README.md")
        if block.language == "sh"
        for line in block.text.splitlines()
    ]
    assert ["make", "run"] in lines
    assert ["make", "test"] in lines
    for command, *words in lines:
        assert command == "make"
        assert {*words} <= targets
