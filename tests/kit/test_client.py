"""The client of the testing kit: ordinary requests, and failures."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from quattro_web.testing import AppClient, ResponseCutError
from tests.kit.apps import Shop
from tests.kit.running import run, visit


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.mark.parametrize("method", ["get", "post", "put", "patch", "delete", "options"])
def test_methods(shop: Shop, method: str) -> None:
    """There is a method for each of HTTP's; what is sent arrives, with the lifespan's state."""

    async def test(client: AppClient) -> None:
        options: dict[str, Any] = {"params": {"a": "1 2", "b": [3, 4]}, "headers": {"X-One": "1"}}
        response = await getattr(client, method)("/echo?first=0", content="text", **options)
        assert response.status_code == 200
        assert response.headers["Content-Type"] == "application/json"
        told = response.json()
        assert told["method"] == method.upper()
        assert told["query"] == "first=0&a=1+2&b=3&b=4"
        assert told["headers"]["x-one"] == "1"
        assert told["headers"]["x-every"] == "one"
        assert told["headers"]["content-length"] == "4"
        assert (told["body"], told["state"]) == ("text", "shop")

    visit(shop.app, test, headers={"X-Every": "one"})


def test_head(shop: Shop) -> None:
    """The response to HEAD has headers and no body."""

    async def test(client: AppClient) -> None:
        response = await client.head("/echo")
        assert response.headers["x-head"] == "yes"
        assert response.content == b""
        assert repr(response) == "<Response 200, 0 bytes>"

    visit(shop.app, test)


@pytest.mark.parametrize(
    ("options", "body", "kind"),
    [
        ({"json": [1, None]}, "[1, null]", "application/json"),
        ({"data": {"a": "b c", "d": [1, 2]}}, "a=b+c&d=1&d=2", "application/x-www-form-urlencoded"),
    ],
)
def test_bodies(shop: Shop, options: dict[str, Any], body: str, kind: str) -> None:
    """A body can be given as JSON, or as the fields of a form."""

    async def test(client: AppClient) -> None:
        told = (await client.post("/echo", **options)).json()
        assert (told["body"], told["headers"]["content-type"]) == (body, kind)

    visit(shop.app, test)


def test_text_has_the_charset_of_the_headers() -> None:
    """The text of a response is decoded as its headers say."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/plain; charset=latin-1")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": "é".encode("latin-1")})

    async def test(client: AppClient) -> None:
        assert (await client.get("/")).text == "é"

    visit(app, test)


def test_lifespan_is_around(shop: Shop) -> None:
    """The app starts before the block, and has ended after it; its pumps run meanwhile."""

    async def test(client: AppClient) -> None:
        assert shop.log == ["opens", "poll"]
        assert (await client.get("/readyz")).status_code == 200
        assert client.health.is_ready

    visit(shop.app, test)
    assert shop.log == ["opens", "poll", "poll ends", "closes"]


def test_requests_run_in_tasks_of_their_own() -> None:
    """Each request has a task of its own, which is not the test's, as on a server."""
    tasks: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        tasks.append(asyncio.current_task())
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    async def test(client: AppClient) -> None:
        assert (await client.get("/")).status_code == (await client.get("/")).status_code == 204
        tasks.append(asyncio.current_task())

    visit(app, test)
    assert len(set(tasks)) == 4  # with that of the lifespan


def test_background_tasks_are_waited_for(shop: Shop) -> None:
    """A response is returned when the app has finished with it, its background tasks included."""

    async def test(client: AppClient) -> None:
        await client.get("/later")
        assert "background task" in shop.log

    visit(shop.app, test)


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

    with pytest.raises(ZeroDivisionError):
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
    if scope["path"] == "/twice":
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.start", "status": 200})


@pytest.mark.parametrize(
    ("path", "error"),
    [("/raises", ZeroDivisionError), ("/twice", RuntimeError), ("/returns", RuntimeError)],
)
def test_apps_that_break_the_protocol(path: str, error: type[Exception]) -> None:
    """An app that ends before its response does, or sends it wrongly, has failed."""

    async def test(client: AppClient) -> None:
        exchange = client.start("GET", path)
        with pytest.raises(error):
            await exchange.response()

    visit(failing, test)


