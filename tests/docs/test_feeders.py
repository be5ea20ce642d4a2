"""Streams of the pages that are fed: they end with their feeder, however it ends."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from quattro_web import install
from quattro_web.fastapi import RequestTaskGroup
from tests.docs.pages import ROOT, namespace_of
from tests.docs.serving import run
from tests.support.asgi import Exchange, get


@pytest.fixture(scope="module")
def streams() -> dict[str, Any]:
    """All that the blocks of the page on streams define."""
    return namespace_of(ROOT / "docs" / "streams.md")


async def ends_early() -> AsyncIterator[str]:
    yield "row 0\n"


async def has_nothing() -> AsyncIterator[str]:
    return
    yield  # pragma: no cover - makes it a generator


async def fails() -> AsyncIterator[str]:
    yield "row 0\n"
    raise ZeroDivisionError


async def fails_later() -> AsyncIterator[str]:
    yield "row 0\n"
    await asyncio.sleep(1)
    raise ZeroDivisionError


async def fails_at_once() -> AsyncIterator[str]:
    raise ZeroDivisionError
    yield  # pragma: no cover - makes it a generator


async def cancels_itself() -> AsyncIterator[str]:
    yield "row 0\n"
    await asyncio.sleep(1)
    raise asyncio.CancelledError


def export(streams: dict[str, Any], monkeypatch: pytest.MonkeyPatch, rows: Any) -> Exchange:
    """Return what becomes of the stream of the page if its feeder gets these rows."""
    monkeypatch.setitem(streams, "read_rows", rows)

    async def main() -> Exchange:
        exchange = await get(streams["app"], "/export")
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return exchange

    return run(main)


@pytest.mark.parametrize(("rows", "body"), [(ends_early, b"row 0\n"), (has_nothing, b"")])
def test_feeder_that_returns(
    streams: dict[str, Any], monkeypatch: pytest.MonkeyPatch, rows: Any, body: bytes
) -> None:
    """R2: A stream is complete when its feeder has returned, however early that is."""
    exchange = export(streams, monkeypatch, rows)
    assert exchange.body == body
    assert exchange.is_complete


@pytest.mark.parametrize("rows", [fails, fails_later])
def test_feeder_that_fails(
    streams: dict[str, Any], monkeypatch: pytest.MonkeyPatch, rows: Any
) -> None:
    """R5: A stream whose feeder fails ends, and is not complete."""
    exchange = export(streams, monkeypatch, rows)
    assert not exchange.is_complete
    assert isinstance(exchange.error, ZeroDivisionError)


def test_feeder_that_fails_at_once(
    streams: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """R4: A feeder that fails before the first chunk is answered with a 500."""
    exchange = export(streams, monkeypatch, fails_at_once)
    assert exchange.status == 500


def test_feeder_that_is_cancelled(streams: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """R2: A stream ends when something has cancelled its feeder."""
    exchange = export(streams, monkeypatch, cancels_itself)
    assert exchange.body == b"row 0\n"


def test_two_feeders(streams: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream with two feeders, as the event stream of the page, ends with the last of them."""
    monkeypatch.setitem(streams, "read_rows", ends_early)
    app = FastAPI()
    install(app)

    @app.get("/")
    async def both(tg: RequestTaskGroup) -> StreamingResponse:
        send, receive = streams["anyio"].create_memory_object_stream(100)
        tg.create_background_task(streams["fill"](send.clone()))
        tg.create_background_task(late(send))
        return StreamingResponse(streams["drain"](receive))

    async def late(rows: Any) -> None:
        async with rows:
            await asyncio.sleep(5)
            await rows.send("late\n")

    async def main() -> Exchange:
        return await get(app)

    exchange = run(main)
    assert exchange.body == b"row 0\nlate\n"
    assert exchange.is_complete
