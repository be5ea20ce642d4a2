"""What the README says of its own examples is so."""

import asyncio
import json
import logging
from typing import Any

import pytest
from starlette.types import ASGIApp

from tests.docs.pages import ROOT, namespace_of
from tests.docs.serving import run, served
from tests.support.asgi import Exchange, Socket, get


@pytest.fixture
def readme(told: list[str]) -> dict[str, Any]:
    """All that the README's blocks define."""
    namespace = namespace_of(ROOT / "README.md")
    told.clear()
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
    assert [record.message.split("\n")[0] for record in caplog.records] == [
        "Task exception was never retrieved"
    ]


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


def test_pump(readme: dict[str, Any]) -> None:
    """A2: The pump of the README counts as long as the app is served."""

    async def main() -> None:
        async with served(readme["counting"]):
            for _ in range(3):
                assert (
                    await get(readme["counting"], "/searches?shops=a", method="POST")
                ).status == 200
            await asyncio.sleep(1)
            assert readme["counted"] == {"a": 3}

    run(main)


def test_stream_ends_with_its_feeder(readme: dict[str, Any]) -> None:
    """The stream of the README ends, and so does its feeder."""

    async def main() -> None:
        exchange = await get(readme["app"], "/ticks?count=3")
        assert exchange.body == b"tick\ntick\ntick\n"
        assert exchange.is_complete
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main)


def test_feeder_ends_when_the_client_has_left(readme: dict[str, Any]) -> None:
    """When the client of the README's stream has left, nothing of the request goes on."""

    async def main() -> None:
        exchange = Exchange(readme["app"], "/ticks?count=1000000")
        async with asyncio.TaskGroup() as tg:
            tg.create_task(exchange.run())
            await asyncio.sleep(1)
            exchange.disconnect()
        assert len(exchange.sent) > 50
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main)


def test_websocket_talks_and_listens(readme: dict[str, Any]) -> None:
    """The talking of the README's WebSocket ends before the connection is closed."""

    async def main() -> None:
        socket = Socket(readme["app"], "/talk")
        async with asyncio.TaskGroup() as tg:
            tg.create_task(socket.run())
            await asyncio.sleep(1)
            socket.say("go on")
            await asyncio.sleep(1)
            socket.say("stop")
        assert socket.log.count("send tick") > 100
        assert socket.log[0] == "accept"
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main)


def test_starlette(readme: dict[str, Any]) -> None:
    """The Starlette endpoint of the README answers."""

    async def main() -> Exchange:
        return await get(readme["starlette_app"], "/both")

    assert json.loads(run(main).body) == [9.99, 9.99]
