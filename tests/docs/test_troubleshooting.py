"""Who looks a message up finds it: the page on troubleshooting quotes the code word for word."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `([^`]+)` \|", re.MULTILINE)
OURS = ROW.findall(PAGE.partition("## By message")[2].partition("Messages of Python itself")[0])


def texts() -> Iterator[str]:
    """Every text of the packages, with … for what is filled in."""
    for package in ("quattro_core", "quattro_web"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield re.sub(r"%(?:\.1f|g|s)|\{\w+(?:!r)?\}", "…", node.value)
                elif isinstance(node, ast.JoinedStr):
                    parts = [p.value if isinstance(p, ast.Constant) else "…" for p in node.values]
                    yield "".join(map(str, parts))


TEXTS = list(texts())
# As regular expressions, of those that have a word or two besides what is filled in.
PATTERNS = [
    re.compile(".*".join(map(re.escape, text.split("…"))))
    for text in TEXTS
    if "…" in text and len(re.findall(r"[a-z]{2,}", text)) >= 2
]


def unknown(message: str) -> list[str]:
    """The parts of a message that no text of the packages has; a text may be put together."""
    parts = [part.strip() for part in re.split(r"…|(?<=\w): ", message)]
    return [
        part
        for part in parts
        if not any(part in text for text in TEXTS)
        and not any(pattern.fullmatch(part) for pattern in PATTERNS)
    ]


@pytest.mark.parametrize("message", OURS)
def test_message_is_one_of_ours(message: str) -> None:
    """Each message of the table is in the code, with what differs left out."""
    assert unknown(message) == []


def test_invented_message_is_found() -> None:
    """A message that nothing raises fails the test; and there are messages."""
    assert unknown("the dog has eaten … of your tasks") == ["the dog has eaten", "of your tasks"]
    assert len(OURS) > 15
