"""Requests that are open when their event loop is closed, as by a test that has ended early."""

import asyncio
import gc
import weakref

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from quattro_web import install, request_task_group
from tests.support.asgi import Exchange


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_nothing_keeps_a_request_whose_loop_was_closed() -> None:
    """R9: Nothing of the package keeps a request, or its app, whose event loop was closed while it
    was open."""

    async def endpoint(request: Request) -> Response:
        request_task_group(request)
        await asyncio.Event().wait()
        raise AssertionError

    def open_one() -> list[weakref.ref[object]]:
        app = Starlette(routes=[Route("/", endpoint)])
        install(app)
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda *_: None)  # a task is destroyed that is pending
        task = loop.create_task(Exchange(app).run())
        loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        return [weakref.ref(task), weakref.ref(app)]

    kept = open_one()
    gc.collect()
    assert [ref() for ref in kept] == [None, None]
