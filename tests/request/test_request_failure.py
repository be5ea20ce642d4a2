"""A child's failure is answered as if the handler had raised it."""

import asyncio
import logging
from functools import partial
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException
from fastapi.exceptions import RequestValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Message, Receive, Scope, Send

from quattro_web import TaskGroupMiddleware, install, request_task_group
from quattro_web.fastapi import RequestTaskGroup
from tests.request.failing import Teapot, answer, fail, failing_app
from tests.support.asgi import Exchange, get, run


class SmallTeapot(Teapot):
    pass


def test_http_exception_keeps_status_detail_and_headers() -> None:
    """R4: A child's HTTPException is answered with its status, detail and headers."""
    app = FastAPI()

    @app.get("/")
    async def handler(tg: RequestTaskGroup) -> str:
        tg.create_task(fail(HTTPException(418, "teapot", {"x-tea": "green"})))
        return "never seen"

    install(app)
    exchange = run(get(app))
    assert (exchange.status, exchange.body) == (418, b'{"detail":"teapot"}')
    assert exchange.headers["x-tea"] == "green"
    assert exchange.error is None


def test_same_answer_while_the_handler_still_runs() -> None:
    """R4: A child that fails while the handler waits cancels the handler, and is answered."""
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        request_task_group(request).create_task(fail(StarletteHTTPException(403, "no")))
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            log.append("cancelled")
            raise
        raise AssertionError

    app = Starlette(routes=[Route("/", endpoint)])
    install(app)
    run(get(app, log=log))
    assert log == ["cancelled", "start 403", "body no"]


def test_background_task_failure_is_answered() -> None:
    """R4, C5: A background task's failure is answered as well."""

    async def endpoint(request: Request) -> Response:
        request_task_group(request).create_background_task(fail(StarletteHTTPException(404, "bg")))
        await asyncio.Event().wait()
        raise AssertionError

    app = Starlette(routes=[Route("/", endpoint)])
    install(app)
    exchange = run(get(app))
    assert (exchange.status, exchange.body) == (404, b"bg")


@pytest.mark.parametrize("error", [Teapot("x"), SmallTeapot("x")])
def test_handlers_by_class_and_base_class(error: Exception) -> None:
    """R4: The app's handlers are found by class and by base class, as Starlette finds them."""
    exchange = run(get(failing_app(error, exception_handlers={Teapot: answer("by class")})))
    assert (exchange.status, exchange.body) == (499, f"by class: {error!r}".encode())


def test_handlers_by_status_code() -> None:
    """R4: The app's handler for a status code goes before the one for HTTPException."""
    error = StarletteHTTPException(404)
    exchange = run(get(failing_app(error, exception_handlers={404: answer("by status", 404)})))
    assert exchange.body.startswith(b"by status")


def test_handlers_that_are_not_async() -> None:
    """R4: A handler that is a plain function is called in a thread, and answers."""

    def handler(request: Request, exc: Exception) -> Response:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        return PlainTextResponse("from a thread", 499)

    exchange = run(get(failing_app(Teapot(), exception_handlers={Teapot: handler})))
    assert exchange.body == b"from a thread"


def test_handler_that_is_an_object() -> None:
    """R4: A handler may be an object that is called, also one with options that are set."""

    class Answers:
        async def __call__(self, request: Request, exc: Exception, *, text: str) -> Response:
            return PlainTextResponse(text, 499)

    handler: Any = partial(Answers(), text="from an object")
    exchange = run(get(failing_app(Teapot(), exception_handlers={Teapot: handler})))
    assert exchange.body == b"from an object"


