"""The page of the task tree, in a headless Chromium, as a person sees it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.browser import CHROMIUM, MISSING, missing
from tests.support.server import ROOT, Server, free_port, uvicorn
from tests.support.wire import Wire

ARTIFACTS = ROOT / "artifacts"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if missing():  # pragma: no cover - where it is missing
        if os.environ.get("CI") == "true":
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1100, "height": 800})
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
    yield page
    context.close()
    assert not wrong


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(uvicorn("tests.tree.app:app", "--timeout-graceful-shutdown", "1")) as server:
        with Wire(server.port) as stuck, Wire(server.port) as other:
            stuck.ask("/users/ada")
            server.wait_for("is stuck")
            other.ask("/users/bob")
            server.wait_for("(?s)is stuck.*is stuck")
            yield server


def open_page(page: Any, server: Server) -> None:
    page.goto(f"http://127.0.0.1:{server.port}/tasks/")
    page.locator("summary", has_text="GET /users/ada").wait_for()


def test_tree(page: Any, server: Server) -> None:
    """O1: The page shows each request with its children, and marks what does not move."""
    open_page(page, server)
    ada = page.locator("details", has_text="GET /users/ada")
    ada.get_by_text("stuck_child").wait_for()
    assert "/users/{name}" in ada.inner_text()
    assert "app.py:" in ada.inner_text()
    assert page.locator("details", has_text="poll").count() == 1
    ada.locator(".unmoved", has_text="stuck_child").wait_for()
    assert page.locator(".unmoved", has_text="ticking_child").count() == 0
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTIFACTS / "tasks.png")
    page.emulate_media(color_scheme="dark")
    page.screenshot(path=ARTIFACTS / "tasks-dark.png")
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.screenshot(path=ARTIFACTS / "tasks-phone.png")


def test_text_of_clients(page: Any, server: Server) -> None:
    """O3: What looks like HTML is shown letter by letter."""
    open_page(page, server)
    page.get_by_text("<b>ticks</b>").first.wait_for()


def test_filter(page: Any, server: Server) -> None:
    """O1: It shows what one looks for, or only what is marked, and keeps what was closed closed."""
    open_page(page, server)
    page.get_by_role("searchbox").fill("/users/bob")
    page.locator("h2", has_text="Requests 1 of 3").wait_for()
    assert page.locator("summary", has_text="GET /users/ada").count() == 0
    page.get_by_role("searchbox").fill("")
    page.get_by_label("only what is marked").check()
    page.locator("summary", has_text="GET /users/ada").wait_for()
    assert page.locator("summary", has_text="poll").count() == 0
    page.locator("summary", has_text="GET /users/ada").click()
    shown = page.locator("#state").inner_text()
    page.wait_for_function(
        "before => document.getElementById('state').innerText != before", arg=shown
    )
    assert page.locator("details", has_text="GET /users/ada").get_attribute("open") is None


def test_pause(page: Any, server: Server) -> None:
    """O1: It stands still while one reads."""
    open_page(page, server)
    page.get_by_role("button", name="Pause").click()
    page.locator("#state", has_text="paused").wait_for()
    shown = page.locator("main").inner_text()
    with Wire(server.port) as wire:
        assert wire.get("/sign-up").status == 200
    other = page.context.new_page()  # which gets the same events
    open_page(other, server)
    other.locator("details", has_text="handed over by GET /sign-up").first.wait_for()
    assert page.locator("main").inner_text() == shown
    page.get_by_role("button", name="Go on").click()
    page.locator("details", has_text="handed over by GET /sign-up").first.wait_for()


def test_server_that_has_gone(browser: Any) -> None:
    """O1: The page says when the app does not answer, and goes on when it does again."""
    context = browser.new_context()
    page = context.new_page()
    # A port that nobody else could be given between the two.
    command = [*uvicorn("tests.tree.app:app"), "--port", str(free_port())]
    with Server(command) as server:
        page.goto(f"http://127.0.0.1:{server.port}/tasks/")
        page.locator("#state", has_text="process").wait_for()
    page.locator("#state", has_text="the app does not answer").wait_for()
    with Server(command):
        page.locator("#state", has_text="process").wait_for()
    context.close()
