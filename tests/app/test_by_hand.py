"""task_group_lifespan, for those who put their lifespan together themselves."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette

from quattro_web import Pump, Pumps, install, task_group_lifespan
from tests.support.apps import lifespan_of, pump_of, settle, soon
from tests.support.asgi import run
from tests.support.lifespan import Life


def live(app: Any, log: list[str]) -> Life:
    life = Life(app, log=log)

    async def main() -> None:
        async with life:
            await settle()

    run(main())
    return life


def test_order() -> None:
    """A1: By hand, too, the resources are around the pumps."""
    log: list[str] = []
    lifespan = task_group_lifespan(lifespan_of(log), pumps=[pump_of(log)])
    live(Starlette(lifespan=lifespan), log)
    assert log == [
        "resource opens",
        "pump starts",
        "startup.complete",
        "pump ends",
        "resource closes",
        "shutdown.complete",
    ]


def test_without_a_lifespan_of_the_user() -> None:
    """A1: By hand, the user's own lifespan may be left out."""
    log: list[str] = []
    live(FastAPI(lifespan=task_group_lifespan(pumps=[pump_of(log)])), log)
    assert log == ["pump starts", "startup.complete", "pump ends", "shutdown.complete"]


def test_collection_of_pumps() -> None:
    """A2: By hand, as with install, a collection is taken, and may be filled until the start."""
    log: list[str] = []
    pumps = Pumps()
    app = Starlette(lifespan=task_group_lifespan(pumps=pumps))
    pumps.add(pump_of(log))
    live(app, log)
    assert log == ["pump starts", "startup.complete", "pump ends", "shutdown.complete"]


async def forever() -> None:
    await asyncio.Event().wait()


async def undecorated(app: Any) -> AsyncIterator[None]:
    yield


@pytest.mark.parametrize(
    ("lifespan", "way_out"),
    [
        (forever, r"pumps=\[\.\.\.\]"),
        (Pump(forever), r"pumps=\[\.\.\.\]"),
        ([forever], r"pumps=\[\.\.\.\]"),
        (undecorated, "@contextlib.asynccontextmanager"),
    ],
)
def test_what_is_no_lifespan(lifespan: Any, way_out: str) -> None:
    """A1: A pump in the place of the lifespan is an error at once, that says where pumps go."""
    with pytest.raises(
        TypeError, match=f"lifespan must return an async context manager, .*: .*{way_out}"
    ):
        task_group_lifespan(lifespan)


def test_lifespan_that_yields_nothing() -> None:
    """A2: A lifespan that yields nothing gives the pumps an empty state."""
    log: list[Any] = []

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        yield

    async def pump(state: Any) -> None:
        log.append(dict(state))
        await asyncio.Event().wait()

    live(Starlette(lifespan=task_group_lifespan(lifespan, pumps=[pump])), [])
    assert log == [{}]


def test_state_reaches_pumps_and_requests() -> None:
    """A1: By hand, what the user's lifespan yields reaches the pumps and the requests' state."""
    log: list[str] = []

    async def pump(state: dict[str, str]) -> None:
        log.append(state["colour"])
        await asyncio.Event().wait()

    lifespan = task_group_lifespan(lifespan_of([], colour="red"), pumps=[pump])
    assert live(Starlette(lifespan=lifespan), []).state["colour"] == "red"
    assert log == ["red"]


def test_the_app_is_given_to_the_lifespan() -> None:
    """A1: By hand, the user's lifespan gets the app, as it does alone."""
    apps: list[Starlette] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        apps.append(app)
        yield

    app = Starlette(lifespan=task_group_lifespan(lifespan))
    live(app, [])
    assert apps == [app]


def test_failing_start_up_starts_no_pump() -> None:
    """A1: By hand, too, no pump starts when the user's start-up fails."""
    log: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        raise ZeroDivisionError
        yield

    app = Starlette(lifespan=task_group_lifespan(lifespan, pumps=[pump_of(log)]))

    async def main() -> None:
        life = Life(app, log=log)
        assert await life.start() == "startup.failed"
        await life.stop()

    run(main())
    assert log == ["startup.failed"]


@pytest.mark.parametrize("number", [1, 2])
def test_failure_comes_out_after_the_resources_have_closed(number: int) -> None:
    """A3: By hand, too, a pump's failure comes out of the lifespan, when all else is closed."""
    log: list[str] = []

    async def broken() -> None:
        await soon()
        raise ZeroDivisionError

    lifespan = task_group_lifespan(lifespan_of(log), pumps=[broken] * number)
    life = live(Starlette(lifespan=lifespan), log)
    expected = ZeroDivisionError if number == 1 else ExceptionGroup
    assert isinstance(life.error, expected)
    assert log[-2:] == ["resource closes", "shutdown.failed"]


def test_body_that_raises_ends_the_pumps() -> None:
    """A1: By hand, an error inside of the lifespan ends the pumps before the resources close."""
    log: list[str] = []

    async def main() -> None:
        lifespan = task_group_lifespan(lifespan_of(log), pumps=[pump_of(log)])
        with pytest.raises(ZeroDivisionError):
            async with lifespan(Starlette()):
                await settle()
                raise ZeroDivisionError

    run(main())
    assert log == ["resource opens", "pump starts", "pump ends", "resource closes"]


def test_install_on_top() -> None:
    """A1: install on top of it adds its pumps inside: they end first, after its work."""
    log: list[str] = []
    lifespan = task_group_lifespan(lifespan_of(log), pumps=[pump_of(log, "outer")])
    app = Starlette(lifespan=lifespan)
    install(app, pumps=[pump_of(log, "inner")])

    async def work() -> None:
        await settle()
        log.append("work done")

    async def main() -> None:
        async with Life(app, log=log) as life:
            await settle()
            (await life.group()).create_task(work)

    run(main())
    assert log == [
        "resource opens",
        "outer starts",
        "inner starts",
        "startup.complete",
        "work done",
        "inner ends",
        "outer ends",
        "resource closes",
        "shutdown.complete",
    ]
