"""The client of the testing kit: apps that fail, and what a test sees of it."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette

from quattro_web.testing import AppClient, ResponseCutError, advance
from tests.kit.apps import Shop
from tests.kit.running import run, visit


@pytest.fixture
def shop() -> Shop:
    return Shop()


def test_error_of_the_app_is_raised(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    """What the app raises is raised by the request, and logged as by a server."""

    async def test(client: AppClient) -> None:
        with pytest.raises(ZeroDivisionError):
            await client.get("/boom")
        assert (await client.get("/missing")).json() == {"detail": "nothing here"}

    visit(shop.app, test)
    assert "GET /boom has failed" in caplog.text


def test_error_that_nobody_waits_for_is_raised_at_the_end(shop: Shop) -> None:
    """A failure of a request that the test forgets is not lost."""

    async def test(client: AppClient) -> None:
        client.start("GET", "/boom")
        await asyncio.sleep(1)
        await client.get("/missing")  # that other requests are made is no reason to forget it

    with pytest.raises(ZeroDivisionError):
        visit(shop.app, test)


def test_error_that_was_looked_at_is_not_raised(shop: Shop) -> None:
    """A test that has asked for the error of a request has been told of it."""

    async def test(client: AppClient) -> None:
        exchange = client.start("GET", "/boom")
        await advance(1)
        assert isinstance(exchange.error, ZeroDivisionError)

    visit(shop.app, test)


def test_errors_that_nobody_waits_for_are_raised_together(shop: Shop) -> None:
    """Of several, all are told."""

    async def test(client: AppClient) -> None:
        client.start("GET", "/boom")
        client.start("GET", "/boom")
        await asyncio.sleep(1)

    with pytest.raises(ExceptionGroup) as raised:
        visit(shop.app, test)
    assert len(raised.value.exceptions) == 2


def test_error_may_be_an_answer(shop: Shop) -> None:
    """Without raise_app_exceptions the client gets what it would of a server; the error is kept."""

    async def test(client: AppClient) -> None:
        exchange = client.start("GET", "/boom")
        response = await exchange.response()
        assert (response.status_code, response.text) == (500, "Internal Server Error")
        assert isinstance(exchange.error, ZeroDivisionError)

    visit(shop.app, test, raise_app_exceptions=False)


async def failing(scope: Any, receive: Any, send: Any) -> None:
    """An app without a lifespan, and without Starlette's answer to errors."""
    assert scope["type"] == "http"
    if scope["path"] == "/raises":
        raise ZeroDivisionError
    if scope["path"] == "/fails":
        pytest.fail("said by the app")
    if scope["path"] == "/cancelled":
        raise asyncio.CancelledError
    if scope["path"] == "/twice":
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.start", "status": 200})


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/raises", ZeroDivisionError),
        ("/twice", RuntimeError),
        ("/returns", RuntimeError),
        ("/fails", pytest.fail.Exception),
        ("/cancelled", RuntimeError),
    ],
)
def test_apps_that_break_the_protocol(path: str, error: type[BaseException]) -> None:
    """An app that ends before its response does, or sends it wrongly, has failed, whatever it
    raises: `pytest.fail` as well, and a `CancelledError` of its own, which is no cancellation."""

    async def test(client: AppClient) -> None:
        exchange = client.start("GET", path)
        with pytest.raises(error):
            await exchange.response()

    visit(failing, test)


def test_answer_that_a_server_gives_for_an_app() -> None:
    """An app that has failed before its response is answered with a 500, or else is cut."""

    async def test(client: AppClient) -> None:
        exchange = await client.start("GET", "/raises").wait_started()
        assert exchange.status_code == 500
        assert (await exchange.response()).text == "Internal Server Error"
        assert (await exchange.response()).text == "Internal Server Error"
        assert await client.start("GET", "/raises").chunk() == b"Internal Server Error"
        assert (await client.head("/raises")).content == b""
        with pytest.raises(ResponseCutError, match="the app has cut GET /twice after 0 bytes"):
            await client.get("/twice")

    visit(failing, test, raise_app_exceptions=False)


def test_failures_at_the_end_are_raised_together(shop: Shop) -> None:
    """A failure of a request is not lost where the end of the app fails as well."""

    async def broken() -> None:
        await asyncio.sleep(1)
        raise ValueError

    async def test(client: AppClient) -> None:
        client.start("GET", "/boom")
        await asyncio.sleep(2)

    with pytest.raises(ExceptionGroup) as raised:
        visit(Shop(pumps=[broken]).app, test)
    assert {type(error) for error in raised.value.exceptions} == {ValueError, ZeroDivisionError}


def test_failure_of_the_test_hurries(shop: Shop) -> None:
    """A5: Where the block has failed, nothing is waited for: neither requests nor work."""

    async def main() -> None:
        with pytest.raises(KeyError):
            async with AppClient(shop.app) as client:
                await client.post("/work")
                client.start("GET", "/stubborn")
                await asyncio.sleep(1)
                raise KeyError
        assert asyncio.get_running_loop().time() < 2

    run(main)
    assert "work done" not in shop.log
    assert "stubborn ends" not in shop.log
    assert shop.log[-1] == "closes"


def test_failure_of_the_test_is_the_context(shop: Shop) -> None:
    """Where the block and the end of the app fail, neither is lost."""

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        yield
        raise ZeroDivisionError

    async def test(client: AppClient) -> None:
        raise KeyError

    with pytest.raises(ZeroDivisionError) as raised:
        visit(Starlette(lifespan=lifespan), test)
    assert isinstance(raised.value.__context__, KeyError)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_end_of_the_process(error: type[BaseException]) -> None:
    """What ends the process is nothing that an app is answered for: it ends the test run."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            raise error

    async def test(client: AppClient) -> None:
        await client.get("/")

    with pytest.raises(error):
        visit(app, test, raise_app_exceptions=False)
    gc.collect()  # so that asyncio tells of the task here, and in no other test
