"""The two names of what FastAPI injects: the class in quattro_web, the alias in its fastapi."""

import asyncio
import inspect
from typing import Annotated, Any

import pydantic
import pytest
from fastapi import Depends, FastAPI, Security
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

import quattro_web
from quattro_web import install, request_task_group
from quattro_web.fastapi import (
    AppTaskGroup,
    CancelOnDisconnect,
    ConcurrencyLimit,
    Deadline,
    RequestTaskGroup,
    ShutdownEvent,
    TimeLeft,
)
from tests.support.apps import settle
from tests.support.asgi import Exchange, get, run
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


TELLS = pytest.mark.skipif(
    tuple(map(int, pydantic.VERSION.split(".")[:2])) < (2, 13),
    reason="a pydantic that keeps the error of a class to itself",
)


@TELLS
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
        group: quattro_web.TaskGroup

    event, group = quattro_web.ShutdownEvent(asyncio.Event()), quattro_web.TaskGroup()
    page = Page(shutdown=event, group=group)
    assert (page.shutdown, page.group) == (event, group)


@TELLS
def test_the_class_of_the_group() -> None:
    """R12: So is a handler that takes the class of the request's group."""
    app = FastAPI()

    async def handler(tg: quattro_web.TaskGroup) -> None: ...

    with pytest.raises(TypeError, match=r"with quattro_web\.fastapi\.RequestTaskGroup, which"):
        app.get("/")(handler)


@TELLS
@pytest.mark.parametrize(
    ("alias", "line"),
    [
        (RequestTaskGroup, "tg: RequestTaskGroup"),
        (AppTaskGroup, "app_tg: AppTaskGroup"),
        (ShutdownEvent, "shutdown: ShutdownEvent"),
        (TimeLeft, "time_left: TimeLeft"),
    ],
)
def test_alias_in_depends(alias: Any, line: str) -> None:
    """R12: `Depends` around an alias, which has it, is an error that names the right line, and not
    a parameter of the client's."""
    app = FastAPI()

    async def handler(injected: object = Depends(alias)) -> None: ...

    told = f"write {line} as a parameter, without Depends"
    with pytest.raises(TypeError, match=told):
        app.get("/")(handler)
    with pytest.raises(TypeError, match=told):
        app.get("/", dependencies=[alias])(slow)


@TELLS
@pytest.mark.parametrize("name", ["TaskGroup", "AppTaskGroup", "ShutdownEvent"])
@pytest.mark.parametrize("is_annotated", [False, True])
def test_class_in_depends(name: str, is_annotated: bool) -> None:
    """R12: `Depends` with the class, which FastAPI would make an object of, is such an error, also
    where the class is the annotation."""
    app = FastAPI()
    cls = getattr(quattro_web, name)

    async def handler(injected: object) -> None: ...

    kind = inspect.Parameter.KEYWORD_ONLY
    given: Any = (
        {"annotation": cls, "default": Depends()} if is_annotated else {"default": Depends(cls)}
    )
    parameter = inspect.Parameter("injected", kind, **given)
    handler.__signature__ = inspect.Signature([parameter])  # type: ignore[attr-defined]
    alias = "RequestTaskGroup" if name == "TaskGroup" else name
    with pytest.raises(TypeError, match=rf"quattro_web\.fastapi\.{alias}, .*without Depends"):
        app.get("/")(handler)


@TELLS
@pytest.mark.parametrize(
    "function",
    [
        quattro_web.app_task_group,
        quattro_web.cancel_on_disconnect,
        quattro_web.request_task_group,
        quattro_web.set_concurrency_limit,
        quattro_web.shutdown_event,
        quattro_web.time_left,
    ],
)
def test_function_in_depends(function: Any) -> None:
    """R12: What is called with a request is no dependency: an error, and no body of the client's
    that is missing."""
    app = FastAPI()
    with pytest.raises(TypeError, match=r"write the parameter or dependency that quattro_web\."):
        app.get("/", dependencies=[Depends(function)])(slow)


SLOW = 3600.0


async def slow() -> None:
    await asyncio.sleep(SLOW)


