"""The page, in a headless Chromium, as a person sees it."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest

from example_app.store import open_store
from tests.example_app.support import PATIENCE, ROOT, Site, result, served
from tests.support.browser import CHROMIUM, MISSING, missing
from tests.support.server import free_port

ARTIFACTS = ROOT / "artifacts"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if missing():  # pragma: no cover - where it is missing
        do_without()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


def do_without() -> NoReturn:
    """Skip a test for want of a browser; where all of it has to be tested, fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(MISSING)
    pytest.skip(MISSING)


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that has asked nobody but the board, and has had no error, when the test is over."""
    context = browser.new_context(viewport={"width": 1180, "height": 760})
    context.set_default_timeout(PATIENCE * 1000)
    page = context.new_page()
    problems: list[str] = []
    hosts: set[str] = set()
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: hosts.add(httpx.URL(request.url).host))
    yield page
    context.close()
    assert not problems
    assert hosts == {"127.0.0.1"}


def targets(*pairs: tuple[str, str], slow_after: float = 30) -> str:
    """A file of targets, none of which is slow where only the machine is."""
    return "".join(
        f"[[target]]\nname = '{name}'\nurl = '{url}'\nfailures = 1\nslow_after = {slow_after}\n"
        for name, url in pairs
    )


def card(page: Any, name: str) -> Any:
    return page.locator(".card").filter(has=page.get_by_role("heading", name=name, exact=True))


@pytest.mark.parametrize(("ci", "outcome"), [("true", "Failed"), ("", "Skipped")])
def test_a_missing_browser_is_no_secret(
    monkeypatch: pytest.MonkeyPatch, ci: str, outcome: str
) -> None:
    """Without a browser these tests are skipped, but in CI they fail; either says how to get it."""
    monkeypatch.setenv("CI", ci)
    with pytest.raises(BaseException, match="apt-get install chromium") as caught:
        do_without()
    assert type(caught.value).__name__ == outcome


def test_a_state_change_arrives_without_reload(page: Any, site: Site, tmp_path: Path) -> None:
    """A target that goes down is shown as down, and up again, on the page that was open already."""
    with served(tmp_path, targets(("Shop", site.url))) as server:
        page.goto(server.url)
        page.evaluate("window.same = true")
        card(page, "Shop").locator(".badge", has_text="Up").wait_for()
        site.status = 503
        card(page, "Shop").locator(".badge", has_text="Down").wait_for()
        assert card(page, "Shop").locator(".error").inner_text() == "answered with status 503"
        assert page.title() == "1 of 1 down · Status board"
        site.status = 200
        card(page, "Shop").locator(".badge", has_text="Up").wait_for()
        assert page.evaluate("window.same")


def test_one_failure_is_not_yet_down(page: Any, site: Site, tmp_path: Path) -> None:
    """What has failed once is failing, and says how often it did; then it is down."""
    text = targets(("Shop", site.url)).replace("failures = 1", "failures = 2")
    site.status = 503
    with served(tmp_path, text, BOARD_INTERVAL="3600") as server:
        page.goto(server.url)
        card(page, "Shop").locator(".badge", has_text="Failing 1 of 2").wait_for()
        assert page.locator("#summary").inner_text() == "1 of 1 failing"
        assert card(page, "Shop").locator(".error").is_visible()
        page.get_by_role("button", name="Check Shop").click()
        card(page, "Shop").locator(".badge", has_text="Down").wait_for()


def look(page: Any) -> str:
    return str(page.locator(".card").evaluate("card => getComputedStyle(card).filter"))


def test_the_page_comes_back_by_itself(page: Any, site: Site, tmp_path: Path) -> None:
    """Without its board the page turns grey, and when the board was restarted it shows what
    happens now."""
    port = str(free_port())  # none that somebody else could be given between the two
    with served(tmp_path, targets(("Shop", site.url)), PORT=port) as server:
        page.goto(server.url)
        page.locator("#connection", has_text="live").wait_for()
        assert look(page) == "none"
        server.interrupt()
        page.locator("#connection", has_text="reconnecting").wait_for()
        assert look(page) == "grayscale(1)"
    site.status = 500
    with served(tmp_path, targets(("Shop", site.url)), PORT=port):
        card(page, "Shop").locator(".badge", has_text="Down").wait_for()
        assert page.locator("#connection").inner_text() == "live"
        assert look(page) == "none"


def test_a_board_that_says_nothing(page: Any, site: Site, tmp_path: Path) -> None:
    """A page whose connection is open, but silent for a while, turns grey too, and comes back."""
    page.clock.install()
    with served(tmp_path, targets(("Shop", site.url)), BOARD_INTERVAL="3600") as server:
        page.goto(server.url)
        card(page, "Shop").locator(".badge", has_text="Up").wait_for()
        server.process.send_signal(signal.SIGSTOP)
        page.clock.fast_forward(46_000)
        page.locator("#connection", has_text="reconnecting").wait_for()
        assert look(page) == "grayscale(1)"
        server.process.send_signal(signal.SIGCONT)
        page.locator("#connection", has_text="live").wait_for()
        assert look(page) == "none"


def test_names_are_text_and_not_markup(page: Any, site: Site, tmp_path: Path) -> None:
    """A name or URL that looks like HTML is shown letter by letter."""
    name, url = "<img src=x onerror=alert(1)>", site.url + "?q=<b>"
    with served(tmp_path, targets((name, url))) as server:
        page.goto(server.url)
        card(page, name).wait_for()
        assert page.locator(".name").inner_text() == name
        assert page.locator(".card img, .card b").count() == 0


def test_a_target_is_added_on_the_page(page: Any, site: Site, tmp_path: Path) -> None:
    """The form says what is wrong with a target; a good one appears with its first result."""
    with served(tmp_path, BOARD_INTERVAL="3600") as server:
        page.goto(server.url)
        page.get_by_text("Nothing to watch yet").wait_for()
        page.get_by_role("button", name="Add target").click()
        page.get_by_label("Name").fill("Shop")
        page.get_by_label("URL").fill("ftp://shop.test/")
        page.get_by_role("button", name="Add and check").click()
        problem = page.get_by_role("alert")
        problem.wait_for()
        assert problem.inner_text() == "url: only http and https are fetched"
        page.get_by_label("URL").fill(site.url)
        page.get_by_label("Slow after").fill("30")
        page.get_by_role("button", name="Add and check").click()
        card(page, "Shop").locator(".badge", has_text="Up").wait_for()
        assert page.get_by_text("Nothing to watch yet").count() == 0


def test_a_target_is_changed_paused_and_deleted(page: Any, site: Site, tmp_path: Path) -> None:
    """The form of a card changes its target, or says what is wrong; the card follows at once."""
    site.special["/gone"] = (404, 0)
    with served(tmp_path, targets(("Shop", site.url)), BOARD_INTERVAL="0.1") as server:
        page.goto(server.url)
        card(page, "Shop").locator(".badge", has_text="Up").wait_for()

        page.get_by_role("button", name="Edit Shop").click()
        assert page.get_by_label("Name").is_disabled()
        page.get_by_label("URL").fill("ftp://shop.test/")
        page.get_by_role("button", name="Save").click()
        page.get_by_role("alert").wait_for()
        page.get_by_label("URL").fill(f"{site.url}gone")
        page.get_by_role("button", name="Save").click()
        card(page, "Shop").locator(".badge", has_text="Down").wait_for()
        assert card(page, "Shop").locator(".url").inner_text() == f"{site.url}gone"

        page.get_by_role("button", name="Edit Shop").click()
        page.get_by_label("Paused").check()
        page.get_by_role("button", name="Save").click()
        card(page, "Shop").locator(".badge", has_text="Paused").wait_for()
        assert page.get_by_role("button", name="Check Shop").is_disabled()
        assert page.locator("#counts").inner_text() == "1 target: 1 paused"

        page.once("dialog", lambda question: question.accept())
        page.get_by_role("button", name="Edit Shop").click()
        assert page.get_by_label("Paused").is_checked()
        page.get_by_role("button", name="Delete").click()
        page.get_by_text("Nothing to watch yet").wait_for()
        assert page.locator(".card").count() == 0


def test_the_token_is_asked_for_once(page: Any, site: Site, tmp_path: Path) -> None:
    """A board with a token asks for it at the first change, and not again."""
    with served(tmp_path, targets(("Shop", site.url)), BOARD_TOKEN="secret") as server:
        page.goto(server.url)
        page.get_by_role("button", name="Edit Shop").click()
        page.get_by_label("Paused").check()
        page.get_by_role("button", name="Save").click()
        page.get_by_role("alert").wait_for()
        page.get_by_label("Token of this board").fill("secret")
        page.get_by_role("button", name="Save").click()
        card(page, "Shop").locator(".badge", has_text="Paused").wait_for()
        page.get_by_role("button", name="Edit Shop").click()
        page.get_by_label("Paused").uncheck()
        page.get_by_role("button", name="Save").click()
        card(page, "Shop").locator(".badge", has_text="Up").wait_for()


def test_targets_are_in_groups(page: Any, site: Site, tmp_path: Path) -> None:
    """Cards are below the heading of their group, groups in order, and a change moves a card."""
    text = targets(("Shop", site.url), ("Mail", site.url), ("Search", site.url))
    text = text.replace("name = 'Shop'", "name = 'Shop'\ngroup = 'Web'")
    text = text.replace("name = 'Mail'", "name = 'Mail'\ngroup = '<b>Inner</b>'")

    def shown() -> list[tuple[str, list[str]]]:
        groups = [page.locator(".group").nth(n) for n in range(page.locator(".group").count())]
        return [
            (each.locator(".group-name").inner_text(), each.locator(".name").all_inner_texts())
            for each in groups
        ]

    with served(tmp_path, text, BOARD_INTERVAL="3600") as server:
        page.goto(server.url)
        card(page, "Search").wait_for()
        assert shown() == [("", ["Search"]), ("<b>Inner</b>", ["Mail"]), ("Web", ["Shop"])]
        page.get_by_role("button", name="Edit Mail").click()
        page.get_by_label("Group").fill("Web")
        page.get_by_role("button", name="Save").click()
        page.locator(".group", has_text="Web").locator(".card", has_text="Mail").wait_for()
        assert shown() == [("", ["Search"]), ("Web", ["Shop", "Mail"])]


def test_the_badge_is_shown(page: Any, site: Site, tmp_path: Path) -> None:
    """The history of a target shows its badge."""
    with served(tmp_path, targets(("Shop & co", site.url)), BOARD_INTERVAL="3600") as server:
        page.goto(server.url)
        card(page, "Shop & co").locator(".badge", has_text="Up").wait_for()
        page.get_by_role("link", name="History").click()
        badge = page.get_by_role("dialog").get_by_alt_text("Badge")
        badge.wait_for()
        page.wait_for_function("document.querySelector('#badge img').naturalWidth > 50")


def test_a_check_may_be_asked_for(page: Any, site: Site, tmp_path: Path) -> None:
    """The button of a card has its target probed at once."""
    site.status = 500
    with served(tmp_path, targets(("Shop", site.url)), BOARD_INTERVAL="3600") as server:
        page.goto(server.url)
        card(page, "Shop").locator(".badge", has_text="Down").wait_for()
        site.status = 200
        page.get_by_role("button", name="Check Shop").click()
        card(page, "Shop").locator(".badge", has_text="Up").wait_for()


def test_the_history_is_shown(page: Any, site: Site, tmp_path: Path) -> None:
    """A click on History lists what was recorded of the target, and how long it was up."""
    site.status = 404
    with served(tmp_path, targets(("Shop", site.url)), BOARD_INTERVAL="3600") as server:
        page.goto(server.url)
        card(page, "Shop").locator(".badge", has_text="Down").wait_for()
        page.get_by_role("link", name="History").click()
        row = page.get_by_role("dialog").locator("tbody tr")
        row.wait_for()
        assert row.locator("td").all_inner_texts()[1:] == ["Down", "answered with status 404"]
        spans = page.get_by_role("dialog").locator(".span")
        assert spans.locator(".span-name").all_inner_texts() == [
            "Last 24 hours",
            "Last 7 days",
            "Last 30 days",
        ]
        assert spans.locator(".span-share").all_inner_texts() == ["0.0 % up"] * 3
        assert [spans.nth(n).locator("rect").count() for n in range(3)] == [24, 28, 30]
        assert spans.locator("rect.down").count() == 3
        assert spans.locator(".axis span:last-child").all_inner_texts() == ["now"] * 3


# What a board may watch: the usual seconds, how much they vary, and the checks that failed.
SERVICES: dict[str, tuple[float, float, range]] = {
    "Web shop": (0.08, 0.3, range(0)),
    "Payments": (0.35, 0.4, range(12, 14)),
    "Search": (0.55, 0.9, range(0)),
    "Mail gateway": (0.12, 0.2, range(55, 60)),
    "Customer portal, Europe": (0.21, 0.3, range(31, 32)),
    "Reports": (1.3, 0.2, range(40, 45)),
}


@pytest.mark.parametrize(
    ("name", "scheme", "width", "height"),
    [("light", "light", 1180, 820), ("dark", "dark", 1180, 820), ("phone", "light", 390, 844)],
)
def test_a_screenshot_is_there_to_be_looked_at(
    page: Any, site: Site, tmp_path: Path, name: str, scheme: str, width: int, height: int
) -> None:
    """The page fits the screen, without scrolling sideways, in light and dark, and on a phone."""
    urls = {service: site.url + service.lower().replace(" ", "-") for service in SERVICES}
    for service, (seconds, _, failed) in SERVICES.items():
        site.special[httpx.URL(urls[service]).path] = (503 if 59 in failed else 200, seconds)
    with ThreadPoolExecutor() as threads:  # playwright's own event loop runs in this one
        threads.submit(asyncio.run, _remember(tmp_path / "board.db")).result()
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": height})
    text = targets(*urls.items(), slow_after=1)
    for service in ("Mail gateway", "Customer portal, Europe", "Reports"):
        text = text.replace(f"name = '{service}'", f"name = '{service}'\ngroup = 'Inside'")
    with served(tmp_path, text, BOARD_INTERVAL="3600") as server:
        page.goto(server.url)
        page.locator(".uptime-caption", has_text="of 60 checks good").nth(
            len(SERVICES) - 1
        ).wait_for()
        ARTIFACTS.mkdir(exist_ok=True)
        page.screenshot(path=ARTIFACTS / f"status-board-{name}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


async def _remember(database: Path) -> None:
    """Fill a database with what the board would have seen in the last minutes."""
    chance = random.Random(1)
    results = []
    for service, (usual, spread, failed) in SERVICES.items():
        for index in range(59):
            seconds = usual * (1 + spread * chance.triangular(-0.5, 1.5, 0))
            state = "down" if index in failed else "slow" if seconds > 1 else "up"
            at = time.time() - (60 - index) * 5
            results.append(result(service, at=at, state=state, seconds=seconds))
    async with open_store(database, keep_days=1) as store:
        await store.save(results)