def test_answer_that_a_server_gives_for_an_app() -> None:
    """An app that has failed before its response is answered with a 500, or else is cut."""

    async def test(client: AppClient) -> None:
        exchange = await client.start("GET", "/raises").started()
        assert exchange.status_code == 500
        assert (await exchange.response()).text == "Internal Server Error"
        assert "500" not in repr(exchange)
        with pytest.raises(ResponseCutError, match="the app has cut GET /twice after 0 bytes"):
            await client.get("/twice")

    visit(failing, test, raise_app_exceptions=False)


def test_app_that_does_not_start(shop: Shop) -> None:
    """What keeps an app from starting is raised as it is."""

    async def pump(*, task_status: Any) -> None:
        raise ZeroDivisionError

    async def main() -> None:
        client = AppClient(Shop(pumps=[pump]).app)
        with pytest.raises(ZeroDivisionError):
            await client.__aenter__()
        with pytest.raises(RuntimeError, match="does not run"):
            await client.get("/echo")

    run(main)


@pytest.mark.parametrize("part", ["startup", "shutdown"])
def test_app_that_refuses(part: str) -> None:
    """An app that answers a part of its lifespan with a failure is an error with its message."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for name in ("startup", "shutdown"):
            await receive()
            how = "failed" if name == part else "complete"
            await send({"type": f"lifespan.{name}.{how}", "message": "not today"})

    async def test(client: AppClient) -> None:
        assert part == "shutdown"

    with pytest.raises(RuntimeError, match="not today"):
        visit(app, test)


def test_error_of_the_lifespan_is_raised() -> None:
    """What the lifespan raises when it ends is raised at the end of the block."""

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        yield
        raise ZeroDivisionError

    app = Starlette(lifespan=lifespan)

    async def test(client: AppClient) -> None:
        pass

    with pytest.raises(ZeroDivisionError):
        visit(app, test)


def test_only_while_the_app_runs(shop: Shop) -> None:
    """Before and after the block the client says that the app does not run."""

    async def main() -> None:
        client = AppClient(shop.app)
        for use in (
            lambda: client.start("GET", "/"),
            lambda: client.websocket("/"),
            lambda: client.health,
        ):
            with pytest.raises(RuntimeError, match="use `async with AppClient"):
                use()
        async with client:
            pass
        with pytest.raises(RuntimeError, match="make another"):
            await client.__aenter__()

    run(main)


def test_pumps_is_no_name(shop: Shop) -> None:
    """The names of pumps are a collection: one name alone is a mistake."""
    with pytest.raises(TypeError, match="got 'poll'"):
        AppClient(shop.app, pumps="poll")


def test_httpx_in_the_same_run(shop: Shop) -> None:
    """Another client can make requests in the same run of the app."""

    async def test(client: AppClient) -> None:
        transport = httpx.ASGITransport(app=client.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as other:
            assert (await other.get("/echo")).json()["state"] == "shop"

    visit(shop.app, test)


def test_app_that_is_not_installed() -> None:
    """An app without groups is served all the same; what needs them says so."""

    async def endpoint(request: Any) -> Any:
        await asyncio.Event().wait()

    app = Starlette()
    app.add_route("/hangs", endpoint)

    async def test(client: AppClient) -> None:
        assert (await client.get("/")).status_code == 404
        client.start("GET", "/hangs")
        await asyncio.sleep(1)
        for use in (lambda: client.health, lambda: client.app_group, client.begin_shutdown):
            with pytest.raises(RuntimeError, match=r"call quattro_web\.install\(app\)"):
                use()

    visit(app, test)


def test_timeout_of_a_request(shop: Shop) -> None:
    """A test that loses its patience with a request leaves it as a client does."""

    async def test(client: AppClient) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await client.get("/slow")

    visit(shop.app, test)
    assert "cancelled: the client has disconnected" in shop.log
