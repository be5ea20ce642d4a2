"""An app whose requests have remote children: ``JOBS_URL`` and ``JOBS_NAME`` say where."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from quattro_web import (
    ShutdownGrace,
    health_routes,
    install,
    request_task_group,
    set_deadline,
    uninterrupted,
)
from quattro_web.jobs import current_job
from tests.jobs.functions import Functions, note

# Short, since these processes do nothing else.
functions = Functions(
    os.environ.get("JOBS_URL", "memory://"),
    os.environ.get("JOBS_NAME", "jobs"),
    lease=2.0,
    timeout=1.0,
    redelivery=2.0,
    clean_up=float(os.environ.get("JOBS_CLEAN_UP", "10")),
    concurrency=int(os.environ.get("JOBS_CONCURRENCY", "50")),
)
# By the names of the requests that wait for it.
may_go_on: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)


@functions.jobs.job(name="color")
async def color() -> str:
    return str(current_job().state["color"])


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[dict[str, str]]:
    yield {"color": "red"}
    note("the lifespan has ended")


async def double(request: Request) -> PlainTextResponse:
    tg = request_task_group(request)
    tasks = [tg.create_task(functions.double.remote(n)) for n in range(5)]
    return PlainTextResponse(" ".join([str(await task) for task in tasks]))


async def sleep(request: Request) -> PlainTextResponse:
    """Start a child, and return: the response waits for it."""
    tg = request_task_group(request)
    job = functions.sleep_again if "again" in request.url.path else functions.sleep
    tg.create_task(job.remote(float(request.path_params["seconds"]), 0.1))
    return PlainTextResponse("slept")


async def fail(request: Request) -> PlainTextResponse:
    request_task_group(request).create_task(functions.fail.remote(request.path_params["what"]))
    return PlainTextResponse("never seen")


async def tell_color(_: Request) -> PlainTextResponse:
    return PlainTextResponse(await color.remote())


async def tracked(request: Request) -> PlainTextResponse:
    """Fan out to jobs that say when they begin and end."""
    tg, params = request_task_group(request), request.path_params
    for number in range(int(params["count"])):
        job = functions.track if number < 2 else functions.branch
        tg.create_task(job.remote(f"{params['name']}/{number}", float(params["each"])))
    return PlainTextResponse("tracked")


async def tree(request: Request) -> PlainTextResponse:
    """Fan out to jobs, of which some have jobs of their own; go on when `/go` is asked for."""
    tg, params = request_task_group(request), request.path_params
    name = params["name"]

    def call(number: int) -> Coroutine[object, None, None]:
        job = functions.branch if number < 2 else functions.track
        return job.remote(f"{name}/{number}", 600)

    for number in range(int(params["count"])):
        tg.create_task(call(number))
    await may_go_on[name].wait()
    if params["how"] == "handler":
        raise HTTPException(409)
    if params["how"] == "sibling":
        tg.create_task(fail_soon())
    if params["how"] == "deadline":
        set_deadline(request, 0.05)
    async for _ in tg.map(call, range(100, 110), limit=3):
        pass
    return PlainTextResponse("never seen")


async def fail_soon() -> None:
    await asyncio.sleep(0.05)
    raise HTTPException(404)


async def go(request: Request) -> PlainTextResponse:
    may_go_on[request.path_params["name"]].set()
    return PlainTextResponse("it goes on")


async def hand_over(request: Request) -> PlainTextResponse:
    what = request.path_params["what"]
    if what == "kill":
        call = functions.kill_its_worker.call()
    elif what == "stay":
        call = functions.stay.call()
    elif what == "sleep":
        call = functions.sleep.call(0.5)
    elif "slowly" in what:
        call = functions.do_once.call(what, 1.0)
    else:
        call = functions.do_once.call(what)
    return PlainTextResponse(await functions.jobs.hand_over(call, key=what, conn=request))


async def left(request: Request) -> PlainTextResponse:
    tg = request_task_group(request)
    if "uninterrupted" in request.url.path:
        with uninterrupted(request):
            return PlainTextResponse(str(await tg.create_task(functions.left_seconds.remote())))
    return PlainTextResponse(str(await tg.create_task(functions.left_seconds.remote())))


app = Starlette(
    routes=[
        Route("/double", double),
        Route("/sleep/{seconds}", sleep),
        Route("/again/{seconds}", sleep),
        Route("/deadline/{seconds}", sleep),
        Route("/fail/{what}", fail),
        Route("/tracked/{name}/{count}/{each}", tracked),
        Route("/tree/{name}/{count}/{how}", tree),
        Route("/go/{name}", go),
        Route("/hand-over/{what}", hand_over),
        Route("/left", left),
        Route("/left/uninterrupted", left),
        Route("/color", tell_color),
        *health_routes(),
    ],
    lifespan=lifespan,
)
install(
    app,
    jobs=functions.jobs,
    cancel_on_disconnect=True,
    deadline={"/deadline": 0.5, "/left": 5},
    shutdown_grace=ShutdownGrace(requests=float(os.environ.get("JOBS_GRACE", "8"))),
)
