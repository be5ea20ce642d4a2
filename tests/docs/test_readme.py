"""What the README and the first page say of their own examples is so."""

import asyncio
import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp

from tests.docs.pages import FENCE, ROOT, blocks, namespace_of
from tests.docs.serving import run, served
from tests.docs.shop import Shop
from tests.support.asgi import Exchange, get

README, INDEX = ROOT / "README.md", ROOT / "docs" / "index.md"


@pytest.fixture
def told() -> list[str]:
    """What became of the calls to shops."""
    return []


@pytest.fixture
def readme(told: list[str]) -> dict[str, Any]:
    """All that the README's blocks define, with shops that tell what became of their calls."""
    namespace = namespace_of(README)
    shop = Shop(told)
    namespace.update(ask_price=shop.ask_price, count_search=shop.count_search)
    return namespace


def ask(app: ASGIApp, path: str, told: list[str], *, wait: float) -> Exchange:
    """Make a request; note its end among what is told; wait a while, and stop the server."""

    async def main() -> Exchange:
        async with served(app):
            exchange = await get(app, path)
            told.append(f"response {exchange.status}")
            await asyncio.sleep(wait)
        return exchange

    return run(main)


def test_both_answer(readme: dict[str, Any], told: list[str]) -> None:
    """The leaky handler and ours give the same answer, as long as nothing fails."""
    for app in (readme["leaky"], readme["app"]):
        exchange = ask(app, "/prices?shops=corner,market", told, wait=10)
        assert json.loads(exchange.body) == [9.99, 9.99]
    assert told == 2 * ["corner: answered", "market: answered", "response 200", "counted"]


def test_leaky_calls_go_on_after_the_response(readme: dict[str, Any], told: list[str]) -> None:
    """When one shop fails, the leaky handler's other calls go on behind the client's back."""
    ask(readme["leaky"], "/prices?shops=closed,corner", told, wait=10)
    assert told == ["response 503", "corner: answered", "counted"]


def test_calls_end_before_the_response(readme: dict[str, Any], told: list[str]) -> None:
    """R2, R4: When one shop fails, the other calls have ended before the client gets its 503."""
    ask(readme["app"], "/prices?shops=closed,corner", told, wait=10)
    assert told == ["corner: cancelled", "response 503", "counted"]


def test_leaky_failure_is_not_told(
    readme: dict[str, Any], told: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """When counting fails, the leaky handler answers 200, and Python mentions it later."""
    ask(readme["leaky"], "/prices?shops=uncountable", told, wait=10)
    assert told == ["uncountable: answered", "response 200"]
    [record] = [
        record for record in caplog.records if "can't count" in caplog.handler.format(record)
    ]
    assert record.getMessage().split("\n")[0] == "Task exception was never retrieved"


def test_failure_is_logged_with_its_request(
    readme: dict[str, Any], told: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A5: When counting fails, the log has the traceback and the request it came from."""
    ask(readme["app"], "/prices?shops=uncountable", told, wait=10)
    assert told == ["uncountable: answered", "response 200"]
    [record] = [record for record in caplog.records if record.name == "quattro_web"]
    assert record.levelno == logging.ERROR
    assert "GET /prices" in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)


def test_leaky_count_is_lost_at_shutdown(readme: dict[str, Any], told: list[str]) -> None:
    """When the server stops, what the leaky handler has started is lost half-way."""
    ask(readme["leaky"], "/prices?shops=corner", told, wait=0)
    assert told == ["corner: answered", "response 200"]


def test_handed_over_work_is_finished_at_shutdown(readme: dict[str, Any], told: list[str]) -> None:
    """A5: When the server stops, what was handed to the app is finished first."""
    ask(readme["app"], "/prices?shops=corner", told, wait=0)
    assert told == ["corner: answered", "response 200", "counted"]


def test_first_program_runs_alone() -> None:
    """The README's first program is whole: it needs no other block, and no module of yours."""
    namespace: dict[str, Any] = {"__name__": "shop"}
    first = next(block for block in blocks(README) if block.language == "python")
    exec(first.text, namespace)

    async def main() -> tuple[Exchange, Exchange]:
        async with served(namespace["app"]):
            paths = ("/prices?shops=corner,market", "/prices?shops=corner,closed")
            good, bad = [await get(namespace["app"], path) for path in paths]
        return good, bad

    good, bad = run(main)
    assert json.loads(good.body) == [9.99, 9.99]
    assert bad.status == 503


@pytest.mark.parametrize("tab", [0, 1], ids=["FastAPI", "Starlette"])
def test_first_page_is_whole_in_each_tab(tab: int) -> None:
    """Each tab of the first page is a program of its own, and both answer the same."""
    namespace: dict[str, Any] = {"__name__": "shop"}
    exec([block for block in blocks(INDEX) if block.language == "python"][tab].text, namespace)
    exchange = run(lambda: get(namespace["app"], "/prices"))
    assert json.loads(exchange.body) == [9.99, 9.99]


def prose_of(page: Path) -> str:
    """The words of a page that are read one after the other: no code, no address."""
    text = FENCE.sub("", page.read_text("utf-8"))
    return re.sub(r"\]\([^)]*\)", "]", text)


def sentences(page: Path) -> list[str]:
    """Every sentence, heading, item and cell of a page."""
    lines = re.split(r"\n|(?<!`) \| |(?<=[.!?:;])\s", prose_of(page))
    return [line.strip("-*#| ") for line in lines if line.strip("-*#| ")]


@pytest.mark.parametrize("page", [README, INDEX], ids=["README", "index"])
def test_sentences_are_short(page: Path) -> None:
    """No sentence of the first two pages has more than 25 words."""
    assert [each for each in sentences(page) if len(each.split()) > 25] == []


def test_readme_is_read_in_three_minutes() -> None:
    """The README has at most 750 words besides its code, which are three minutes."""
    words = [word for each in sentences(README) for word in each.split()]
    assert len([word for word in words if re.search(r"\w", word)]) <= 750
