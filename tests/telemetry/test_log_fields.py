"""The facts of log entries, as fields of their records."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from quattro_web import (
    FileLock,
    Pump,
    RestartPolicy,
    app_task_group,
    cancel_on_disconnect,
    install,
    set_deadline,
)
from quattro_web.testing import AppClient
from tests.support.apps import settle
from tests.support.asgi import run


async def forever() -> None:
    await asyncio.Event().wait()


def fields_of(caplog: pytest.LogCaptureFixture, text: str) -> dict[str, Any]:
    """Return the fields of the one entry that has a text in it, but for how long something took."""
    [record] = [record for record in caplog.records if text in record.getMessage()]
    found = {
        name.removeprefix("quattro_"): value
        for name, value in vars(record).items()
        if name.startswith("quattro_")
    }
    assert found.pop("seconds", 0.0) >= 0
    return found


REQUEST = {"method": "GET", "client": "testclient:50000"}


def test_long_path(caplog: pytest.LogCaptureFixture) -> None:
    """O3: No client makes an entry long by its path."""
    long = "/" + "x" * 100_000

    async def handler(request: Request) -> Response:
        set_deadline(request, 1)
        await forever()
        return PlainTextResponse()

    app = Starlette(routes=[Route("/{name}", handler)])
    install(app)

    async def main() -> None:
        async with AppClient(app) as client:
            await client.get(long)

    run(main())
    path = fields_of(caplog, "has passed its deadline")["path"]
    assert path == f"{long[:1000]}... (100001 characters)"


def test_entries_of_requests(caplog: pytest.LogCaptureFixture) -> None:
    """O1: An entry about a request has its method, its path, its route and its client."""
    caplog.set_level(logging.INFO, "quattro_web")

    async def is_late(request: Request) -> Response:
        set_deadline(request, 1)
        await forever()
        return PlainTextResponse()

    async def is_left(request: Request) -> Response:
        cancel_on_disconnect(request)
        await forever()
        return PlainTextResponse()

    functions = (is_late, is_left)
    app = Starlette(routes=[Route(f"/{each.__name__}/{{id}}", each) for each in functions])
    install(app)

    async def main() -> None:
        async with AppClient(app) as client:
            await client.get("/is_late/1")
            left = client.start("GET", "/is_left/2")
            await settle()
            left.disconnect()
            await left.wait_finished()

    run(main())
    of_late = fields_of(caplog, "has passed its deadline")
    assert of_late == {**REQUEST, "path": "/is_late/1", "route": "/is_late/{id}"}
    of_left = fields_of(caplog, "the client has left")
    assert of_left == {**REQUEST, "path": "/is_left/2", "route": "/is_left/{id}"}


def test_entries_of_handed_over_work(caplog: pytest.LogCaptureFixture) -> None:
    """O1: An entry about handed-over work has its name, where it comes from, and the route."""

    async def fails() -> None:
        raise ZeroDivisionError

    async def handler(request: Request) -> Response:
        app_task_group(request).create_task(fails(), name="mail")
        return PlainTextResponse()

    app = Starlette(routes=[Route("/orders/{id}", handler)])
    install(app)

    async def main() -> None:
        async with AppClient(app, raise_app_exceptions=False) as client:
            await client.get("/orders/7")
            await client.wait_work_done()

    run(main())
    assert fields_of(caplog, "handed over by") == {
        "task": "mail",
        "origin": "GET /orders/7",
        "route": "/orders/{id}",
    }


def test_entries_of_pumps(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """O1: An entry about a pump has its name."""
    caplog.set_level(logging.INFO, "quattro_web")
    again = asyncio.Event()

    async def flaky() -> None:
        if again.is_set():
            await forever()
        again.set()
        raise ZeroDivisionError

    async def ends() -> None:
        raise ZeroDivisionError

    app = Starlette()
    policy = RestartPolicy(base=0.01, ceiling=0.01)
    install(
        app,
        pumps=[
            Pump(flaky, name="flaky", on_failure="restart", restart=policy),
            Pump(ends, name="ends", on_failure="ignore"),
            Pump(forever, name="once", once=FileLock(tmp_path / "lock")),
        ],
    )

    async def main() -> None:
        async with AppClient(app):
            async with asyncio.timeout(60):
                while "pump once runs here" not in caplog.text or "restart 1" not in caplog.text:
                    await asyncio.sleep(0.01)

    asyncio.run(main())
    assert fields_of(caplog, "restarts in") == {"pump": "flaky"}
    assert fields_of(caplog, "is not restarted") == {"pump": "ends"}
    held = fields_of(caplog, "pump once runs here")
    assert held.pop("holder")
    assert held == {"pump": "once"}


def test_entries_of_shutdowns(caplog: pytest.LogCaptureFixture) -> None:
    """O1: An entry about a shutdown says how many requests it is about."""

    async def handler(request: Request) -> Response:
        await forever()
        return PlainTextResponse()

    app = Starlette(routes=[Route("/", handler)])
    install(app)

    async def main() -> None:
        async with AppClient(app) as client:
            for _ in range(3):
                client.start("GET", "/")
            await settle()

    run(main())
    assert fields_of(caplog, "the shutdown cancels everything that is still open") == {"count": 3}