def test_handler_that_reads_the_body() -> None:
    """R4: A handler that reads the request's body gets it, also if the endpoint has read it."""

    async def handler(request: Request, exc: Exception) -> Response:
        return PlainTextResponse(await request.body(), 499)

    async def endpoint(request: Request) -> Response:
        await request.body()
        request_task_group(request).create_task(fail(Teapot()))
        return PlainTextResponse("never seen")

    app = Starlette(
        routes=[Route("/", endpoint, methods=["POST"])], exception_handlers={Teapot: handler}
    )
    install(app)
    exchange = run(get(app, method="POST", body=[b"he", b"llo"]))
    assert (exchange.status, exchange.body) == (499, b"hello")


def test_bug_is_the_500_of_server_error_middleware() -> None:
    """R4: Without a handler it is a 500, and the error leaves the app, with its traceback."""
    error = ZeroDivisionError("bug")
    exchange = run(get(failing_app(error)))
    assert (exchange.status, exchange.body) == (500, b"Internal Server Error")
    assert exchange.error is error
    assert error.__traceback__ is not None


def test_handler_for_exception() -> None:
    """R4: The app's handler for Exception, which ServerErrorMiddleware calls, answers a bug."""
    app = failing_app(ZeroDivisionError("bug"), exception_handlers={Exception: answer("any", 500)})
    assert run(get(app)).body == b"any: ZeroDivisionError('bug')"


def test_sub_app_answers_with_its_own_handlers() -> None:
    """R4: In a mounted sub-app, the sub-app's exception handlers answer."""
    sub = failing_app(Teapot(), exception_handlers={Teapot: answer("sub-app")})
    sub.user_middleware.clear()  # the group is that of the outer app
    app = Starlette(routes=[Mount("/sub", sub)], exception_handlers={Teapot: answer("outer app")})
    install(app)
    assert run(get(app, "/sub/")).body.startswith(b"sub-app")


def test_failure_below_the_middleware_of_a_route() -> None:
    """R4, R10: Where a route alone has the middleware, what fails there leaves the app as it is."""

    async def endpoint(request: Request) -> Response:
        request_task_group(request).create_task(fail(ZeroDivisionError()))
        return PlainTextResponse("never seen")

    middleware = [Middleware(TaskGroupMiddleware)]
    exchange = run(get(Starlette(routes=[Route("/", endpoint, middleware=middleware)])))
    assert (exchange.status, repr(exchange.error)) == (500, "ZeroDivisionError()")


def test_cors_headers_are_on_the_answer() -> None:
    """R4: Headers of other middlewares are on it, in any order (trap: gate outside CORS)."""
    for first in (True, False):
        app = failing_app(StarletteHTTPException(403))
        if first:
            app.user_middleware.clear()
        app.add_middleware(CORSMiddleware, allow_origins=["*"])
        if first:
            install(app)
        exchange = run(get(app, headers=[("origin", "http://other")]))
        assert exchange.headers["access-control-allow-origin"] == "*"


def test_validation_error_stays_422() -> None:
    """R4: A missing parameter of a handler that takes the group is a 422 (trap: no unwrapping)."""
    app = FastAPI()

    @app.get("/")
    async def handler(q: int, tg: RequestTaskGroup) -> None: ...

    install(app)
    assert run(get(app)).status == 422


def test_validation_error_of_a_child_is_answered() -> None:
    """R4: A child may raise what FastAPI itself raises."""
    app = FastAPI()

    @app.get("/")
    async def handler(tg: RequestTaskGroup) -> None:
        tg.create_task(fail(RequestValidationError([])))

    install(app)
    assert run(get(app)).status == 422


def test_several_failures_go_to_an_exception_group_handler() -> None:
    """R4: An ExceptionGroup handler of the app gets all of several failures."""

    async def handler(request: Request, exc: Exception) -> Response:
        assert isinstance(exc, ExceptionGroup)
        return JSONResponse([repr(each) for each in exc.exceptions], 499)

    app = failing_app(
        Teapot(1), StarletteHTTPException(404), exception_handlers={ExceptionGroup: handler}
    )
    exchange = run(get(app))
    assert exchange.body == b'["Teapot(1)","HTTPException(status_code=404, detail=\'Not Found\')"]'


