"""Routes that show the tasks of an app: as JSON, as a page, and as events that update the page."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import inspect
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, ref

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from quattro_web._app.lookup import runs_for
from quattro_web._app.run import AppRun
from quattro_web._tree.look import MOST, Movements, look_at
from quattro_web._util.arguments import checked_bool, checked_text

# Seconds between two snapshots, however many look.
INTERVAL = 1.0

# The most that a client may ask for in one answer.
MOST_ASKED = 10_000

Guard = Callable[[Request], Awaitable[object] | object]
Endpoint = Callable[[Request], Awaitable[Response]]

_NEVER_STORED = {"cache-control": "no-store"}


def task_routes(
    path: str = "/tasks", *, dependencies: Iterable[Guard] = (), public: bool = False
) -> list[BaseRoute]:
    """Return routes that show what an app is doing, which includes data that its clients sent.

    ::

        async def admins_only(request: Request) -> None:
            if not is_admin(request):
                raise HTTPException(403)

        app = Starlette(routes=[*task_routes(dependencies=[admins_only]), ...])

    ``/tasks`` returns the snapshot of `app_tasks` as JSON; ``?most=2000`` includes more tasks.
    ``/tasks/`` is a live page, which ``/tasks/events`` updates: at most one snapshot per second is
    taken, however many clients look. The page passes the query of its own address, such as a token,
    on to each of its requests. In FastAPI, use `quattro_web.fastapi.task_router`.

    Args:
        path: The path of the snapshot; the others are below it.
        dependencies: Functions that are called with each request, and raise an error to refuse it.
            They may be async; others run in a thread.
        public: Whether to allow access without any dependencies.

    Raises:
        TypeError: If one of *dependencies* is not a function of a request, or *public* not a bool.
        ValueError: If there are no *dependencies* and *public* is not true, or if *path* is not a
            path.

    .. versionadded:: 0.1
    """
    if callable(dependencies):
        msg = f"dependencies must be a list of functions, got {dependencies!r}"
        raise TypeError(msg)
    guards = tuple(dependencies)
    for guard in guards:
        if hasattr(guard, "dependency"):
            msg = f"{guard!r} is a FastAPI dependency: call quattro_web.fastapi.task_router instead"
            raise TypeError(msg)
        is_function: object = callable(guard)
        if not is_function or _is_generator(guard):
            msg = f"dependencies must be functions that take a request and return, got {guard!r}"
            raise TypeError(msg)
    check_guarded("task_routes", path, guards, public=public)
    return [
        Route(each, _guarded(endpoint, guards), include_in_schema=False)
        for each, endpoint in endpoints(path)
    ]


def check_guarded(function: str, path: str, dependencies: object, *, public: bool) -> None:
    """Raise ValueError for a bad path, or for routes that anybody could see without a word."""
    checked_text("path", path)
    if not path.startswith("/") or path.endswith("/"):
        msg = f"path must begin with a slash, and not end with one, got {path!r}"
        raise ValueError(msg)
    if not checked_bool("public", public) and not dependencies:
        msg = (
            f"{function}() shows paths, addresses and code: give it dependencies=[...] that let "
            "in those who may see them, or pass public=True"
        )
        raise ValueError(msg)


def endpoints(path: str) -> list[tuple[str, Endpoint]]:
    """Return the paths of the routes, and what answers them."""
    return [(path, show_snapshot), (f"{path}/", show_page), (f"{path}/events", show_events)]


def _guarded(endpoint: Endpoint, guards: tuple[Guard, ...]) -> Endpoint:
    async def answer(request: Request) -> Response:
        for guard in guards:
            is_async = _is_of(inspect.iscoroutinefunction, guard)
            found = guard(request) if is_async else await run_in_threadpool(guard, request)
            if inspect.isawaitable(found):  # also of a function that only passes one on
                await found
            elif inspect.isgenerator(found) or inspect.isasyncgen(found):
                msg = f"{guard!r} has returned a generator, and so has checked nothing"
                raise TypeError(msg)
        return await endpoint(request)

    answer.__qualname__ = endpoint.__qualname__  # what its own page shows
    return answer


def _is_generator(function: object) -> bool:
    return _is_of(inspect.isgeneratorfunction, function) or _is_of(
        inspect.isasyncgenfunction, function
    )


def _is_of(kind: Callable[[object], bool], function: object) -> bool:
    while isinstance(function, partial):
        function = function.func
    # An object may be one by its method.
    return kind(function) or kind(
        getattr(function, "__call__", None)  # noqa: B004  # that is not whether it can be called
    )


async def show_snapshot(request: Request) -> Response:
    asked = request.query_params.get("most", str(MOST))
    most = int(asked) if asked.isdecimal() and len(asked) < 9 else 0
    if not 1 <= most <= MOST_ASKED:
        raise HTTPException(400, f"most must be a number from 1 to {MOST_ASKED}")
    feed = _feed_of(request)
    content = look_at(feed.runs, most, feed.movements).as_json()
    return Response(content, media_type="application/json", headers=_NEVER_STORED)


async def show_page(_request: Request) -> Response:
    return HTMLResponse(
        _PAGE,
        headers={
            **_NEVER_STORED,
            "content-security-policy": _POLICY,
            "referrer-policy": "no-referrer",
            "x-content-type-options": "nosniff",
        },
    )


async def show_events(request: Request) -> Response:
    return StreamingResponse(
        _feed_of(request).events(), media_type="text/event-stream", headers=_NEVER_STORED
    )


class Feed:
    """The snapshots that all who look at an app share.

    Args:
        runs: The runs of the app in one event loop.
    """

    def __init__(self, runs: list[AppRun]) -> None:
        self._runs = [ref(run) for run in runs]  # it is kept as long as the first of them is
        self.movements = Movements()
        self._lock = asyncio.Lock()
        self._number = 0
        self._taken = 0.0
        self._latest = b""

    @property
    def runs(self) -> list[AppRun]:
        """The runs; whoever asks is served by one of them."""
        return [found for run in self._runs if (found := run()) is not None]

    async def events(self) -> AsyncIterator[bytes]:
        """Yield a server-sent event for each snapshot, up to the first one of a shutdown."""
        number = 0
        while True:
            is_last = any(run.shutdown.has_begun for run in self.runs)
            number, event = await self._next(number)
            yield event
            if is_last:
                return

    async def _next(self, seen: int) -> tuple[int, bytes]:
        loop = asyncio.get_running_loop()
        async with self._lock:
            if seen == self._number or loop.time() - self._taken >= INTERVAL:
                # Two clocks may differ by a little when a timer has rung.
                await asyncio.sleep(self._taken + INTERVAL - loop.time())
                content = look_at(self.runs, MOST, self.movements).as_json()
                self._latest = b"data: " + content.encode() + b"\n\n"
                self._taken = loop.time()
                self._number += 1
        return self._number, self._latest


_FEEDS: WeakKeyDictionary[AppRun, Feed] = WeakKeyDictionary()


def _feed_of(request: Request) -> Feed:
    runs = runs_for(request)
    feed = _FEEDS.get(runs[0])
    if feed is None:
        feed = _FEEDS[runs[0]] = Feed(runs)
    return feed


def _policy_of(page: str) -> str:
    """Return what lets a browser run the page's own script and style, and nothing else."""

    def hashes_of(tag: str) -> str:
        parts: list[Any] = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digests = (hashlib.sha256(part.encode()).digest() for part in parts)
        return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)

    return (
        f"default-src 'none'; connect-src 'self'; img-src data:; script-src {hashes_of('script')}; "
        f"style-src {hashes_of('style')}; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )


_PAGE = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
_POLICY = _policy_of(_PAGE)
