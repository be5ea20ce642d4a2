"""How a shutdown ends open requests."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, ItemsView, Iterable
from contextlib import suppress
from functools import partial
from itertools import islice
from time import monotonic
from typing import Any, Protocol

from quattro_core import TaskGroup
from quattro_core._threads import cancel
from quattro_web._shutdown.servers import Server, ServerConnection
from quattro_web._shutdown.state import CLEANUP, Shutdown
from quattro_web._util.asyncio import UNCANCELLABLE
from quattro_web._util.facts import facts
from quattro_web._util.scope import REQUEST, Connection, describe
from quattro_web._util.task_stacks import (
    MOST_LINES,
    is_in_module,
    more_than_shown,
    named_places,
    task_name,
)

logger = logging.getLogger("quattro_web")

# Seconds between two looks at what is open: a request pays nothing for being counted.
POLL = 0.02

# Seconds between two looks at what the server has open.
LOOK = 0.2

OUTSIDE = (
    "some open requests bypass TaskGroupMiddleware, because another app wraps it: only the server "
    "knows about them. Put the middleware around the outermost app, as in "
    "TaskGroupMiddleware(socketio.ASGIApp(sio, app)), so that they are notified of a shutdown"
)


class OpenRequest(Protocol):
    """A request that is being served, as far as its app needs to know it."""

    @property
    def began(self) -> float:
        """When it came, by `time.monotonic`."""

    @property
    def parent(self) -> asyncio.Task[Any] | None:
        """The task that serves it; None under another event loop than asyncio's."""

    @property
    def group(self) -> TaskGroup | None:
        """Its task group, if somebody has asked for it."""

    @property
    def innermost(self) -> OpenRequest:
        """Itself, or the same request in the sub-app that answers it."""

    @property
    def conn(self) -> Connection | None:
        """Its scope; None when it has ended."""

    def runs_in(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether it is served in that event loop."""

    def cut_off(self, conn: Connection) -> None:
        """Cancel it, for the shutdown."""


class OpenRequests(Protocol):
    """The requests that a middleware serves, each with its scope: a dict of them is one."""

    def copy(self) -> OpenRequests:
        """Return those that are open now, in whatever thread."""

    def items(self) -> ItemsView[OpenRequest, Connection]:
        """Return them, each with its scope."""


class OutsideRequest:
    """A request that the server has open, and that does not pass our middleware.

    An app around the one that was installed answers it, such as that of Socket.IO.

    Args:
        task: The task in which the server has called the app.
        scope: Its scope.
    """

    group = None

    def __init__(self, task: asyncio.Task[Any], scope: Connection) -> None:
        self.began = monotonic()
        self.parent = task
        self.conn = scope

    @property
    def innermost(self) -> OutsideRequest:
        """Itself."""
        return self

    def runs_in(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether it is served in that event loop."""
        return self.parent.get_loop() is loop

    def cut_off(self, _conn: Connection) -> None:
        """Cancel it, for the shutdown: when its thread has ended, if it waits for one."""
        cancel(self.parent, "the server is shutting down")


class Drain:
    """Waits for the requests that are open at a shutdown, then cancels them.

    Where the server shows them, those that do not pass our middleware are cancelled as well, and
    connections are dropped whose clients have stopped to read: it would wait for both without end.
    A server that cancels requests when a time of its own is over does not do so itself: the time of
    the requests is over then, and they are cancelled here. The server would cut through to threads.

    Args:
        requests: Those that are open, as they come and go.
        shutdown: The shutdown, which has begun.
        server: The server, if it shows what it serves.
        serves: Tells by its scope whether a request of this event loop is the app's in this run.

    Attributes:
        stuck: Set when their time is over, and the server has not said that it has ended them.
    """

    def __init__(
        self,
        requests: OpenRequests,
        shutdown: Shutdown,
        server: Server | None = None,
        serves: Callable[[Connection], bool] = lambda _: True,
    ) -> None:
        self._requests = requests
        self._serves = serves
        self._shutdown = shutdown
        self._server = server
        self._outside: dict[asyncio.Task[Any], OutsideRequest] = {}
        # The tasks of the requests that the server has open, each with its scope.
        self._served: dict[asyncio.Task[Any], Connection] = {}
        self._server_has_cut = False
        self._unread = Unread()
        self._next_look = 0.0
        self._loop = asyncio.get_running_loop()
        self._cancelled_at: dict[OpenRequest, float] = {}
        self._given_up: set[OpenRequest] = set()
        self._is_final = asyncio.Event()
        self.stuck = asyncio.Event()
        self._task = self._loop.create_task(self._run(), name="quattro_web drain")

    async def finish(self) -> None:
        """Wait until all have ended but those that were given up. The server sends no more."""
        self._is_final.set()
        await asyncio.wait((self._task,))

    def cancel(self) -> None:
        """Stop waiting."""
        self._task.cancel()

    @property
    def open(self) -> dict[OpenRequest, Connection]:
        """Those that are open in the app's event loop, each with its scope."""
        found = open_requests(self._requests, self._loop, self._serves)
        outside = tuple(self._outside.values())
        return found | {each: each.conn for each in outside if not each.parent.done()}

    def still_running(self) -> list[str]:
        """Return the name of each that is still open, with where it hangs, in any thread."""
        return _described(self.open)

    async def _run(self) -> None:
        # Requests that come while the server still takes connections are waited for as well.
        while not (self._is_final.is_set() and self._given_up.issuperset(self.open)):
            is_over = self._is_over
            server = self._server if self._shutdown.age >= self._next_look else None
            if server is not None:
                self._next_look = self._shutdown.age + LOOK
                self._unread.look(server.connections(), self._loop.time())
                self._take_over(server)
                if is_over:
                    self._find_outside()
            if is_over:
                still_open = self.open
                self._cancel_late(still_open)
                self._give_up(still_open)
                if server is not None:
                    self._drop_unread()
            if self._shutdown.age >= self._shutdown.grace.until_requests_end:
                self.stuck.set()
            await self._pause()

    async def _pause(self) -> None:
        if self._is_final.is_set():
            await asyncio.sleep(POLL)
        else:
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL):
                    await self._is_final.wait()

    def _take_over(self, server: Server) -> None:
        """Be asked where the server would cancel the task of a request."""
        for task, scope in server.requests(self._served):
            self._served[task] = scope
            task.add_done_callback(self._let_go)
            # `Task.cancel` can't be told otherwise, but this one object can.
            task.cancel = partial(self._cancel, server, task)  # type: ignore[method-assign]

    def _let_go(self, task: asyncio.Task[Any]) -> None:
        del self._served[task]
        del task.cancel

    def _cancel(self, server: Server, task: asyncio.Task[Any], msg: object = None) -> bool:
        if not server.cuts_requests(sys._getframe(1)):  # noqa: SLF001  # who cancels it
            return type(task).cancel(task, msg)
        self._server_has_cut = True
        return True

    def _find_outside(self) -> None:
        for task, scope in self._served.items():
            if task not in self._outside and not _passes_middleware(task, scope):
                self._outside[task] = OutsideRequest(task, scope)

    def _drop_unread(self) -> None:
        # What was cancelled may send its last bytes, and who reads gets them.
        is_last = self._shutdown.age >= self._shutdown.grace.until_requests_end - LOOK
        dropped = self._unread.drop(0.0 if is_last else CLEANUP, self._loop.time())
        if dropped:
            logger.warning(
                "the shutdown drops connections whose clients do not read, after %.1f s: %s",
                self._shutdown.age,
                "; ".join([*dropped[:MOST_LINES], *more_than_shown(len(dropped))]),
                extra=facts(seconds=self._shutdown.age, count=len(dropped)),
            )

    @property
    def _is_over(self) -> bool:
        shutdown = self._shutdown
        is_impatient = shutdown.skips_grace or self._server_has_cut
        return is_impatient or shutdown.age >= shutdown.grace.requests

    def _cancel_late(self, still_open: dict[OpenRequest, Connection]) -> None:
        late = {
            request: scope
            for request, scope in still_open.items()
            if request not in self._cancelled_at
        }
        if not late:
            return
        logger.warning(
            "the shutdown cancels everything that is still open after %.1f s: %s",
            self._shutdown.age,
            "; ".join(_described(late)),
            extra=facts(seconds=self._shutdown.age, count=len(late)),
        )
        if any(isinstance(request, OutsideRequest) for request in late):
            logger.warning(OUTSIDE)
        for request in late:
            self._cancelled_at[request] = self._loop.time()
            inner = request.innermost
            conn = inner.conn
            assert conn is not None  # it is open, as the one around it is
            with UNCANCELLABLE:
                inner.cut_off(conn)

    def _give_up(self, still_open: dict[OpenRequest, Connection]) -> None:
        now = self._loop.time()
        late = {
            request: scope
            for request, scope in still_open.items()
            if request not in self._given_up and now - self._cancelled_at[request] >= CLEANUP
        }
        if late:
            self._given_up.update(late)
            logger.error(
                "the shutdown no longer waits for requests that were cancelled %g s ago: %s",
                CLEANUP,
                "; ".join(_described(late)),
                extra=facts(seconds=CLEANUP, count=len(late)),
            )


