"""Types of `quattro_web`, which the type checkers check: nothing of this runs."""

from __future__ import annotations

import asyncio
from typing import assert_type

from fastapi import APIRouter, Depends, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection

from quattro_web import (
    AppTaskGroup,
    MapResults,
    PumpHealth,
    Pumps,
    ShutdownEvent,
    ShutdownGrace,
    TaskGroup,
    TaskGroupMiddleware,
    app_task_group,
    cancel_on_disconnect,
    install,
    request_task_group,
    set_deadline,
    shutdown_event,
    task_group_lifespan,
    time_left,
)
from quattro_web import fastapi as aliases
from tests.typing.core import length, number, text


async def requests(conn: HTTPConnection) -> None:
    assert_type(request_task_group(conn), TaskGroup)
    assert_type(request_task_group(conn).create_task(number()), asyncio.Task[int])
    assert_type(request_task_group(conn.scope), TaskGroup)
    request_task_group("scope")  # type: ignore[arg-type]


async def apps(conn: HTTPConnection) -> None:
    assert_type(app_task_group(conn), AppTaskGroup)
    # None if it has failed.
    assert_type(app_task_group(conn).create_task(number()), asyncio.Task[int | None])
    assert_type(app_task_group(conn).create_task(number, name="one"), asyncio.Task[int | None])
    assert_type(shutdown_event(conn), ShutdownEvent)
    app_task_group(conn).create_task(length)  # type: ignore[arg-type]
    app_task_group(conn).create_task(1)  # type: ignore[arg-type]


pumps = Pumps()


@pumps.pump
async def poll() -> int:
    return 1


@pumps.pump(on_failure="restart")
async def keep(*, shutdown: ShutdownEvent) -> None: ...


async def collected(event: ShutdownEvent) -> None:
    """What is decorated keeps its type."""
    assert_type(await poll(), int)
    await keep(shutdown=event)
    await keep()  # type: ignore[call-arg]
    pumps.pump(name="poll")(1)  # type: ignore[type-var]
    pumps.pump(policy="restart")  # type: ignore[call-overload]
    pumps.pump(on_return="again")  # type: ignore[call-overload]
    pumps.pump(ready_timeout="30")  # type: ignore[call-overload]
    Starlette(lifespan=task_group_lifespan(pumps=pumps))
    FastAPI(lifespan=task_group_lifespan(pumps=[poll]))


def options(app: FastAPI) -> None:
    """Each option of install and of the middleware has its type, also by way of Middleware."""
    install(app, pumps=[poll], deadline=3, shutdown_grace=ShutdownGrace(requests=1))
    install(app, deadline={"/": 3, "/events": None}, stream_deadline=60)
    install(app, deadline="3")  # type: ignore[arg-type]
    install(app, deadline={"/": "3"})  # type: ignore[dict-item]
    install(app, limit=3)  # type: ignore[call-arg]
    Middleware(TaskGroupMiddleware, concurrency_limit=3, deadline_header=None)
    Middleware(TaskGroupMiddleware, concurrency_limit="3")  # type: ignore[arg-type]
    Middleware(TaskGroupMiddleware, limit=3)  # type: ignore[call-arg]


def health(pump: PumpHealth) -> None:
    assert_type(pump.last_error, Exception | None)


async def handler(
    tg: aliases.RequestTaskGroup,
    app_tg: aliases.AppTaskGroup,
    event: aliases.ShutdownEvent,
    left: aliases.TimeLeft,
    conn: HTTPConnection,
) -> None:
    """The parameters of a FastAPI handler are what they are an alias of."""
    assert_type(tg, TaskGroup)
    assert_type(tg.create_task(number()), asyncio.Task[int])
    assert_type(tg.create_background_task(text), asyncio.Task[str])
    assert_type(await tg.gather(number(), text()), tuple[int, str])
    assert_type(tg.map(length, ["a"], limit=1), MapResults[int])
    assert_type(app_tg, AppTaskGroup)
    assert_type(app_tg.create_task(text()), asyncio.Task[str | None])
    assert_type(app_tg.run_in_thread(len, "a"), asyncio.Task[int | None])
    assert_type(app_tg.run_in_process(len, "a"), asyncio.Task[int | None])
    assert_type(event, ShutdownEvent)
    assert_type(left(), float | None)
    assert_type(aliases.Deadline(30), aliases.RouteDependency)
    assert_type(aliases.CancelOnDisconnect(on=False), aliases.RouteDependency)
    assert_type(aliases.ConcurrencyLimit(3), aliases.RouteDependency)
    FastAPI(dependencies=[aliases.Deadline(30)])
    APIRouter(dependencies=[aliases.CancelOnDisconnect(), aliases.ConcurrencyLimit(3)])
    FastAPI(dependencies=[Depends(aliases.Deadline(30)), Depends(aliases.CancelOnDisconnect())])
    aliases.CancelOnDisconnect(False)  # type: ignore[call-arg]
    cancel_on_disconnect(conn, on=False)
    cancel_on_disconnect(conn, False)  # type: ignore[call-arg]
    aliases.Deadline("30")  # type: ignore[arg-type]
    aliases.Deadline(30, 60)  # type: ignore[call-arg]
    set_deadline(conn, None)
    set_deadline(conn, 30, stream=60)
    assert_type(time_left(conn), float | None)
    aliases.ConcurrencyLimit(1.5)  # type: ignore[arg-type]
