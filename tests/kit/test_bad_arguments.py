"""What a test gives the kit by mistake is an error at once."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from quattro_web.testing import AppClient, RequestOptions, VirtualClockLoop, advance
from tests.kit.apps import Shop
from tests.kit.running import visit


@pytest.mark.parametrize(
    ("seconds", "error"),
    [
        (-1, ValueError),
        (float("nan"), ValueError),
        (float("inf"), ValueError),
        ("1", TypeError),
        (None, TypeError),
        (True, TypeError),
    ],
)
def test_time_that_never_comes(seconds: Any, error: type[Exception]) -> None:
    """Virtual time passes by a number of seconds: anything else is an error by name."""
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        with pytest.raises(error, match=f"seconds must be a number of seconds.*got {seconds!r}"):
            runner.run(advance(seconds))


@pytest.mark.parametrize("path", ["prices", "", "?a=1", "http://test/"])
@pytest.mark.parametrize(
    "use",
    [
        lambda client, path: client.get(path),
        lambda client, path: client.post(path, json=1),
        lambda client, path: client.request("QUERY", path),
        lambda client, path: client.start("GET", path),
        lambda client, path: client.websocket(path),
    ],
    ids=["get", "post", "request", "start", "websocket"],
)
def test_path_without_a_slash(use: Callable[[AppClient, str], Any], path: str) -> None:
    """A path that no server could get is an error by name, and the app sees nothing of it."""
    shop = Shop()

    async def test(client: AppClient) -> None:
        with pytest.raises(ValueError, match="path must begin with '/', got ") as raised:
            await use(client, path)
        assert repr(path) in str(raised.value)

    visit(shop.app, test, pumps=False)
    assert shop.log == ["opens", "closes"]


@pytest.mark.parametrize(
    ("bodies", "names"),
    [
        ({"content": b"a", "json": 1}, "content and json"),
        ({"json": [], "data": {}}, "json and data"),
        ({"content": "a", "json": 1, "data": {"a": 1}}, "content and json and data"),
    ],
)
def test_more_than_one_body(bodies: RequestOptions, names: str) -> None:
    """A request that is given two bodies is an error by name, instead of losing one of them."""
    shop = Shop()

    async def test(client: AppClient) -> None:
        for make in (client.post, partial(client.start, "POST")):
            with pytest.raises(ValueError, match=f"a request has one body, got {names}:"):
                await make("/prices", **bodies)  # type: ignore[misc]

    visit(shop.app, test, pumps=False)
    assert shop.log == ["opens", "closes"]
