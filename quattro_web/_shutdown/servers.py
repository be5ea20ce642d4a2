"""The server around an app, seen through its tasks: whether it shuts down, and what it serves.

A server tells an app of its shutdown when the last request has ended, and is asked to stop in many
ways: by a signal, or by an attribute, an event or a method of it in the program that runs it. Its
coroutines are suspended in this event loop, and know.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextvars import Context
from types import FrameType
from typing import Any, Protocol

from quattro_core._threads import local_of
from quattro_web._util.scope import describe
from quattro_web._util.task_stacks import frames_of, package_of

Task = asyncio.Task[Any]
Tasks = Collection[Task]

# Seconds between two looks; uvicorn and hypercorn look as often whether they should end.
POLL = 0.1

# The modules in which servers run the lifespan of an app: in a method of an object for it.
_SERVERS = frozenset({"granian", "hypercorn", "uvicorn"})
_LIFESPANS = frozenset({"granian.asgi", "hypercorn.asyncio.lifespan", "uvicorn.lifespan.on"})


class ServerConnection:
    """A connection of a client, as far as the server shows it.

    Args:
        transport: Its transport.
        scope: The scope of the last request on it, if that is known.
    """

    def __init__(self, transport: asyncio.Transport, scope: Mapping[str, Any] | None) -> None:
        self.transport = transport
        self.scope = scope

    def __str__(self) -> str:
        peer = self.transport.get_extra_info("peername")
        client = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "a socket of this host"
        return f"{'a connection' if self.scope is None else describe(self.scope)} from {client}"


class Server(Protocol):
    """A server that runs in the event loop of the app (measured on the versions below)."""

    @property
    def is_shutting_down(self) -> bool:
        """Whether it has begun to shut down, or is about to."""

    def stop(self) -> None:
        """Ask it for a graceful shutdown, in its event loop."""

    def requests(self, seen: Tasks, /) -> Iterator[tuple[Task, Mapping[str, Any]]]:
        """Yield the tasks in which it has called the app for a client, each with the scope.

        Those that were *seen* are left out: to look at the stacks of thousands takes its time.
        """

    def cuts_requests(self, caller: FrameType, /) -> bool:
        """Whether who cancels a request is the server, since a time of its own is over."""

    def connections(self) -> Iterator[ServerConnection]:
        """Yield the connections that are open; none if it does not show them."""


class Uvicorn:
    """A server of uvicorn's, also in a worker of gunicorn's (0.54)."""

    def __init__(self, server: Any) -> None:
        self._server = server

    @property
    def is_shutting_down(self) -> bool:
        server = self._server
        # With `--limit-max-requests` it only closes what it listens at.
        listening = getattr(server, "servers", ())
        return server.should_exit or not all(each.is_serving() for each in listening)

    def stop(self) -> None:
        self._server.should_exit = True

    def requests(self, seen: Tasks, /) -> Iterator[tuple[Task, Mapping[str, Any]]]:
        for task in self._server.server_state.tasks.difference(seen):
            for frame in _frames_in(task, "run_asgi"):
                yield task, frame.f_locals["self"].scope

    def cuts_requests(self, caller: FrameType, /) -> bool:
        return caller.f_globals.get("__name__") == "uvicorn.server"

    def connections(self) -> Iterator[ServerConnection]:
        for connection in tuple(self._server.server_state.connections):
            yield ServerConnection(connection.transport, getattr(connection, "scope", None))


class Hypercorn:
    """The `worker_serve` of hypercorn's (0.18)."""

    def __init__(self, frame: FrameType) -> None:
        self._frame = frame

    @property
    def _context(self) -> Any:
        return self._frame.f_locals.get("context")  # it has none until the app has started

    def requests(self, seen: Tasks, /) -> Iterator[tuple[Task, Mapping[str, Any]]]:
        config = self._frame.f_locals["config"]
        for task in asyncio.all_tasks().difference(seen):
            for frame in _frames_in(task, "_handle"):
                if frame.f_locals["config"] is config:
                    yield task, frame.f_locals["scope"]

    def cuts_requests(self, caller: FrameType, /) -> bool:
        # By the task group of a connection, whose task is cancelled then, and not if it fails.
        if caller.f_globals.get("__name__") != "asyncio.taskgroups":
            return False
        task = getattr(local_of(caller, "self"), "_parent_task", None)
        return isinstance(task, asyncio.Task) and bool(task.cancelling())

    def connections(self) -> Iterator[ServerConnection]:
        for task in tuple(self._frame.f_locals.get("server_tasks", ())):
            for frame in _frames_in(task, "run"):
                connection = frame.f_locals["self"]
                protocol = getattr(getattr(connection, "protocol", None), "protocol", None)
                scope = getattr(getattr(protocol, "stream", None), "scope", None)
                yield ServerConnection(connection.writer.transport, scope)

    @property
    def is_shutting_down(self) -> bool:
        context = self._context
        return context is not None and bool(context.terminated.is_set())

    def stop(self) -> None:
        context = self._context
        if context is None:  # as soon as it takes connections
            asyncio.get_running_loop().call_later(POLL, self.stop)
        else:
            self._stopping = asyncio.ensure_future(context.terminate.set())


