"""Deadlines by path: for mounted apps too, whose routes can't say that they have none."""

import asyncio
import re
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from quattro_web import TaskGroupMiddleware, install, set_deadline
from quattro_web.fastapi import Deadline
from tests.request.test_request_deadline_streams import ticks
from tests.request.timed import timed
from tests.support.asgi import Socket, run


async def slow(request: Request) -> Response:
    await asyncio.sleep(60)
    return PlainTextResponse("late")


def app_of(**options: Any) -> Starlette:
    """Return an app that takes a minute, whatever is asked for."""
    app = Starlette(routes=[Route("/{path:path}", slow)])
    install(app, **options)
    return app


def end_of(app: ASGIApp, path: str, **options: Any) -> float:
    """Return after which time a request is answered: a minute if it has no deadline."""
    exchange, seconds = run(timed(app, path=path, **options))
    assert exchange.status == (200 if seconds == 60 else 504)
    return seconds


DEADLINES = {"/": 5, "/events": None, "/reports": 20, "/reports/daily": 30, "/reports/daily/x": 2}


@pytest.mark.parametrize(
    ("path", "seconds"),
    [
        ("/", 5),
        ("/other", 5),
        ("/events", 60),
        ("/events/", 60),
        ("/events/5", 60),
        ("/eventsource", 5),
        ("/Events", 5),
        ("/other/events", 5),
        ("/reports", 20),
        ("/reports/weekly/1", 20),
        ("/reports/daily", 30),
        ("/reports/daily/1", 30),
        ("/reports/daily/x/y", 2),
        ("/reports-of-all", 5),
    ],
)
def test_longest_path_counts(path: str, seconds: float) -> None:
    """R8: A path, by whole segments, has a deadline of its own; the longest key counts."""
    assert end_of(app_of(deadline=DEADLINES), path) == seconds
    assert end_of(app_of(deadline=dict(reversed(DEADLINES.items()))), path) == seconds


def test_path_of_which_nothing_is_said() -> None:
    """R8: Without a key for all paths, the others have no deadline."""
    app = app_of(deadline={"/reports": 20})
    assert end_of(app, "/reports/1") == 20
    assert end_of(app, "/other") == 60


@pytest.mark.parametrize("kind", [Starlette, FastAPI])
def test_mounted_app(kind: type[Starlette]) -> None:
    """R8: The paths are those of the app, into whatever is mounted in it."""
    sub = kind()
    sub.add_route("/live", slow)
    sub.add_route("/slow", slow)
    app = kind()
    app.mount("/sub", sub)
    app.mount("/all", sub)
    install(app, deadline={"/": 5, "/sub/live": None, "/all": 20})
    assert end_of(app, "/sub/live") == 60
    assert end_of(app, "/sub/slow") == 5
    assert end_of(app, "/all/live") == 20


def test_mounted_app_with_its_own() -> None:
    """R8: An installed sub-app has the paths of its own routes, and replaces the app's deadline
    where it says anything."""
    sub = app_of(deadline={"/events": None, "/reports": 20}, stream_deadline=100)
    lifts = app_of(deadline={"/events": None})
    app = Starlette(routes=[Mount("/sub", sub), Mount("/quiet", app_of()), Mount("/lifts", lifts)])
    install(app, deadline={"/": 5, "/quiet/events": 9})
    assert end_of(app, "/lifts/events") == 60
    assert end_of(app, "/lifts/other") == 5
    assert end_of(app, "/sub/events") == 60
    assert end_of(app, "/sub/reports") == 20
    assert end_of(app, "/sub/other") == 5
    assert end_of(app, "/quiet/reports") == 5
    assert end_of(app, "/quiet/events") == 9


