"""install, the one call that sets an app up."""

from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from quattro_web import Pump, Pumps, TaskGroupMiddleware, install, request_task_group
from tests.support.asgi import get, run
from tests.support.lifespan import Life

APPS = pytest.mark.parametrize("make", [Starlette, FastAPI])


async def endpoint(request: Request) -> Response:
    request_task_group(request)
    return PlainTextResponse("")


def order(app: Starlette) -> list[str]:
    """The names of the layers of an app, from the outside in."""
    run(get(app))  # the first request builds them
    names = []
    layer: Any = app.middleware_stack
    while layer is not None:
        names.append(type(layer).__name__)
        layer = getattr(layer, "app", None)
    return names


@APPS
def test_innermost_of_the_middlewares(make: type[Starlette]) -> None:
    """R10: It is the innermost middleware, whatever was added before or comes after."""
    app = make(middleware=[Middleware(GZipMiddleware)])
    app.add_middleware(CORSMiddleware)
    install(app)
    app.add_middleware(CORSMiddleware)
    names = order(app)
    at = names.index("CORSMiddleware")  # FastAPI has one of its own before that
    assert names[at : at + 5] == [
        "CORSMiddleware",
        "CORSMiddleware",
        "GZipMiddleware",
        "TaskGroupMiddleware",
        "ExceptionMiddleware",
    ]


def test_routes_may_come_later() -> None:
    """R1: Routes that are added after the install have their group."""
    app = Starlette()
    install(app)
    app.router.routes.append(Route("/", endpoint))
    assert run(get(app)).status == 200


@APPS
def test_twice(make: type[Starlette]) -> None:
    """R12: A second install is an error that says so, and changes nothing."""
    app = make()
    install(app)
    with pytest.raises(RuntimeError, match=r"already: call install\(app\) once"):
        install(app)
    assert len(app.user_middleware) == 1


def test_on_top_of_the_middleware_by_hand() -> None:
    """R12: An install next to a TaskGroupMiddleware added by hand is the same error."""
    app = Starlette(middleware=[Middleware(TaskGroupMiddleware)])
    with pytest.raises(RuntimeError, match="has its TaskGroupMiddleware already"):
        install(app)


def test_after_the_first_request() -> None:
    """R12: An install after the first request is an error that says when to call it."""
    app = Starlette()
    run(get(app))
    with pytest.raises(RuntimeError, match="before its first request or lifespan"):
        install(app)
    assert app.user_middleware == []


def test_within_the_lifespan() -> None:
    """R12: An install when the lifespan has begun is too late as well: an error."""
    app = Starlette()

    async def main() -> None:
        async with Life(app):
            with pytest.raises(RuntimeError, match="has begun to serve"):
                install(app)

    run(main())


@pytest.mark.parametrize("app", [endpoint, TaskGroupMiddleware(Starlette()), None])
def test_another_kind_of_app(app: Any) -> None:
    """R12: An app of another kind is a TypeError that names the middleware to use."""
    with pytest.raises(TypeError, match="wrap it in TaskGroupMiddleware"):
        install(app)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"concurrency_limit": 0}, ValueError),
        ({"concurrency_limit": "5"}, TypeError),
        ({"pumps": [None]}, TypeError),
        ({"pumps": endpoint}, TypeError),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception]) -> None:
    """R12: A bad option is an error in the call of install, which leaves the app as it was."""
    app = Starlette()
    with pytest.raises(error):
        install(app, **options)
    assert app.user_middleware == []


def test_pumps_may_be_any_iterable() -> None:
    """A2: The pumps may come from a generator: every run of the app has them all."""
    started: list[str] = []

    async def pump() -> None:
        started.append("pump")

    app = Starlette()
    install(app, pumps=(each for each in [pump]))

    async def main() -> None:
        async with Life(app):
            pass

    for _ in range(2):
        run(main())
    assert started == ["pump", "pump"]


@pytest.mark.parametrize("is_collection", [True, False])
def test_pumps_next_to_those_of_a_part(*, is_collection: bool) -> None:
    """A2, D1: An app with jobs has their pumps and its own, also those that a collection is given
    after install."""
    started: list[str] = []

    async def own() -> None:
        started.append("own")

    async def of_the_part() -> None:
        started.append("of the part")

    class Part:
        def pumps_for(self, app: Starlette) -> list[Pump]:
            return [Pump(of_the_part)]

    pumps = Pumps()
    app = Starlette()
    install(app, jobs=Part(), pumps=pumps if is_collection else [own])
    if is_collection:
        pumps.add(own)

    async def main() -> None:
        async with Life(app):
            pass

    run(main())
    assert sorted(started) == ["of the part", "own"]
