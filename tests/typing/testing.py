"""Types of `quattro_web.testing`, which the type checkers check: nothing of this runs."""

from __future__ import annotations

from typing import Unpack, assert_type

from quattro_web import AppTaskGroup
from quattro_web.testing import AppClient, HTTPExchange, RequestOptions, Response, WebSocketExchange


async def requests(client: AppClient) -> None:
    assert_type(await client.get("/", params={"a": [1, 2]}, headers={"x-a": "b"}), Response)
    assert_type(await client.post("/", json={"a": None}), Response)
    assert_type(await client.request("QUERY", "/", content=b"a"), Response)
    assert_type(client.start("PUT", "/", data=[("a", 1)], more_content=True), HTTPExchange)
    assert_type(client.websocket("/", subprotocols=["a"]), WebSocketExchange)
    await client.get("/", parms={"a": 1})  # type: ignore[call-arg]
    await client.head("/", timeout=3)  # type: ignore[call-arg]
    await client.options("/", more_content=True)  # type: ignore[call-arg]
    await client.post("/", content=1)  # type: ignore[arg-type]
    await client.put("/", headers={"x-a": 1})  # type: ignore[dict-item]
    await client.patch("/", files=[])  # type: ignore[call-arg]
    await client.delete("/", params="a=1")  # type: ignore[arg-type]
    await client.request("GET", "/", parms={})  # type: ignore[call-arg]
    client.start("GET", "/", parms={})  # type: ignore[call-arg]
    AppClient(client.asgi, pumps=["prices"])
    AppClient(client.asgi, pumps=1)  # type: ignore[arg-type]


async def login(client: AppClient, **options: Unpack[RequestOptions]) -> Response:
    """A helper of a test's own forwards them."""
    return await client.post("/login", **options)


async def app(client: AppClient, exchange: HTTPExchange) -> None:
    assert_type(client.app_task_group, AppTaskGroup)
    assert_type(await exchange.wait_started(), HTTPExchange)
    assert_type(await exchange.chunk(), bytes | None)
    assert_type(await exchange.response(), Response)
