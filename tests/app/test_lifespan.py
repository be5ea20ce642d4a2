"""The app group composes with whatever lifespan an app has."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send

from quattro_web import Pumps, TaskGroupMiddleware, install
from quattro_web._app.lookup import runs_of
from tests.support.apps import lifespan_of, pump_of, settle
from tests.support.asgi import get, run
from tests.support.lifespan import Life

ORDER = [
    "resource opens",
    "pump starts",
    "startup.complete",
    "pump ends",
    "resource closes",
    "shutdown.complete",
]


async def live(life: Life) -> list[str]:
    async with life:
        await settle()
    return life.log


def test_resources_are_around_the_pumps() -> None:
    """A1: Resources are there before the first pump starts, and close after the last one ended."""
    log: list[str] = []
    app = Starlette(lifespan=lifespan_of(log))
    install(app, pumps=[pump_of(log), pump_of(log, "other pump")])
    assert run(live(Life(app, log=log))) == [
        "resource opens",
        "pump starts",
        "other pump starts",
        "startup.complete",
        "pump ends",
        "other pump ends",
        "resource closes",
        "shutdown.complete",
    ]


def test_state_of_the_lifespan_is_kept() -> None:
    """A1: What the user's lifespan yields is in the state of each request, as without pumps."""
    log: list[str] = []
    app = Starlette(lifespan=lifespan_of(log, colour="red"))
    install(app, pumps=[pump_of(log)])
    life = Life(app)
    run(live(life))
    assert life.state["colour"] == "red"


def test_a_server_without_state() -> None:
    """A1: A server that has no state for the lifespan runs the pumps as well."""
    log: list[str] = []
    app = Starlette()
    install(app, pumps=[pump_of(log)])
    run(live(Life(app, log=log, has_state=False)))
    assert log == ["pump starts", "startup.complete", "pump ends", "shutdown.complete"]


def test_router_lifespans_before_and_after_install() -> None:
    """A1: Routers' lifespans are around the pumps, included before or after the install."""
    log: list[str] = []
    app = FastAPI(lifespan=lifespan_of(log))
    app.include_router(APIRouter(lifespan=lifespan_of(log, "early router")))
    install(app, pumps=[pump_of(log)])
    app.include_router(APIRouter(lifespan=lifespan_of(log, "late router")))
    run(live(Life(app, log=log)))
    assert sorted(log[:3]) == ["early router opens", "late router opens", "resource opens"]
    assert log[3:6] == ["pump starts", "startup.complete", "pump ends"]
    assert sorted(log[6:9]) == ["early router closes", "late router closes", "resource closes"]


def test_plain_asgi_app_with_a_lifespan() -> None:
    """A1: A plain ASGI app that answers the lifespan's messages itself has its pumps inside."""
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "lifespan"
        assert (await receive())["type"] == "lifespan.startup"
        log.append("resource opens")
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        log.append("resource closes")
        await send({"type": "lifespan.shutdown.complete"})

    wrapped = TaskGroupMiddleware(app, pumps=[pump_of(log)])
    assert run(live(Life(wrapped, log=log))) == ORDER


def test_app_that_refuses_the_lifespan(errors: list[logging.LogRecord]) -> None:
    """A1: Pumps of an app that fails for a lifespan can't run, which is an error in the log."""
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"

    wrapped = TaskGroupMiddleware(app, pumps=[pump_of(log)])
    assert run(live(Life(wrapped, log=log))) == []
    assert [record.levelname for record in errors] == ["ERROR"]
    assert "none of its pumps can run" in errors[0].getMessage()


def test_app_that_ignores_the_lifespan(errors: list[logging.LogRecord]) -> None:
    """A1: Pumps of an app that just returns from a lifespan can't run, which is an error too."""
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        return

    wrapped = TaskGroupMiddleware(app, pumps=[pump_of(log)])
    assert run(live(Life(wrapped, log=log))) == []
    assert "none of its pumps can run" in errors[0].getMessage()


