"""The fenced blocks of the Markdown pages, and what runs them."""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
PAGES = [page for page in PAGES if "_build" not in page.parts]
FENCE = re.compile(
    r"^(?P<fence>`{3,})(?P<language>[^\n`]*)\n(?P<text>.*?)^(?P=fence)\n", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line before its first one."""

    page: Path
    language: str
    text: str
    line: int


def id_of(page: Path) -> str:
    """The name of a page in the reports of pytest."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> Iterator[Block]:
    """Every fenced block of a page, in order."""
    source = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(source):
        line = source.count("\n", 0, match.start("text"))
        yield Block(page, match["language"].strip(), match["text"], line)


def blocks_in(language: str) -> list[Block]:
    """Every block in a language, of all pages."""
    return [block for page in PAGES for block in blocks(page) if block.language == language]


def execute(block: Block, namespace: dict[str, Any]) -> None:
    """Run a block of Python; tracebacks show the line of the page."""
    code = compile("\n" * block.line + block.text, block.page, "exec", dont_inherit=True)
    exec(code, namespace)


def output_of(block: Block) -> str:
    """Run a block in a process of its own, and return what it prints."""
    command = [sys.executable, "-c", block.text]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def namespace_of(page: Path) -> dict[str, Any]:
    """Run all Python blocks of a page, as one program, and return what they have defined."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.language == "python":
            execute(block, namespace)
    return namespace
