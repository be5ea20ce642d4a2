"""What an orchestrator is told."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

from quattro_web import (
    NoTaskGroupError,
    Pump,
    RestartPolicy,
    TaskGroupMiddleware,
    app_health,
    health_routes,
    install,
    task_group_lifespan,
)
from tests.support.apps import settle, soon
from tests.support.asgi import get, run
from tests.support.clock import VirtualClockLoop
from tests.support.lifespan import Life


async def forever() -> None:
    await asyncio.Event().wait()


async def ask(app: Any, life: Life) -> tuple[int, int]:
    return (await life.get("/livez")).status, (await life.get("/readyz")).status


def test_healthy_app() -> None:
    """A3: An app whose pumps run lives and is ready; the answer tells of them and is not
    cached."""
    app = FastAPI()
    app.router.routes.extend(health_routes())
    install(app, pumps=[Pump(forever, name="the feed")])

    async def main() -> None:
        async with Life(app) as life:
            answer = await life.get("/readyz")
            assert answer.status == 200
            report = json.loads(answer.body)
            since = report["pumps"]["the feed"].pop("since")
            assert datetime.fromisoformat(since).tzinfo == UTC
            pump = {"state": "running", "up": True, "restarts": 0, "holder": None, "next_run": None}
            assert report == {
                "ready": True,
                "running": True,
                "shutting_down": False,
                "pumps": {"the feed": pump},
            }
            assert answer.headers["cache-control"] == "no-store"
            assert (await life.get("/openapi.json")).body.count(b"readyz") == 0

    run(main())


def test_pump_that_is_down_is_not_ready() -> None:
    """A3: While a pump waits for its restart the app is not ready, but lives; then it is again."""
    app = Starlette(routes=health_routes(livez="/livez", readyz="/readyz"))
    failures = 0

    async def flaky() -> None:
        nonlocal failures
        await soon()
        failures += 1
        if failures == 1:
            raise ZeroDivisionError
        await forever()

    policy = RestartPolicy(base=30, ceiling=30)
    install(app, pumps=[Pump(flaky, on_failure="restart", restart=policy)])

    async def main() -> None:
        async with Life(app) as life:
            assert await ask(app, life) == (200, 200)
            await settle()
            assert await ask(app, life) == (200, 503)
            body = (await life.get("/readyz")).body
            [pump] = json.loads(body)["pumps"].values()
            assert (pump["state"], pump["up"]) == ("backing off", False)
            assert b"ZeroDivisionError" not in body
            await asyncio.sleep(31)
            assert await ask(app, life) == (200, 200)

    run(main())


def test_shutdown_is_not_ready() -> None:
    """A3, A6: From the begin of the shutdown on, while requests are still served, the app is not
    ready."""
    app = Starlette(routes=health_routes())
    install(app)

    async def main() -> None:
        async with Life(app) as life:
            group = await life.group()
            seen: list[tuple[int, int]] = []

            async def work() -> None:
                await settle()
                assert app_health(app).is_shutting_down
                assert app_health(app).tasks == 1
                seen.append(await ask(app, life))

            group.create_task(work)
        assert seen == [(200, 503)]

    run(main())


def test_failed_work_is_counted() -> None:
    """A5: Handed-over work that fails is counted, and the app stays ready."""
    app = Starlette()
    install(app)

    async def fail() -> None:
        raise ZeroDivisionError

    async def main() -> None:
        async with Life(app) as life:
            group = await life.group()
            group.create_task(fail)
            group.create_task(soon)
            await settle()
            health = app_health(app)
            assert (health.failed_tasks, health.tasks, health.is_ready) == (1, 0, True)

    run(main())


def test_other_ways_to_run() -> None:
    """A3: Health is there for a lifespan by hand, and for another ASGI app in the middleware."""

    async def main() -> None:
        by_hand = Starlette(lifespan=task_group_lifespan(pumps=[forever]))
        plain = TaskGroupMiddleware(Starlette(), pumps=[forever])
        for app in (by_hand, plain):
            async with Life(app):
                assert [pump.name for pump in app_health(app).pumps] == ["forever"]
            with pytest.raises(NoTaskGroupError):
                app_health(app)

    run(main())


def test_app_that_does_not_run() -> None:
    """A3: Asking for the health of an app that does not run is an error that says what to do."""
    with pytest.raises(NoTaskGroupError, match=r"is not running: call quattro_web\.install\(app\)"):
        app_health(Starlette())


def test_app_whose_event_loop_was_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A3: An app whose event loop was closed in its midst does not run, whatever its state was."""
    app, loop = Starlette(), VirtualClockLoop()
    install(app)
    life = Life(app)
    loop.run_until_complete(life.start())
    assert app_health(app).is_ready
    with monkeypatch.context() as patch, pytest.raises(NoTaskGroupError):
        patch.setattr(loop, "is_closed", lambda: True)  # its tasks can be ended nevertheless
        app_health(app)
    loop.run_until_complete(life.stop())
    loop.close()


def test_routes_in_a_sub_app() -> None:
    """A3: Routes that are mounted in an app tell how that app is, installed themselves or not."""
    for installed in (False, True):
        inner = Starlette(routes=health_routes())
        if installed:
            install(inner)
        app = Starlette(routes=[Mount("/health", inner)])
        install(app, pumps=[Pump(forever, name="the feed")])

        async def main(app: Starlette = app) -> None:
            async with Life(app) as life:
                assert (await life.get("/health/livez")).status == 200
                answer = await life.get("/health/readyz")
                assert answer.status == 200
                assert b"the feed" in answer.body

        run(main())


def test_app_whose_lifespan_is_not_run() -> None:
    """A3: An app whose lifespan is not run lives, and is not ready."""
    app = Starlette(routes=health_routes())
    install(app)
    assert run(get(app, "/livez")).status == 200
    answer = run(get(app, "/readyz"))
    assert (answer.status, answer.body) == (503, b'{"ready":false,"running":false}')
