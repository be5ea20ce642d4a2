"""What is sent to a client that has left: others than the client may wait for it."""

import asyncio

from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from quattro_web import request_task_group
from tests.request.watched import app_of
from tests.support.asgi import Exchange, run


def test_middleware_that_waits_for_a_response_gets_one() -> None:
    """R7, R10: BaseHTTPMiddleware above sees an empty 499, whether the group was used or not, and
    has nothing to say in the server's log."""
    seen: list[int] = []

    async def dispatch(request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        seen.append(response.status_code)
        return response

    async def endpoint(request: Request) -> Response:
        if request.method == "POST":
            request_task_group(request).create_task(asyncio.sleep(60))
            await request.body()
        return await asyncio.sleep(60, Response())

    app = app_of(endpoint)
    app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
    for method in ("GET", "POST"):
        exchange = Exchange(app, method=method, unfinished=True)

        async def main(exchange: Exchange = exchange) -> None:
            await exchange.disconnect_after(1).run()

        run(main())
        assert (exchange.status, exchange.body, exchange.error) == (499, b"", None)
    assert seen == [499, 499]


def test_server_that_refuses_to_send_is_no_failure() -> None:
    """R7: A server that raises OSError from send() when the client has left (ASGI 2.4) logs
    nothing."""

    async def endpoint(request: Request) -> Response:
        return await asyncio.sleep(60, Response())

    async def refuse(message: Message) -> None:
        raise ConnectionResetError

    async def main() -> Exchange:
        return await Exchange(app_of(endpoint), on_send=refuse).disconnect_after(1).run()

    exchange = run(main())
    assert (exchange.status, exchange.error) == (499, None)