@pytest.mark.parametrize(
    ("path", "root_path", "seconds"),
    [
        ("/api/events", "/api", 60),  # as uvicorn gives it, with --root-path
        ("/abc/events", "/api", 5),  # as long, and another one
        ("/events", "/api", 60),  # as FastAPI(root_path=...) leaves it, behind a proxy
        ("/api/other", "/api", 5),
        ("/api", "/api", 5),
        ("/apievents", "/api", 9),
        ("/events", "/events", 5),
        ("/events/events", "/events", 60),
    ],
)
def test_root_path_is_no_part_of_it(path: str, root_path: str, seconds: float) -> None:
    """R8: The keys are paths as the app's routes have them, wherever a proxy puts the app."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(60)
        await PlainTextResponse("late")(scope, receive, send)

    deadlines = {"/": 5, "/events": None, "/apievents": 9}
    wrapped = TaskGroupMiddleware(app, deadline=deadlines)
    assert end_of(wrapped, path, root_path=root_path) == seconds


@pytest.mark.parametrize("path", ["/api/events", "/events"])
def test_root_path_of_fastapi(path: str) -> None:
    """R8: The root_path of a FastAPI app is none either, whether the proxy strips it or not."""
    app = FastAPI()
    app.root_path = "/api"  # as an argument it is deprecated
    app.add_route("/events", slow)
    install(app, deadline={"/": 5, "/events": None})
    assert end_of(app, path) == 60


def test_route_replaces_that_of_its_path() -> None:
    """R8: What a route says counts more than what is said of its path."""

    async def endpoint(request: Request) -> Response:
        set_deadline(request, 7)
        return await slow(request)

    app = FastAPI()
    app.add_route("/starlette", endpoint)

    @app.get("/fastapi", dependencies=[Deadline(None)])
    async def without() -> None:
        await asyncio.sleep(60)

    install(app, deadline={"/": 5, "/starlette": None})
    assert end_of(app, "/starlette") == 7
    assert end_of(app, "/fastapi") == 60


def test_client_may_shorten_that_of_a_path() -> None:
    """R8: A header of the client may shorten the deadline of a path, or be one; never lengthen."""
    app = app_of(deadline={"/": 5, "/reports": 20, "/events": None}, deadline_header="x-timeout")
    for path, asked, seconds in (
        ("/", "9", 5),
        ("/reports", "9", 9),
        ("/reports", "90", 20),
        ("/events", "9", 9),
        ("/events", "nonsense", 60),
    ):
        assert end_of(app, path, headers=[("x-timeout", asked)]) == seconds


def test_client_may_not_lengthen_that_of_the_app_around() -> None:
    """R8: In an installed sub-app that knows the header alone, it can't lengthen the app's."""
    app = Starlette(routes=[Mount("/sub", app_of(deadline_header="x-timeout"))])
    install(app, deadline=5)
    assert end_of(app, "/sub/", headers=[("x-timeout", "50")]) == 5
    assert end_of(app, "/sub/", headers=[("x-timeout", "2")]) == 2


async def stream(request: Request) -> Response:
    return StreamingResponse(ticks())


@pytest.mark.parametrize(
    ("path", "seconds"), [("/", 9), ("/other", 9), ("/feed", 20), ("/export", 15), ("/both", 12)]
)
def test_streams_by_path(path: str, seconds: float) -> None:
    """R8: A stream has a deadline by its path as well; without one until it begins, it has none."""
    app = Starlette(routes=[Route("/{path:path}", stream)])
    install(
        app,
        deadline={"/": 5, "/both": 3, "/feed": None},
        stream_deadline={"/": 9, "/export": 15, "/both": 12, "/feed": None},
    )
    assert run(timed(app, path=path))[1] == seconds
    plain = Starlette(routes=[Route("/{path:path}", stream)])
    install(plain, deadline={"/": 5, "/feed": None}, stream_deadline=9)
    assert run(timed(plain, path=path))[1] == (20 if path == "/feed" else 9)


def test_header_shortens_the_begin_alone() -> None:
    """R8: A client that wants the begin of a stream soon has its whole stream nevertheless."""
    sub = Starlette(routes=[Route("/", stream)])
    install(sub, deadline_header="x-timeout")
    app = Starlette(routes=[Mount("/sub", sub), Route("/", stream)])
    install(app, deadline=5, stream_deadline=9, deadline_header="x-timeout")
    for path in ("/", "/sub/"):
        exchange, seconds = run(timed(app, path=path, headers=[("x-timeout", "1")]))
        assert (exchange.body, seconds) == (b"tick" * 5, 9)


def test_websocket_has_none_by_its_path() -> None:
    """R8, R6: The deadlines of paths are for HTTP, as that of the app."""

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await asyncio.sleep(60)
        await websocket.close()

    app = Starlette(routes=[WebSocketRoute("/", endpoint)])
    install(app, deadline={"/": 5})
    assert run(Socket(app).run()).log == ["accept", "close 1000"]


@pytest.mark.parametrize("name", ["deadline", "stream_deadline"])
@pytest.mark.parametrize(
    "key", ["", "events", "/events/", "//", "/a//b", "/items/{id}", "/events/*", "/x?y=1", "/x#y"]
)
def test_key_that_is_no_path(name: str, key: str) -> None:
    """R8: A key that no request could have is an error that shows it, and says what to do."""
    options = {"deadline": 5, name: {key: 5}}
    message = f"{name} must have paths for keys .*got {re.escape(repr(key))}: .*in the route"
    with pytest.raises(ValueError, match=message):
        app_of(**options)


def test_key_that_is_no_string() -> None:
    """R8: A key that is no string is an error that shows it."""
    with pytest.raises(TypeError, match=r"deadline must have paths for keys, .*got 5"):
        app_of(deadline={5: "/events"})


@pytest.mark.parametrize("value", ["30", True, [30]])
def test_value_that_is_no_number(value: object) -> None:
    """R8: A path's deadline that is no number is an error that names the path."""
    message = f"deadline['/events'] must be a number of seconds or None, got {value!r}"
    with pytest.raises(TypeError, match=re.escape(message)):
        app_of(deadline={"/events": value})


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_value_that_is_no_duration(value: float) -> None:
    """R8: A path's deadline that is not positive and finite is an error that names the path."""
    message = rf"stream_deadline\['/events'\] must be a positive number of seconds.*got {value!r}"
    with pytest.raises(ValueError, match=message):
        app_of(deadline=1, stream_deadline={"/events": value})