def test_app_without_pumps_needs_no_lifespan(errors: list[logging.LogRecord]) -> None:
    """A1: An app without pumps need not have a lifespan."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        return

    run(live(Life(TaskGroupMiddleware(app))))
    assert errors == []


def test_failing_start_up_starts_no_pump() -> None:
    """A1: No pump starts when the user's start-up fails; the server is told as without pumps."""
    log: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        raise ZeroDivisionError("no database")
        yield

    app = Starlette(lifespan=lifespan)
    install(app, pumps=[pump_of(log)])

    async def main() -> Life:
        life = Life(app, log=log)
        assert await life.start() == "startup.failed"
        await life.stop()
        return life

    life = run(main())
    assert log == ["startup.failed"]
    assert "no database" in life.sent[0]["message"]
    assert isinstance(life.error, ZeroDivisionError)


def test_failing_shutdown_comes_after_the_pumps() -> None:
    """A1: A user's shutdown that fails does so after the pumps have ended, and the server knows."""
    log: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        yield
        raise ZeroDivisionError

    app = Starlette(lifespan=lifespan)
    install(app, pumps=[pump_of(log)])
    life = Life(app, log=log)
    run(live(life))
    assert log == ["pump starts", "startup.complete", "pump ends", "shutdown.failed"]
    assert isinstance(life.error, ZeroDivisionError)


def test_several_runs_of_an_app() -> None:
    """A1: An app may run several times; each run has pumps and a group of its own."""
    log: list[str] = []
    app = Starlette(lifespan=lifespan_of(log))
    install(app, pumps=[pump_of(log)])
    for _ in range(3):
        log.clear()
        assert run(live(Life(app, log=log))) == ORDER


def test_two_runs_at_once() -> None:
    """A1: Two servers may run one app at once: the end of one run leaves the other's pumps."""
    log: list[str] = []
    other: list[str] = []
    app = Starlette(lifespan=lifespan_of(log))
    install(app, pumps=[pump_of(log)])

    async def main() -> None:
        async with Life(app, log=other):
            async with Life(app, log=other):
                await settle()
            assert log.count("pump starts") == 2
            assert log.count("pump ends") == 1

    run(main())
    assert log.count("pump ends") == 2


def test_run_that_begins_while_others_are_looked_at() -> None:
    """A1: Whoever looks at the runs of an app, as for its health, finds those that there are, also
    if another begins meanwhile in a thread."""
    app = Starlette()
    install(app)

    async def main() -> None:
        async with Life(app):
            runs = runs_of(app)
            first = next(runs)
            async with Life(app):
                assert list(runs) == []
                assert first in runs_of(app)

    run(main())


def test_lifespan_that_is_cancelled() -> None:
    """A1: A server that cancels the lifespan ends the pumps before the resources close."""
    log: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        try:
            yield
        finally:
            log.append("resource closes")

    app = Starlette(lifespan=lifespan)
    install(app, pumps=[pump_of(log)])

    async def main() -> None:
        life = Life(app, log=log)
        await life.start()
        await settle()
        await life.give_up()
        assert len(asyncio.all_tasks()) == 1

    run(main())
    ended = [line for line in log if line in {"pump ends", "resource closes"}]
    assert ended == ["pump ends", "resource closes"]


def test_pumps_of_a_mounted_app(errors: list[logging.LogRecord]) -> None:
    """A2: Pumps that never start, since no lifespan is run, are an error of the first request."""

    async def pump() -> None: ...

    sub = Starlette()
    install(sub, pumps=[pump])
    app = Starlette(routes=[Mount("/sub", sub)])

    async def main() -> None:
        async with Life(app) as life:
            await life.get("/sub/")
            await life.get("/sub/")

    run(main())
    [error] = errors
    assert "mounted" in error.getMessage()
    assert "pump" in error.getMessage()


def test_pumps_that_are_added_after_install(errors: list[logging.LogRecord]) -> None:
    """A2: So it is with pumps that an installed collection was given later."""

    async def pump() -> None: ...

    pumps = Pumps()
    app = Starlette()
    install(app, pumps=pumps)
    pumps.add(pump)
    run(get(app))
    [error] = errors
    assert "and neither are its pumps: " in error.getMessage()
