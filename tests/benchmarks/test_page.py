"""The page of the benchmarks has no figure that is not of the committed result."""

import json
import re
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from benchmarks.page import MARKED, PAGE, RESULT, STATIC, filled, goals_of, plots, summary
from tests.benchmarks.test_run import ROWS


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def test_tables(page: str, result: dict[str, Any]) -> None:
    """What is between the markers of the page is what the result says."""
    assert page == filled(page, result), "run: python -m benchmarks.page"


def test_everything_is_there(page: str, result: dict[str, Any]) -> None:
    """The page has each table of the result, and the result has each table that there is."""
    shown = [match["key"] for match in MARKED.finditer(page)]
    assert sorted(shown) == sorted([*result["tables"], "answers", "environment", "goals"])
    made = [key for tables in ROWS.values() for key in tables]
    assert list(result["tables"]) == made
    assert result["environment"]["rounds"] != "tiny"


def test_what_a_user_wants_to_know_comes_first(page: str) -> None:
    """The page begins with answers for users, and ends with the goals of those who work on it."""
    shown = [match["key"] for match in MARKED.finditer(page)]
    assert shown[0] == "answers"
    assert shown[-1] == "goals"


def test_nothing_by_hand(page: str) -> None:
    """Around the markers there is no table, and no ratio."""
    prose = MARKED.sub("", page)
    assert "| " not in prose
    assert re.findall(r"(?<!Python )\d\.\d\d", prose) == []


def test_plots(page: str, result: dict[str, Any]) -> None:
    """The plots are those of the result; each is on the page."""
    drawn = plots(result)
    assert sorted(drawn) == sorted(path.name for path in STATIC.glob("benchmarks-*.svg"))
    for name, image in drawn.items():
        assert (STATIC / name).read_text(encoding="utf-8") == image, (
            "run: python -m benchmarks.page"
        )
        assert f"](_static/{name})" in page


def test_legible(result: dict[str, Any]) -> None:
    """A plot is an image of its own: with a title, a background, and colours for the dark."""
    for key, table in result["tables"].items():
        if not table["bars"]:
            continue
        image = plots({"tables": {key: table}})[f"benchmarks-{key}.svg"]
        root = ET.fromstring(image)
        texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
        assert {bar["label"] for bar in table["bars"]} <= set(texts)
        assert table["title"] in (root[0].text or "")
        assert "prefers-color-scheme: dark" in image


def test_summary(result: dict[str, Any]) -> None:
    """The sentence above the goals counts those that are met, and those that are not."""
    goals = goals_of(result)
    met = sum(goal.verdict.startswith("met") for goal in goals)
    numbers = [int(number) for number in re.findall(r"\d+", summary(goals))]
    assert numbers[:2] == [met, len(goals)] or (met == len(goals) and numbers == [met])
