"""One app for FastAPI and the same for Starlette, for real servers, and some that go wrong."""

import asyncio
from typing import Annotated

from fastapi import FastAPI, Query
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from quattro_web import app_task_group, install, request_task_group
from quattro_web.fastapi import AppTaskGroup, RequestTaskGroup
from tests.e2e import scenes

fastapi_app = FastAPI(lifespan=scenes.lifespan, default_response_class=PlainTextResponse)


@fastapi_app.get("/hold")
async def hold(tg: RequestTaskGroup) -> str:
    return await scenes.hold(tg)


@fastapi_app.get("/open")
async def open_gate() -> str:
    scenes.gate.set()
    return "open"


@fastapi_app.get("/notes")
async def notes() -> str:
    return ", ".join(scenes.notes)


@fastapi_app.get("/refuse")
async def refuse(tg: RequestTaskGroup) -> str:
    return await scenes.refuse(tg)


@fastapi_app.get("/blunder")
async def blunder(tg: RequestTaskGroup) -> str:
    return await scenes.blunder(tg)


@fastapi_app.get("/stream")
async def stream(tg: RequestTaskGroup) -> Response:
    return scenes.stream(tg)


@fastapi_app.get("/cut")
async def cut(tg: RequestTaskGroup, length: int | None = None) -> Response:
    return scenes.cut(tg, length)


@fastapi_app.api_route("/visit", methods=["GET", "POST"])
async def visit(
    request: Request, tg: RequestTaskGroup, name: Annotated[str | None, Query()] = None
) -> str:
    await request.body()
    return await scenes.visit(tg, name)


@fastapi_app.get("/hand-over")
async def hand_over(tg: AppTaskGroup) -> str:
    tg.create_task(scenes.work)
    return "accepted"


async def _endpoint(request: Request) -> Response:
    tg = request_task_group(request)
    name = request.query_params.get("name")
    length = request.query_params.get("length")
    match request.path_params["scene"]:
        case "stream":
            return scenes.stream(tg)
        case "cut":
            return scenes.cut(tg, None if length is None else int(length))
        case "visit":
            await request.body()
            return PlainTextResponse(await scenes.visit(tg, name))
        case "open":
            scenes.gate.set()
            return PlainTextResponse("open")
        case "notes":
            return PlainTextResponse(", ".join(scenes.notes))
        case "hand-over":
            app_task_group(request).create_task(scenes.work)
            return PlainTextResponse("accepted")
        case scene:
            text = await {
                "hold": scenes.hold,
                "refuse": scenes.refuse,
                "blunder": scenes.blunder,
            }[scene](tg)
            return PlainTextResponse(text)


starlette_app = Starlette(
    routes=[Route("/{scene}", _endpoint, methods=["GET", "POST"])],
    middleware=[Middleware(CORSMiddleware, allow_origins=["*"])],
    lifespan=scenes.lifespan,
)

install(fastapi_app, pumps=[scenes.pump])
install(starlette_app, pumps=[scenes.pump])
fastapi_app.add_middleware(CORSMiddleware, allow_origins=["*"])


# Apps that go wrong

fail = asyncio.Event()


async def failing_pump() -> None:
    await fail.wait()
    raise ZeroDivisionError("the pump is broken")


async def _fail(request: Request) -> Response:
    fail.set()
    return PlainTextResponse("as you wish")


failing_app = Starlette(
    routes=[Route("/fail", _fail), Route("/{scene}", _endpoint)], lifespan=scenes.lifespan
)
install(failing_app, pumps=[scenes.pump, failing_pump])


async def stillborn_pump() -> None:
    raise ZeroDivisionError("the pump never worked")


stillborn_app = Starlette(lifespan=scenes.lifespan)
install(stillborn_app, pumps=[scenes.pump, stillborn_pump])


async def untidy_pump() -> None:
    try:
        await asyncio.Event().wait()
    finally:
        raise ZeroDivisionError("the pump did not clean up")


untidy_app = Starlette(lifespan=scenes.lifespan)
install(untidy_app, pumps=[untidy_pump])
