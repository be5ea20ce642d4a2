"""The two names of the event that tells of the shutdown: the class, and what FastAPI takes."""

import pytest
from fastapi import FastAPI
from fastapi.exceptions import FastAPIError

import quattro_web
from quattro_web import install
from quattro_web.fastapi import ShutdownEvent
from tests.app.apps import settle
from tests.support.asgi import run
from tests.support.lifespan import Life


@pytest.mark.parametrize("annotation", [ShutdownEvent, quattro_web.ShutdownEvent])
def test_pump_may_have_either(annotation: object) -> None:
    """A6: What FastAPI takes in a handler annotates a pump as well, which gets the event."""
    log: list[bool] = []

    async def pump(*, shutdown: ShutdownEvent) -> None:
        log.append(shutdown.is_set())
        await shutdown.wait()
        log.append(shutdown.is_set())

    pump.__annotations__["shutdown"] = annotation
    app = FastAPI()
    install(app, pumps=[pump])

    async def main() -> None:
        async with Life(app):
            await settle()

    run(main())
    assert log == [False, True]


def test_handler_takes_the_alias_alone() -> None:
    """A6: A handler that takes the class is told so by FastAPI, when its route is added."""
    app = FastAPI()

    async def handler(shutdown: quattro_web.ShutdownEvent) -> None: ...

    with pytest.raises(FastAPIError, match="Invalid args for response field!"):
        app.get("/")(handler)
