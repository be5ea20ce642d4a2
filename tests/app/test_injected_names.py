"""The two names of what FastAPI injects: the class in quattro_web, the alias in its fastapi."""

import asyncio
import inspect

import pytest
from fastapi import FastAPI
from pydantic import BaseModel

import quattro_web
from quattro_web import install
from quattro_web.fastapi import ShutdownEvent
from tests.support.apps import settle
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


@pytest.mark.parametrize("name", ["AppTaskGroup", "ShutdownEvent"])
@pytest.mark.parametrize("default", [inspect.Parameter.empty, None])
def test_handler_takes_the_alias_alone(name: str, default: object) -> None:
    """A handler that takes the class is refused when its route is added, and the error names
    the alias to take."""
    app = FastAPI()
    cls = getattr(quattro_web, name)
    annotation = cls if default is inspect.Parameter.empty else cls | None

    async def handler(injected: object) -> None: ...

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameter = inspect.Parameter("injected", kind, default=default, annotation=annotation)
    handler.__signature__ = inspect.Signature([parameter])  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match=f"annotate the parameter with quattro_web.fastapi.{name}"):
        app.get("/")(handler)


def test_model_may_hold_the_class() -> None:
    """A model of pydantic that allows arbitrary types may have one of the class."""

    class Page(BaseModel, arbitrary_types_allowed=True):
        shutdown: quattro_web.ShutdownEvent

    event = quattro_web.ShutdownEvent(asyncio.Event())
    assert Page(shutdown=event).shutdown is event
