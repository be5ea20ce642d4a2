"""A snapshot of what an app is doing: plain, JSON-compatible data."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from enum import Enum, StrEnum
from typing import Any

from quattro_web._app.health import PumpState
from quattro_web._app.run import LifespanPhase


class TaskKind(StrEnum):
    """How a task relates to the task that started it.

    .. versionadded:: 0.1
    """

    FOREGROUND = "foreground"
    """A child that its group waits for."""
    BACKGROUND = "background"
    """A child that its group cancels when no foreground child is left."""
    OTHER = "other"
    """Not a child of a group: a handler, or a task started in another way."""


class TaskState(StrEnum):
    """What a task is doing.

    .. versionadded:: 0.1
    """

    RUNNING = "running"
    """It awaits something, or is computing."""
    WAITING = "waiting"
    """It waits for its turn in a group with a limit."""
    CANCELLING = "cancelling"
    """It was cancelled, but has not ended yet."""


class RequestPhase(StrEnum):
    """How far a request has come.

    .. versionadded:: 0.1
    """

    HANDLING = "handling"
    """Its handler is running, and nothing has been sent."""
    HOLDING = "holding"
    """Its response has begun, and is held back until it is known whether it is a stream."""
    WAITING = "waiting for children"
    """Its handler has ended, and the response waits for the children."""
    STREAMING = "streaming"
    """Its response is being sent, or its WebSocket was accepted."""
    ENDING = "ending"
    """Its response is complete, but background work after it has not ended."""
    CANCELLING = "cancelling"
    """It was cancelled; `RequestInfo` has the reason."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """The line of code where a task is.

    Attributes:
        function: The qualified name of its function.
        file: The path of its file.
        line: Its number.

    .. versionadded:: 0.1
    """

    function: str
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.function}, {self.file}:{self.line}"


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskInfo:
    """A task.

    Attributes:
        id: Stays the same in every snapshot, and is unique among the running tasks.
        name: Its name.
        function: The qualified name of the function that it runs.
        kind: How it relates to the task that started it.
        state: What it is doing.
        place: The innermost line of the app's own code that it is at; None if there is none, or if
            the task has not begun.
        awaits: What it awaits there: a function of a library, a thread, or another task; empty if
            unknown.
        unmoved: For how many seconds it has been awaiting the same thing, as seen in repeated
            snapshots. None if unknown, or if it waits for tasks that have this value themselves.
        children: The tasks that it started in its groups, and those that it awaits.

    .. versionadded:: 0.1
    """

    id: str
    name: str
    function: str
    kind: TaskKind
    state: TaskState
    place: Place | None
    awaits: str
    unmoved: float | None = None
    children: tuple[TaskInfo, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestInfo:
    """An open request or WebSocket.

    Attributes:
        method: Its HTTP method, or ``WebSocket``.
        route: The path of its route with parameter names, such as ``/users/{id}``; None if no route
            has matched yet.
        path: Its path.
        client: Its client's address, as ``host:port``; None if the server does not provide it.
        since: When it arrived.
        age: How many seconds ago.
        deadline_left: How many seconds are left until its deadline; None if it has none.
        phase: How far it has come.
        cancel_reason: Why it was cancelled; None if it was not.
        handler: The task that serves it, with its children; None if it has just ended.

    .. versionadded:: 0.1
    """

    method: str
    route: str | None
    path: str
    client: str | None
    since: datetime
    age: float
    deadline_left: float | None
    phase: RequestPhase
    cancel_reason: str | None
    handler: TaskInfo | None


@dataclass(frozen=True, kw_only=True, slots=True)
class LifespanInfo:
    """The lifespan of an app that is starting or ending.

    Attributes:
        phase: Which part of it is running.
        since: Since when.
        age: For how many seconds.
        task: The task that runs it, with the line of the app's own lifespan where it is; None while
            the start-up waits for pumps (see the pump that is not ready).

    .. versionadded:: 0.1
    """

    phase: LifespanPhase
    since: datetime
    age: float
    task: TaskInfo | None


@dataclass(frozen=True, kw_only=True, slots=True)
class PumpInfo:
    """A pump.

    Attributes:
        name: Its name.
        state: Its state; for this and the next three, see `PumpHealth`.
        is_up: Whether it is in a good state.
        since: When it entered this state.
        next_run: When it is called next, if it has a schedule.
        restarts: How often it was restarted.
        lock: The lock that lets only one of many processes run it; None if every process runs it.
        holder: Who holds the lock, as ``host:pid``, if known.
        task: Its task; None if it has ended.

    .. versionadded:: 0.1
    """

    name: str
    state: PumpState
    is_up: bool
    since: datetime
    next_run: datetime | None
    restarts: int
    lock: str | None
    holder: str | None
    task: TaskInfo | None


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkInfo:
    """Work that a handler handed over to the app.

    Attributes:
        origin: The request that handed it over, as its method and path.
        since: When it was handed over.
        age: How many seconds ago.
        task: Its task.

    .. versionadded:: 0.1
    """

    origin: str
    since: datetime
    age: float
    task: TaskInfo


@dataclass(frozen=True, kw_only=True, slots=True)
class JobInfo:
    """A job that a worker in this event loop runs.

    Attributes:
        job: Its name.
        origin: The request that handed it over, as its method and path, or the process whose
            request waits for it.
        attempt: How often it was started, including this time.
        since: When it started.
        age: For how many seconds.
        task: Its task.

    .. versionadded:: 0.1
    """

    job: str
    origin: str
    attempt: int
    since: datetime
    age: float
    task: TaskInfo


@dataclass(frozen=True, kw_only=True, slots=True)
class AppTasks:
    """A snapshot of what an app does, in this process and one event loop.

    Attributes:
        at: When the snapshot was taken.
        pid: The process id.
        process: The name of the process, if the server gives its workers names, such as
            ``SpawnProcess-2``.
        is_shutting_down: Whether the app's shutdown has begun, and open requests are finishing.
        lifespans: The app's lifespan while it starts or ends: empty while the app serves, several
            entries if the app is composed of several apps with lifespans.
        pumps: Its pumps.
        handed_over: Its handed-over work, the oldest first.
        jobs: The jobs that workers in this event loop run, the oldest first.
        requests: Its open requests and WebSockets, the oldest first.
        others: Tasks that run the app's functions, but belong to none of these.
        open_requests: How many requests are open, whether shown or not.
        tasks: How many tasks the event loop has.
        requests_left_out: How many requests are not shown.
        tasks_left_out: How many tasks are not shown: children of shown requests, handed-over work,
            jobs and others.
        seconds: How many seconds it took to take the snapshot.

    .. versionadded:: 0.1
    """

    at: datetime
    pid: int
    process: str
    is_shutting_down: bool
    lifespans: tuple[LifespanInfo, ...]
    pumps: tuple[PumpInfo, ...]
    handed_over: tuple[WorkInfo, ...]
    jobs: tuple[JobInfo, ...]
    requests: tuple[RequestInfo, ...]
    others: tuple[TaskInfo, ...]
    open_requests: int
    tasks: int
    requests_left_out: int
    tasks_left_out: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-compatible dicts, lists, strings and numbers; times are in ISO 8601."""
        found: dict[str, Any] = _plain(self)
        return found

    def as_json(self) -> str:
        """Return it as JSON text, in ASCII."""
        return json.dumps(self.as_dict(), separators=(",", ":"))


_NAMES: dict[type, tuple[str, ...]] = {}


def _plain(value: Any) -> Any:
    kind: type = value.__class__
    if kind is tuple:
        return [_plain(each) for each in value]
    if kind is datetime:
        return value.isoformat()
    if kind is float:
        return round(value, 3)
    names = _NAMES.get(kind)
    if names is None and is_dataclass(value):
        names = _NAMES[kind] = tuple(field.name for field in fields(value))
    if names is not None:
        return {name: _plain(getattr(value, name)) for name in names}
    return value.value if isinstance(value, Enum) else value