def test_first_of_several_handled_failures_answers(caplog: pytest.LogCaptureFixture) -> None:
    """R4: If each of several has a handler, the first to fail answers and the others are logged."""
    app = failing_app(StarletteHTTPException(404), StarletteHTTPException(403), Teapot("other"))
    app.add_exception_handler(Teapot, answer("teapot"))
    with caplog.at_level(logging.ERROR, "quattro_web"):
        exchange: Exchange = run(get(app))
    assert exchange.status == 404
    logged = [record.exc_info[1] for record in caplog.records if record.exc_info]
    assert list(map(repr, logged)) == [
        "HTTPException(status_code=403, detail='Forbidden')",
        "Teapot('other')",
    ]


def test_bug_is_not_hidden_behind_a_404() -> None:
    """R4: If one of several has no handler, it is a 500, and all of them leave the app."""
    exchange = run(get(failing_app(StarletteHTTPException(404), ZeroDivisionError("bug"))))
    assert exchange.status == 500
    assert isinstance(exchange.error, ExceptionGroup)
    assert [type(each) for each in exchange.error.exceptions] == [
        StarletteHTTPException,
        ZeroDivisionError,
    ]


@pytest.mark.parametrize("error", [ValueError("the bill was not awaited"), HTTPException(400)])
def test_bug_in_the_clean_up_of_an_app_is_not_hidden(error: Exception) -> None:
    """R4: An error that the app raises as it is cancelled for another one is a failure as well,
    though it sounds like one of FastAPI's, or is of a class of FastAPI's."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request_task_group(scope).create_task(fail(Teapot()))
        try:
            await asyncio.sleep(60)
        finally:
            raise error

    exchange = run(get(TaskGroupMiddleware(app)))
    assert isinstance(exchange.error, ExceptionGroup)
    assert [type(each) for each in exchange.error.exceptions] == [Teapot, type(error)]


def test_bug_like_that_of_a_frozen_error() -> None:
    """R4: An AttributeError of the app is a failure like others, though an exit stack raises one
    for an error that it can't set a context on."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request_task_group(scope)
        raise AttributeError

    assert isinstance(run(get(TaskGroupMiddleware(app))).error, AttributeError)


def test_app_that_answers_nothing_below_a_middleware() -> None:
    """R4, R10: That an app has sent no response, as a middleware below ours says, is a failure like
    others if nothing else has failed."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request_task_group(scope)

    async def passes(request: Request, call_next: Any) -> Response:
        return await call_next(request)  # type: ignore[no-any-return]

    exchange = run(get(TaskGroupMiddleware(BaseHTTPMiddleware(app, dispatch=passes))))
    assert str(exchange.error) == "No response returned."


def test_debug_page_of_a_bug() -> None:
    """R4: With ``debug=True``, a child's bug is on Starlette's debug page, as a handler's is."""
    app = failing_app(ZeroDivisionError("bug"), debug=True)
    exchange = run(get(app, headers=[("accept", "text/html")]))
    assert exchange.status == 500
    assert b"ZeroDivisionError" in exchange.body
    assert b"<b>fail</b>" in exchange.body, "the child's own line"


def test_answer_after_a_task_group_of_the_handler() -> None:
    """R4: What an `asyncio.TaskGroup` of the handler leaves counted before Python 3.13
    (cpython 116720) cuts no answer that takes its time."""

    async def handler(request: Request) -> Response:
        request_task_group(request)
        async with asyncio.TaskGroup() as group:
            group.create_task(fail(Teapot()))
        raise AssertionError

    async def slow(_: Message) -> None:
        await asyncio.sleep(1)

    app = Starlette(routes=[Route("/", handler)])
    install(app)
    exchange = run(get(app, on_send=slow))
    assert (exchange.status, exchange.body) == (500, b"Internal Server Error")
    assert isinstance(exchange.error, Teapot)