class Unread:
    """The connections whose clients do not read what is sent to them."""

    def __init__(self) -> None:
        # Each with the bytes that wait, and since when they have not become fewer.
        self._found: dict[asyncio.Transport, tuple[ServerConnection, int, float]] = {}

    def look(self, connections: Iterable[ServerConnection], now: float) -> None:
        """Look at all that are open."""
        before, self._found = self._found, {}
        for connection in connections:
            transport = connection.transport
            size = transport.get_write_buffer_size()
            if size:
                first, before_that, since = before.get(transport, (connection, size, now))
                # Its request may have ended meanwhile, and its name with it.
                self._found[transport] = (first, size, since if size >= before_that else now)

    def drop(self, seconds: float, now: float) -> list[str]:
        """Drop those whose clients have read nothing for so long; return what the log calls them.

        What waits to be sent is lost.
        """
        dropped = []
        for transport, (connection, _, since) in self._found.items():
            if now - since >= seconds:
                dropped.append(f"{connection}, which has read nothing for {now - since:.1f} s")
                transport.abort()
        return dropped


def open_requests(
    requests: OpenRequests, loop: asyncio.AbstractEventLoop, serves: Callable[[Connection], bool]
) -> dict[OpenRequest, Connection]:
    """Return those that are open in an event loop, each with its scope; in any thread.

    Args:
        requests: Those that are open, as they come and go.
        loop: The event loop.
        serves: Tells by its scope whether a request of the loop counts.
    """
    return {
        request: scope
        for request, scope in requests.copy().items()  # at once, while others come and go
        if request.runs_in(loop) and serves(scope)
    }


def _passes_middleware(task: asyncio.Task[Any], scope: Connection) -> bool:
    # An app in between may have made a copy of the scope.
    return REQUEST in scope or is_in_module(task, "quattro_web._middleware")


def _describe(request: OpenRequest, scope: Connection) -> str:
    group = request.innermost.group
    running = [("handler", request.parent)] if request.parent else []
    if group is not None:
        running += [(task_name(task), task) for task in group.tasks]
    tasks = named_places(running)
    return f"{describe(scope)}, since {monotonic() - request.began:.1f} s: {tasks}"


def _described(requests: dict[OpenRequest, Connection]) -> list[str]:
    """Return what the log says of some requests, and how many more there are."""
    return [
        *(_describe(*each) for each in islice(requests.items(), MOST_LINES)),
        *more_than_shown(len(requests)),
    ]