@pytest.mark.parametrize(
    ("deadline", "stream", "message"),
    [
        (10, 5, "stream_deadline must be >= deadline, which is 10, got 5"),
        (None, 5, "stream_deadline needs deadline as well, which may be the .*, got 5 alone"),
        ({"/events": None}, 5, "stream_deadline needs deadline as well"),
        ({"/": 1, "/x": 10}, 5, "stream_deadline of '/x' must be >= .*, which is 10, got 5"),
        ({"/": 1, "/x": None}, {"/x": 5}, "stream_deadline of '/x' needs deadline of '/x' as well"),
        ({"/x": 1}, {"/y": 5}, "stream_deadline of '/y' needs deadline of '/y' as well"),
        (10, {"/y": 5}, "stream_deadline of '/y' must be >= deadline of '/y', which is 10, got 5"),
    ],
)
def test_deadline_of_streams_without_its_part(deadline: Any, stream: Any, message: str) -> None:
    """R8: The deadline of a whole stream is at least the one until it begins, for every path."""
    with pytest.raises(ValueError, match=f"^{message}"):
        app_of(deadline=deadline, stream_deadline=stream)


@pytest.mark.parametrize(
    ("seconds", "stream", "message"),
    [
        (10, 5, "stream must be >= seconds, which is 10, got 5"),
        (None, 5, "stream needs seconds as well"),
        (10, 0, "stream must be a positive number"),
    ],
)
def test_route_whose_stream_has_less(seconds: Any, stream: Any, message: str) -> None:
    """R8: The same of one route is an error where it is written, or when it is called."""
    with pytest.raises(ValueError, match=message):
        Deadline(seconds, stream=stream)
    with pytest.raises(ValueError, match=message):
        set_deadline({}, seconds, stream=stream)
    with pytest.raises(TypeError, match="stream must be a number of seconds or None, got '5'"):
        set_deadline({}, seconds, stream="5")  # type: ignore[arg-type]
