"""The entries of the log that the page on errors shows are those that the packages write."""

import ast
import re

import pytest

from tests.docs.pages import ROOT

LEVELS = {"info", "warning", "error", "critical"}
ENTRY = re.compile(r"^\| (?P<level>\w+) \| `(?P<entry>[^`]+)`", re.MULTILINE)
# What is filled in: the request, the name of what was run, seconds, and what was left out.
VARIABLE = re.compile(r"(?:GET|POST) /\w+|send_receipt|refresh|[\d.]*\d|…")


def entries() -> list[str]:
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    return [match["entry"] for match in ENTRY.finditer(page) if match["level"] in LEVELS]


def texts() -> list[str]:
    """Every text of the packages; one that is written in pieces is one."""
    return [
        node.value
        for package in ("quattro_core", "quattro_web")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


TEXTS = texts()


def unknown(entry: str) -> list[str]:
    """The parts of an entry that no text of the packages has."""
    parts = [part.strip() for part in VARIABLE.split(entry)]
    return [part for part in parts if not any(part in text for text in TEXTS)]


@pytest.mark.parametrize("entry", entries())
def test_entry_is_written(entry: str) -> None:
    """What is fixed of an entry is in the code, word for word."""
    assert unknown(entry) == []


def test_what_is_not_written_is_found() -> None:
    """An entry that nothing writes fails the test."""
    assert unknown("GET /report has been eaten by the dog after 30 s") != []
    assert len(entries()) >= 10
