"""No link of the README, the pages or the changelog leads nowhere."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import FENCE, PAGES, ROOT, id_of

LINK = re.compile(r"(?<!`)!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")
TABLE = re.compile(r"^```\{toctree\}\n(.*?)^```", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (?P<title>.+)$", re.MULTILINE)
FILES = [*PAGES, *(ROOT / f"{name}.md" for name in ("CHANGELOG", "CODE_OF_CONDUCT", "SECURITY"))]


def prose_of(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchor_of(title: str) -> str:
    """What a heading can be linked to by, on GitHub and on the site."""
    text = re.sub(r"[^\w\- ]", "", title.lower())
    return text.strip().replace(" ", "-")


def anchors_of(page: Path) -> set[str]:
    text = prose_of(page)
    for included in re.findall(r"^```\{include\} (\S+)", page.read_text("utf-8"), re.MULTILINE):
        text += prose_of(page.parent / included)
    return {anchor_of(match["title"]) for match in HEADING.finditer(text)}


def dead_links(page: Path, text: str) -> list[str]:
    """The targets of links to files or headings that there are not."""
    dead = []
    for match in LINK.finditer(text):
        target = match["target"]
        if re.match(r"https?://|mailto:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.is_file() or (anchor and anchor not in anchors_of(path)):
            dead.append(target)
    return dead


@pytest.mark.parametrize("page", FILES, ids=id_of)
def test_links_lead_somewhere(page: Path) -> None:
    """Each relative link is to a file that there is, and its anchor to a heading of that file."""
    assert dead_links(page, prose_of(page)) == []


@pytest.mark.parametrize("target", ["docs/nothing.md", "docs/pumps.md#nothing", "#nothing"])
def test_dead_links_are_found(target: str) -> None:
    """A link to a file or a heading that there is not is found."""
    assert dead_links(ROOT / "README.md", f"See [this]({target}).") == [target]


def test_every_page_can_be_reached() -> None:
    """Each page of the site is in a table of contents."""
    listed = {
        (page.parent / f"{line}.md").resolve()
        for page in PAGES
        for table in TABLE.findall(page.read_text("utf-8"))
        for line in table.splitlines()
        if line and not line.startswith(":")
    }
    pages = {page for page in PAGES if (ROOT / "docs") in page.parents}
    assert pages - listed == {ROOT / "docs" / "index.md"}
