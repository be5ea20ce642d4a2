"""What is no argument is an error at once, which names the argument and shows the value."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import quattro_web
from quattro_web import (
    NoTaskGroupError,
    Pump,
    Pumps,
    TaskGroupMiddleware,
    app_health,
    cancel_on_disconnect,
    install,
    request_task_group,
    set_concurrency_limit,
    task_group_lifespan,
    uninterrupted,
)
from quattro_web.fastapi import CancelOnDisconnect, ConcurrencyLimit, Deadline, task_router
from quattro_web.tasks import task_routes
from tests.support.asgi import get, run


def enter_uninterrupted(conn: Any) -> None:
    with uninterrupted(conn):
        pass


async def forever() -> None: ...


SECONDS: dict[str, Callable[[Any], object]] = {
    "deadline": lambda value: install(Starlette(), deadline=value),
    "ready_timeout": lambda value: Pump(forever, ready_timeout=value),
    "seconds": Deadline,
}
LIMITS: list[tuple[str, Callable[..., object]]] = [
    ("concurrency_limit", partial(install, Starlette())),
    ("total_limit", partial(install, Starlette())),
    ("max_waiting", partial(install, Starlette(), total_limit=1)),
    ("app_concurrency_limit", partial(install, Starlette())),
    ("app_max_waiting", partial(install, Starlette(), app_concurrency_limit=1)),
    ("app_concurrency_limit", task_group_lifespan),
    ("app_max_waiting", partial(task_group_lifespan, app_concurrency_limit=1)),
    ("limit", ConcurrencyLimit),
    ("limit", partial(set_concurrency_limit, {})),
]
FLAGS: list[tuple[str, Callable[..., object]]] = [
    ("cancel_on_disconnect", partial(install, Starlette())),
    ("child_spans", partial(install, Starlette())),
    ("on", CancelOnDisconnect),
    ("on", partial(cancel_on_disconnect, {})),
    ("public", partial(task_routes, dependencies=[print])),
    ("public", partial(task_router, dependencies=[Depends(print)])),
]


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize("value", ["30", b"30", True, [30]])
def test_duration_that_is_no_number(name: str, value: object) -> None:
    """R8: A duration that is no number, such as one from the environment, is an error by name."""
    message = f"{name} must be a number of seconds or None, got {value!r}"
    with pytest.raises(TypeError, match=re.escape(message)):
        SECONDS[name](value)


@pytest.mark.parametrize(("name", "function"), LIMITS)
@pytest.mark.parametrize("value", ["3", 1.5, True])
def test_limit_that_is_no_int(name: str, function: Callable[..., object], value: object) -> None:
    """C6: A limit that is no int is an error that names the argument as its caller knows it."""
    with pytest.raises(TypeError, match=f"^{name} must be an int or None, got {value!r}$"):
        function(**{name: value})


@pytest.mark.parametrize(("name", "function"), LIMITS)
def test_limit_that_is_too_low(name: str, function: Callable[..., object]) -> None:
    """C6: A limit that nothing could pass is an error that names the argument in the same way."""
    with pytest.raises(ValueError, match=f"^{name} must be >= [01], got -1$"):
        function(**{name: -1})


@pytest.mark.parametrize(("name", "function"), FLAGS)
@pytest.mark.parametrize("value", ["no", 1, None])
def test_flag_that_is_no_bool(name: str, function: Callable[..., object], value: object) -> None:
    """R7, O2: An option that is on or off takes True and False alone: the "no" of an environment
    variable would turn it on."""
    with pytest.raises(TypeError, match=f"^{name} must be True or False, got {value!r}$"):
        function(**{name: value})


@pytest.mark.parametrize("header", ["", "x timeout", "x-délai"])
def test_header_that_no_client_can_send(header: str) -> None:
    """R8: The name of a header that never comes is an error, and not a deadline that never is."""
    with pytest.raises(ValueError, match=f"deadline_header must be the name of .*got {header!r}"):
        install(Starlette(), deadline_header=header)


def test_header_that_is_no_string() -> None:
    """R8: Something else than the name of a header is an error that names the argument."""
    with pytest.raises(TypeError, match="deadline_header must be a str, got True"):
        install(Starlette(), deadline_header=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("pumps", [None, 3, forever, Pump(forever)])
def test_pumps_that_are_no_list(pumps: Any) -> None:
    """A2: What is no list of pumps is an error that names the argument, and shows how to write."""
    for function in (Pumps, partial(TaskGroupMiddleware, Starlette())):
        with pytest.raises(TypeError, match=r"pumps must be a list .*write pumps=\[\.\.\.\]"):
            function(pumps=pumps)


def test_pump_that_yields() -> None:
    """A2: An async generator, as of a lifespan, is told from a function that blocks."""

    async def pump() -> Any:
        yield

    with pytest.raises(TypeError, match=r"pump is an async generator: .*leave out the yield"):
        Pump(pump)


def test_name_that_is_no_string() -> None:
    """A7: A pump's name, by which its lock is known, is a string."""
    with pytest.raises(TypeError, match="name must be a str, got 3"):
        Pump(forever, name=3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name",
    [
        "app_task_group",
        "cancel_on_disconnect",
        "cancel_reason",
        "request_task_group",
        "shutdown_event",
        "time_left",
        "uninterrupted",
    ],
)
@pytest.mark.parametrize("conn", [None, 3, "scope", Starlette(), FastAPI()])
def test_app_instead_of_a_request(name: str, conn: object) -> None:
    """R12: Who asks with the app, or something else, is told what to ask with."""
    ask = enter_uninterrupted if name == "uninterrupted" else getattr(quattro_web, name)
    with pytest.raises(TypeError, match="conn must be a request, a WebSocket or the ASGI scope"):
        ask(conn)


def test_any_mapping_is_a_scope() -> None:
    """R1: A scope that is no dict, as a middleware may hand it on, is one as well."""
    seen: list[object] = []

    class Scope(dict[str, Any]):
        pass

    async def endpoint(request: Request) -> Response:
        seen.append(quattro_web.cancel_reason(Scope(request.scope)))
        return Response()

    app = Starlette(routes=[Route("/", endpoint)])
    install(app)
    run(get(app))
    assert seen == [None]


@pytest.mark.parametrize("app", [None, "app", []])
def test_health_of_what_is_no_app(app: object) -> None:
    """A6: What is no app does not run, and the error names the missing call."""
    with pytest.raises(NoTaskGroupError, match=r"is not running: call quattro_web\.install"):
        app_health(app)


@pytest.mark.parametrize("method", ["create_task", "create_background_task"])
def test_option_that_no_task_has(method: str) -> None:
    """C1: A keyword argument that asyncio's tasks don't have is an error, and starts no child."""
    log: list[str] = []

    async def child() -> None:
        log.append("child")

    async def endpoint(request: Request) -> Response:
        with pytest.raises(TypeError, match="no_option"):
            getattr(request_task_group(request), method)(child(), no_option=True)
        return Response()

    app = Starlette(routes=[Route("/", endpoint)])
    install(app)
    assert run(get(app)).status == 200
    assert log == []
