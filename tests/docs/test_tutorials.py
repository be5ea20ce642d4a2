"""What the tutorials and the page on leaks say of their own programs is so."""

import asyncio
import re
from typing import Any

import pytest

from tests.docs.pages import ROOT, blocks, namespace_of
from tests.docs.serving import run, served
from tests.support.asgi import Exchange, Socket, get


@pytest.fixture(params=["tutorial-fastapi", "tutorial-starlette"])
def tutorial(request: pytest.FixtureRequest) -> dict[str, Any]:
    """All that the blocks of a tutorial define."""
    return namespace_of(ROOT / "docs" / f"{request.param}.md")


def test_nothing_is_left_of_a_failed_request(tutorial: dict[str, Any]) -> None:
    """When the client has its 404, no call of the tutorial's goes on."""

    async def main() -> None:
        exchange = await get(tutorial["app"], "/quotes?carriers=snail,nobody,hare")
        assert exchange.status == 404
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main)


def test_stream_ends_when_the_server_stops(tutorial: dict[str, Any]) -> None:
    """A6: The endless stream of the tutorial ends by itself when the server stops, at once."""

    async def main() -> None:
        app, loop = tutorial["app"], asyncio.get_running_loop()
        exchange = Exchange(app, "/prices/live")
        async with asyncio.TaskGroup() as tg:
            async with served(app):
                tg.create_task(exchange.run())
                await asyncio.sleep(2.5)
                stopping = loop.time()
        assert loop.time() - stopping < 1
        assert exchange.is_complete
        assert exchange.body.startswith(b"data: 6.75\n\ndata: 6.75\n\ndata: 6.75\n\n")

    run(main)


@pytest.mark.parametrize(
    ("page", "path"),
    [("tutorial-fastapi", "/quotes/thorough"), ("tutorial-starlette", "/thorough")],
)
def test_a_client_that_leaves_ends_its_request(page: str, path: str) -> None:
    """R7: The thorough search of the tutorial ends when its client leaves."""
    app = namespace_of(ROOT / "docs" / f"{page}.md")["app"]

    async def main() -> None:
        exchange = Exchange(app, path)
        exchange.disconnect_after(0.1)
        await exchange.run()
        assert exchange.status == 499
        assert asyncio.get_running_loop().time() < 0.2
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main)


def test_stream_of_answers_ends_with_its_client() -> None:
    """When the client of the stream of answers leaves, the calls behind it end."""
    app = namespace_of(ROOT / "docs" / "tutorial-fastapi.md")["app"]

    async def main() -> None:
        exchange = Exchange(app, "/quotes/live")
        exchange.disconnect_after(0.05)  # it has the hare's answer by then
        await exchange.run()
        assert exchange.body == b"data: hare 9.5\n\n"
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main)


def test_refresher_is_started_again(caplog: pytest.LogCaptureFixture) -> None:
    """A3: The pump of the tutorial is started again after a failure."""
    namespace = namespace_of(ROOT / "docs" / "tutorial-fastapi.md")
    calls = 0

    async def load_prices() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise ConnectionError

    namespace["load_prices"] = load_prices

    async def main() -> None:
        async with served(namespace["app"]):
            await asyncio.sleep(130)

    run(main)
    assert calls >= 3
    assert "failed, and restarts in" in caplog.text


def test_talking_ends_before_the_close() -> None:
    """R6: The WebSocket of the tutorial talks until it is told to stop, and then no more."""
    app = namespace_of(ROOT / "docs" / "tutorial-starlette.md")["app"]

    async def main() -> None:
        socket = Socket(app, "/prices")
        async with asyncio.TaskGroup() as tg:
            tg.create_task(socket.run())
            await asyncio.sleep(2.5)
            socket.say("stop")
        assert [line.partition(" ")[0] for line in socket.log] == [
            "accept",
            *["send"] * 3,
            "close",
        ]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main)


def test_twelve_lines() -> None:
    """The page on leaks has as many lines of them as it says."""
    page = ROOT / "docs" / "why.md"
    [leaky] = [block for block in blocks(page) if "leaky = FastAPI" in block.text]
    assert len([line for line in leaky.text.splitlines() if line]) == 12


def test_lines_of_the_log_are_those_of_the_program() -> None:
    """The log entry of the tutorial shows the lines of the program, pasted block below block."""
    page = ROOT / "docs" / "tutorial-fastapi.md"
    program = "\n".join(block.text for block in blocks(page) if block.language == "python")
    lines = program.splitlines()
    shown = re.findall(r"shop\.py:(\d+)", page.read_text("utf-8"))
    assert [lines[int(number) - 1].strip() for number in shown] == [
        "return await tg.create_task(haggle())",
        "await asyncio.sleep(3600)",
    ]