@pytest.mark.parametrize("dependency", [Deadline(1), Depends(Deadline(1)), Security(Deadline(1))])
def test_deadline_in_depends(dependency: Any) -> None:
    """R8: A deadline is one in `Depends` as well."""
    app = FastAPI()
    install(app)
    app.get("/", dependencies=[dependency])(slow)
    assert run(get(app)).status == 504


@pytest.mark.parametrize("is_annotated", [False, True])
def test_deadline_of_a_parameter(is_annotated: bool) -> None:
    """R8: And where it is a parameter of the handler."""
    app = FastAPI()
    install(app)

    async def handler(limit: object) -> None:
        await slow()

    kind = inspect.Parameter.KEYWORD_ONLY
    deadline: Any = Depends(Deadline(1))
    given: Any = (
        {"annotation": Annotated[None, deadline]} if is_annotated else {"default": deadline}
    )
    parameter = inspect.Parameter("limit", kind, **given)
    handler.__signature__ = inspect.Signature([parameter])  # type: ignore[attr-defined]
    app.get("/")(handler)
    assert run(get(app)).status == 504


@pytest.mark.parametrize(
    "dependency", [CancelOnDisconnect, CancelOnDisconnect(), Depends(CancelOnDisconnect())]
)
def test_cancel_on_disconnect_called_or_not(dependency: Any) -> None:
    """R7: A route is cancelled when its client leaves, in `Depends` as well, or without a call."""
    app = FastAPI()
    install(app)
    app.get("/", dependencies=[dependency])(slow)

    async def main() -> None:
        exchange = await Exchange(app).disconnect_after(1).run()
        assert exchange.status == 499
        assert asyncio.get_running_loop().time() < SLOW

    run(main())


def test_concurrency_limit_in_depends() -> None:
    """R12: A limit is one in `Depends` as well."""
    app = FastAPI()
    install(app)

    @app.get("/", dependencies=[Depends(ConcurrencyLimit(1))])
    async def handler(tg: RequestTaskGroup) -> None:
        await tg.gather(asyncio.sleep(1), asyncio.sleep(1))

    async def main() -> None:
        assert (await get(app)).status == 200
        assert round(asyncio.get_running_loop().time()) == 2

    run(main())


@TELLS
@pytest.mark.parametrize(
    ("function", "line"),
    [
        (Deadline, r"Deadline\(30\)"),
        (ConcurrencyLimit, r"ConcurrencyLimit\(3\)"),
        (CancelOnDisconnect, r"CancelOnDisconnect\(\)"),
    ],
)
def test_not_called(function: Any, line: str) -> None:
    """R12: What has to be called first is an error that says so, in `Depends` and without it."""
    for dependency in (Depends(function), function):
        app = FastAPI()
        if dependency is CancelOnDisconnect:
            continue
        with pytest.raises(TypeError, match=f"write {line}"):
            app.get("/", dependencies=[dependency])(slow)


def test_habits_from_other_groups() -> None:
    """R12: What other task groups have is an error in the request's that names the right line, and
    no error names a class that nobody has heard of."""
    app = FastAPI()
    install(app)
    said: list[str] = []

    @app.get("/")
    async def handler(tg: RequestTaskGroup) -> None:
        group: Any = tg
        for name in ("start_soon", "start", "nursery"):
            assert not hasattr(group, name)
            try:
                getattr(group, name)(slow)
            except AttributeError as exc:
                said.append(str(exc))
        for create in (group.create_task, group.create_background_task):
            with pytest.raises(TypeError, match=r"as in create_\w+\(slow\(3\)\)"):
                create(slow, 3)
        try:
            async with tg:
                said.append("never")
        except RuntimeError as exc:
            said.append(str(exc))

    assert run(get(app)).status == 200
    assert said[0].startswith("TaskGroup has no start_soon: write create_task(function(...))")
    assert said[1].startswith("TaskGroup has no start: write create_task(function(...)), and have")
    assert said[2] == "'TaskGroup' object has no attribute 'nursery'"
    assert "use it without async with; for a group of your own, write async with" in said[3]


