"""The client of the testing kit: what a request and its response consist of."""

from typing import Any

import pytest
from starlette.datastructures import Headers

from quattro_web.testing import AppClient, Response
from tests.kit.apps import Shop
from tests.kit.running import visit


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


def test_headers_of_every_client(shop: Shop) -> None:
    """What every client sends is there, and headers are sent in the charset of HTTP."""

    async def test(client: AppClient) -> None:
        told = (await client.get("/echo", headers={"x-one": "\u00fc"})).json()["headers"]
        assert (told["host"], told["accept"], told["x-one"]) == ("testserver", "*/*", "\u00fc")

    visit(shop.app, test)


def test_what_is_said_goes(shop: Shop) -> None:
    """A header that is given replaces that of the body, and a method may be in lower case."""

    async def test(client: AppClient) -> None:
        headers = {"Content-Type": "application/vnd.api+json"}
        told = (await client.request("post", "/echo", json=1, headers=headers)).json()
        assert told["headers"]["content-type"] == "application/vnd.api+json"
        assert told["method"] == "POST"

    visit(shop.app, test)


@pytest.mark.parametrize("status", [204, 304])
def test_response_that_has_no_body(status: int) -> None:
    """A body that the status forbids is an error of the app's, as on a server."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": status})
            await send({"type": "http.response.body", "body": b"none"})

    async def test(client: AppClient) -> None:
        with pytest.raises(RuntimeError, match="the body is longer than the status"):
            await client.get("/")

    visit(app, test)


def test_text_has_the_charset_of_the_headers() -> None:
    """The text of a response is decoded as its headers say."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/plain; charset=latin-1")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": "é".encode("latin-1")})

    async def test(client: AppClient) -> None:
        assert (await client.get("/")).text == "é"
        assert Response(200, Headers(), b"\xff").text == "\ufffd"

    visit(app, test)


def test_what_is_encoded(shop: Shop) -> None:
    """Paths and query strings are sent as browsers do; True and None as httpx does."""

    async def test(client: AppClient) -> None:
        params = {"flag": True, "none": None, "many": [1, (False, "\u00fc")]}
        told = (await client.get("/echo?q=\u00fc &r=a%20b#top", params=params)).json()
        assert told["query"] == "q=%C3%BC%20&r=a%20b&flag=true&none=&many=1&many=false&many=%C3%BC"
        told = (await client.get("/echo", params=[("a", 1), ("a", 2)])).json()
        assert told["query"] == "a=1&a=2"

    visit(shop.app, test)


def test_length_of_the_body(shop: Shop) -> None:
    """A body has its length in the headers, or none if it is uploaded piece by piece."""

    async def test(client: AppClient) -> None:
        assert "content-length" not in (await client.get("/echo")).json()["headers"]
        exchange = client.start("POST", "/echo", content=b"a", more_content=True)
        exchange.upload(b"b", more=False)
        told = (await exchange.response()).json()
        assert told["body"] == "ab"
        assert told["headers"]["transfer-encoding"] == "chunked"
        assert "content-length" not in told["headers"]

    visit(shop.app, test)
