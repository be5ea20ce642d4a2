"""The how-to pages have one shape: a job, its program, its test; each fits a screen or two."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.docs.live import live
from tests.docs.pages import FENCE, ROOT, blocks
from tests.support.server import PATIENCE

FOLDER = ROOT / "docs" / "how-to"
PAGES = sorted(page for page in FOLDER.glob("*.md") if page.stem != "index")
INDEX = (FOLDER / "index.md").read_text("utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_is_short_and_whole(page: Path) -> None:
    """A page is a program, what to look out for, a test of the program, and where there is more."""
    text = page.read_text("utf-8")
    found = [block for block in blocks(page) if block.language.endswith("python")]
    program, test = found[0], found[:2][-1]  # one that has a process of its own is both
    assert "install(" in program.text
    assert "with TestClient(app)" in test.text or "async def test_" in test.text
    assert "\n## Test it\n" in text
    assert text.rstrip().splitlines()[-1].startswith("More: ")
    assert len(program.text.splitlines()) <= 60
    assert len([line for line in FENCE.sub("", text).splitlines() if line]) <= 22


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_is_in_the_index(page: Path) -> None:
    """The index says of each page which job it does."""
    assert f"]({page.stem}.md) |" in INDEX


def test_partial_answer_is_saved_on_a_server() -> None:
    """R7, A5: On a real server, the stream of a language model stops when its client leaves, and
    what was said until then is saved."""
    with live("docs/how-to/llm-stream.md", "app") as server:
        url = f"http://127.0.0.1:{server.port}/answers?prompt=tea"
        with httpx.stream("GET", url, timeout=PATIENCE) as response:
            assert next(response.iter_text()) == "tea "
        saved = server.wait_for(r"(?m)^saved: (?P<words>tea.*)\n")
        assert not saved["words"].endswith("leaves")