def returning(path: str) -> FastAPI | Starlette:
    """An app whose handler returns what nobody has awaited."""

    async def call() -> int:
        return 3

    async def endpoint(request: Request) -> Any:
        return request_task_group(request).create_task(call())

    if path == "/starlette":
        return Starlette(routes=[Route(path, endpoint)])
    app = FastAPI()

    @app.get("/task", response_model=None)
    async def task(tg: RequestTaskGroup) -> Any:
        return tg.create_task(call())

    @app.get("/in-a-list", response_model=None)
    async def in_a_list(tg: RequestTaskGroup) -> Any:
        return [3, tg.create_task(call())]

    @app.get("/future")
    def future(tg: RequestTaskGroup) -> Any:
        return tg.create_task(call())

    @app.get("/untyped", response_model=None)
    def untyped(tg: RequestTaskGroup) -> Any:
        return tg.create_task(call())

    @app.get("/typed", response_model=int)
    async def typed(tg: RequestTaskGroup) -> Any:
        return tg.create_task(call())

    @app.get("/coroutine")
    async def coroutine(tg: RequestTaskGroup) -> Any:
        coro = call()
        tg.create_task(asyncio.sleep(0)).add_done_callback(lambda _: coro.close())
        return coro

    return app


@pytest.mark.parametrize(
    "path", ["/task", "/in-a-list", "/future", "/untyped", "/typed", "/coroutine", "/starlette"]
)
def test_handler_that_returns_a_task(path: str) -> None:
    """R12: A handler that returns a task or a coroutine, and has not awaited it, fails as it does
    without us, with a note that says what to write."""
    app = returning(path)
    install(app)
    error = run(get(app, path)).error
    assert error is not None
    kind = "coroutine" if path == "/coroutine" else "task"
    [note] = error.__notes__
    assert note.startswith(f"the handler has returned a {kind}: write `return await ...` in an as")


def test_habits_from_the_group_of_a_request() -> None:
    """R12, A5: What the app's group has not is an error that names the right line."""
    app = FastAPI()
    install(app)
    said: list[str] = []

    @app.get("/")
    async def handler(app_tg: AppTaskGroup) -> None:
        group: Any = app_tg
        for name in ("gather", "map", "start_soon", "add_task", "create_background_task"):
            with pytest.raises(AttributeError) as caught:
                getattr(group, name)(slow)
            said.append(str(caught.value))
        with pytest.raises(AttributeError, match="AppTaskGroup has no async with: write app_tg"):
            async with group:
                said.append("never")
        with pytest.raises(TypeError, match=r"as in create_task\(slow\(3\)\)"):
            group.create_task(slow, 3)

    async def main() -> None:
        async with Life(app) as life:
            assert (await life.get("/")).status == 200

    run(main())
    assert said[0].startswith("AppTaskGroup has no gather: write await tg.gather(...) with the req")
    assert said[1].startswith("AppTaskGroup has no map: write await tg.map(...) with the request's")
    for line in said[2:4]:
        assert line.endswith("write create_task(function(...)), which takes a coroutine")
    assert said[4].endswith("or install(app, pumps=[function]) for what runs as long as the app")


def test_time_left() -> None:
    """R8: `TimeLeft` is a function that returns what `time_left` does, as it passes; in a thread
    as well."""
    app = FastAPI()
    install(app)
    seen: list[float | None] = []

    @app.get("/", dependencies=[Deadline(5)])
    async def handler(time_left: TimeLeft) -> None:
        seen.append(time_left())
        await asyncio.sleep(2)
        seen.append(time_left())

    @app.get("/none")
    def in_a_thread(time_left: TimeLeft) -> None:
        seen.append(time_left())

    assert run(get(app)).status == 200
    assert run(get(app, "/none")).status == 200
    assert seen == [5, 3, None]


def test_time_left_without_install() -> None:
    """R12: In an app that is not installed the error names the call that is missing."""
    app = FastAPI()

    @app.get("/")
    async def handler(time_left: TimeLeft) -> None: ...

    error = run(get(app)).error
    assert isinstance(error, quattro_web.NoTaskGroupError)