class Granian:
    """A worker of granian's, which serves connections where nothing of Python's sees them (2.8).

    Args:
        worker: That of the embedded server; any other one stops by signals.
    """

    def __init__(self, worker: Any = None) -> None:
        self._worker = worker

    @property
    def is_shutting_down(self) -> bool:
        return self._worker is not None and bool(self._worker.interrupt_by_parent)

    def stop(self) -> None:
        self._worker.parent.stop()

    def requests(self, seen: Tasks, /) -> Iterator[tuple[Task, Mapping[str, Any]]]:
        for task in asyncio.all_tasks().difference(seen):
            for frame in _frames_in(task, "future_watcher"):
                yield task, frame.f_locals["watcher"].scope

    def cuts_requests(self, _caller: FrameType, /) -> bool:
        return False

    def connections(self) -> Iterator[ServerConnection]:
        return iter(())


def _frames_in(task: asyncio.Task[Any], function: str) -> list[FrameType]:
    """Return the frame of a task that is in this function of a server's, if it is in it."""
    return [
        frame
        for frame in frames_of(task)[0]
        if frame.f_code.co_name == function and package_of(frame) in _SERVERS
    ][:1]


def find_lifespan() -> object | None:
    """Return the object of the server's that runs the lifespan, in the task of which this is."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  # nothing else tells
    while frame is not None:
        if frame.f_globals.get("__name__") in _LIFESPANS:
            return frame.f_locals.get("self")
        frame = frame.f_back
    return None


def find_server(lifespan: object) -> Server | None:
    """Return the server that has this object, out of the tasks of the event loop."""
    # The locals of a frame are looked at in servers alone: those of others would be kept alive.
    frames = [
        (task, frame.f_globals.get("__name__"), frame)
        for task in asyncio.all_tasks()
        for frame in frames_of(task)[0]
        if package_of(frame) in _SERVERS
    ]
    for _, module, frame in frames:
        names = frame.f_locals
        if module == "uvicorn.server" and getattr(names.get("self"), "lifespan", 0) is lifespan:
            return Uvicorn(names["self"])
        if module == "hypercorn.asyncio.run" and names.get("lifespan") is lifespan:
            return Hypercorn(frame)
    if type(lifespan).__module__ != "granian.asgi":
        return None
    found = {
        task for task, _, frame in frames if frame.f_locals.get("lifespan_handler") is lifespan
    }
    watchers = (frame.f_locals.get("self") for _, _, frame in frames)
    return next((Granian(w) for w in watchers if getattr(w, "_task", None) in found), Granian())


class ServerWatch:
    """Looks from time to time whether the server has begun to shut down, without a signal.

    It is made in the task in which the server runs the lifespan.

    Args:
        begin: Called once it has.
    """

    def __init__(self, begin: Callable[[], None]) -> None:
        self._begin = begin
        self._loop = asyncio.get_running_loop()
        self._lifespan = find_lifespan()
        self._is_in_main_thread = threading.current_thread() is threading.main_thread()
        self._timer: asyncio.TimerHandle | None = None
        self._server: Server | None = None

    @property
    def is_in_main_thread(self) -> bool:
        """Whether there is such a server, in the main thread of its process."""
        return self._lifespan is not None and self._is_in_main_thread

    def start(self) -> None:
        """Begin to look."""
        if self._lifespan is not None:
            self._set_timer()

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def find(self) -> Server | None:
        """Return the server; None if it is none that is known."""
        if self._server is None and self._lifespan is not None:
            self._server = find_server(self._lifespan)
        return self._server

    def _look(self) -> None:
        # For the first time after a while: with eager tasks the server is not suspended before.
        server = self.find()
        if server is not None and server.is_shutting_down:
            self._loop.call_soon(self._begin)  # after a signal that has come meanwhile
        elif server is not None:
            self._set_timer()

    def _set_timer(self) -> None:
        self._timer = self._loop.call_later(POLL, self._look, context=Context())
