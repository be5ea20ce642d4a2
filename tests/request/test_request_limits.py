"""How many children may run at once: of one request, and of all of them together."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from quattro_core import TooManyWaitingError
from quattro_web import app_task_group, install, request_task_group, set_concurrency_limit
from quattro_web.fastapi import ConcurrencyLimit, RequestTaskGroup
from tests.support.asgi import Exchange, get, run
from tests.support.lifespan import Life
from tests.support.server import PATIENCE


class Gauge:
    running = most = 0

    async def child(self) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(1)
        self.running -= 1


def fan_out(gauge: Gauge, children: int = 10, **options: Any) -> Starlette:
    async def endpoint(request: Request) -> Response:
        if "own" in request.query_params:
            set_concurrency_limit(request, int(request.query_params["own"]))
        for _ in range(children):
            request_task_group(request).create_task(gauge.child())
        return PlainTextResponse("ok")

    app = Starlette(routes=[Route("/", endpoint)])
    install(app, **options)
    return app


@pytest.mark.parametrize(("path", "most"), [("/", 3), ("/?own=5", 5), ("/?own=1", 1)])
def test_limit_of_a_request(path: str, most: int) -> None:
    """C6: A request has the limit of its app, or one of its own."""
    gauge = Gauge()
    assert run(get(fan_out(gauge, concurrency_limit=3), path)).status == 200
    assert gauge.most == most


def test_total_limit_of_an_app_in_several_event_loops() -> None:
    """C6: In an app that runs in several event loops, such as those of test clients in threads,
    each loop has the limit for itself: every request is answered."""
    met = threading.Barrier(3)  # as many children run at once, one in each loop

    async def meet() -> None:
        await asyncio.to_thread(met.wait, PATIENCE)

    async def endpoint(request: Request) -> Response:
        async with asyncio.timeout(PATIENCE):
            await request_task_group(request).gather(meet, meet)
        return PlainTextResponse("met")

    app = Starlette(routes=[Route("/", endpoint)])
    install(app, total_limit=1)

    def visit(_: int) -> int:
        with TestClient(app) as client:
            return client.get("/").status_code

    with ThreadPoolExecutor(3) as clients:
        assert list(clients.map(visit, range(3))) == [200] * 3


def test_limit_of_a_fastapi_route() -> None:
    """C6: In FastAPI, a route has its limit in its list of dependencies."""
    gauge = Gauge()
    app = FastAPI()

    @app.get("/", dependencies=[ConcurrencyLimit(2)])
    async def handler(tg: RequestTaskGroup) -> None:
        for _ in range(5):
            tg.create_task(gauge.child())

    install(app)
    assert run(get(app)).status == 200
    assert gauge.most == 2


def test_limit_is_set_before_the_group_is_there() -> None:
    """C6: A limit that comes too late, or is none, is an error that says so."""

    async def endpoint(request: Request) -> Response:
        with pytest.raises(ValueError, match="limit must be >= 1, got 0"):
            set_concurrency_limit(request, 0)
        request_task_group(request)
        with pytest.raises(RuntimeError, match="before the group is asked for"):
            set_concurrency_limit(request, 3)
        return Response()

    app = Starlette(routes=[Route("/", endpoint)])
    install(app)
    assert run(get(app)).status == 200


def test_total_limit_of_all_requests() -> None:
    """C6: The children of all requests together keep the total limit, and wait for their turn."""
    gauge = Gauge()

    async def main() -> float:
        app = fan_out(gauge, total_limit=4, concurrency_limit=3)
        exchanges = await asyncio.gather(*(get(app) for _ in range(4)))
        assert [exchange.status for exchange in exchanges] == [200] * 4
        return asyncio.get_running_loop().time()

    assert run(main()) == 10, "40 children, 4 at a time"
    assert gauge.most == 4


def test_limit_of_a_request_is_within_the_total_limit() -> None:
    """C6: The children of a request that has a limit of its own keep the total limit as well."""
    gauge = Gauge()
    assert run(get(fan_out(gauge, total_limit=2), "/?own=5")).status == 200
    assert gauge.most == 2


def test_request_with_a_limit_hands_over_as_others() -> None:
    """C6, A5: A request that has a limit of its own has the app group of its app."""
    gauge = Gauge()

    async def endpoint(request: Request) -> Response:
        set_concurrency_limit(request, 1)
        app_task_group(request).create_task(gauge.child())
        return PlainTextResponse("ok")

    app = Starlette(routes=[Route("/", endpoint)])
    install(app)

    async def main() -> None:
        async with Life(app) as life:
            assert (await life.get("/")).status == 200

    run(main())
    assert (gauge.most, gauge.running) == (1, 0)


def test_full_waiting_room_is_a_503() -> None:
    """C6, R4: A request whose children would be too many to wait is answered with a 503."""
    gauge = Gauge()

    async def main() -> tuple[Exchange, Exchange]:
        app = fan_out(gauge, children=3, total_limit=3, max_waiting=2)
        return await asyncio.gather(get(app), get(app))

    served, refused = run(main())
    assert served.status == 200
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert refused.error is None
    assert gauge.running == 0


def test_app_may_answer_a_full_waiting_room_itself() -> None:
    """C6, R4: The app's own exception handler answers, where there is one."""

    async def handler(request: Request, exc: Exception) -> Response:
        return PlainTextResponse("come back", 429)

    app = fan_out(Gauge(), children=3, total_limit=1, max_waiting=0)
    app.add_exception_handler(TooManyWaitingError, handler)
    assert run(get(app)).status == 429


def test_bad_limits_are_errors_of_install() -> None:
    """C6: What is wrong with a limit is said by install()."""
    with pytest.raises(ValueError, match="max_waiting=3 needs a total_limit"):
        install(Starlette(), max_waiting=3)
    with pytest.raises(ValueError, match="total_limit must be >= 1, got 0"):
        install(Starlette(), total_limit=0)
