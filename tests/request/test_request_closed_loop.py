"""Requests that are open when their event loop is closed, as by a test that has ended early."""

import asyncio
import gc
import sys
import weakref

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from quattro_web import install, request_task_group
from tests.support.asgi import Exchange


def test_nothing_keeps_a_request_whose_loop_was_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """R9: Nothing of the package keeps a request, or its app, whose event loop was closed while it
    was open."""
    # What its coroutines raise when they are closed: pytest would keep it, with their frames.
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)

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
    for _ in range(3):
        gc.collect()  # what is closed first may have to do with others once more
    assert [ref() for ref in kept] == [None, None]
