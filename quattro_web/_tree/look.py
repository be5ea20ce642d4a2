"""How a snapshot of an app is taken: from its runs, its open requests, and the event loop's tasks.

Who has started a task is told by what it calls when it is done: that refers to its group, or to
what somebody waits for. asyncio knows the same from Python 3.14 on, and tells it more slowly.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from types import FrameType, FunctionType
from typing import Any
from weakref import WeakKeyDictionary, ref

from quattro_web._app.health import pump_health
from quattro_web._app.lookup import runs_of
from quattro_web._app.run import AppRun
from quattro_web._errors import NoTaskGroupError
from quattro_web._pumps.run import PumpRun
from quattro_web._request.exchange import Exchange
from quattro_web._request.state import RequestState
from quattro_web._tree.snapshot import (
    AppTasks,
    JobInfo,
    LifespanInfo,
    Place,
    PumpInfo,
    RequestInfo,
    RequestPhase,
    TaskInfo,
    TaskKind,
    TaskState,
    WorkInfo,
)
from quattro_web._util.arguments import checked_limit
from quattro_web._util.escaping import shortened
from quattro_web._util.routes import route_path
from quattro_web._util.running_jobs import RunningCall, running_jobs
from quattro_web._util.scope import Connection
from quattro_web._util.task_stacks import (
    called_in_process,
    coroutine_of,
    frames_of,
    inside_of_middleware,
    name_of,
    own_frames,
    package_of,
    runs_the_app,
    thread_frames,
    waits_for_turn,
    with_bodies,
)

# How many tasks are described; a request counts as one. What that takes is stated in the docs.
MOST = 500

# How many tasks of libraries are looked through, below one of the app's.
MOST_HIDDEN = 100

# How many tasks one below the other: those that wait for each other make a circle.
DEEPEST = 20

Task = asyncio.Task[Any]


def app_tasks(app: Any, *, most: int | None = MOST) -> AppTasks:
    """Return what an app is doing right now, in this process and the current event loop.

    ::

        for request in app_tasks(app).requests:
            print(request.method, request.route, request.age, request.handler.place)

    Args:
        app: As for `app_health`.
        most: How many tasks to describe at most: pumps and the oldest requests come first, the
            others are only counted. None means no limit.

    Raises:
        NoTaskGroupError: If the app is not running.
        TypeError: If *most* is not an int or None.
        ValueError: If *most* is below 1.

    .. versionadded:: 0.1
    """
    checked_limit("most", most)
    runs = [run for run in runs_of(app) if run.loop is not None]  # not those under trio
    if not runs:
        msg = (
            f"{app!r} is not running: call quattro_web.install(app), and run its lifespan, "
            "as servers do, and as a TestClient does in its with block"
        )
        raise NoTaskGroupError(msg)
    return look_at(runs, most)


class Movements:
    """What tasks were seen to await, and since when: for those who look again and again."""

    def __init__(self) -> None:
        # Not what is awaited: if it has failed, its traceback may lead to the task, which would
        # never go.
        self._seen: WeakKeyDictionary[Task, tuple[Callable[[], object], float]]
        self._seen = WeakKeyDictionary()

    def unmoved(self, task: Task, now: float) -> float:
        """Return for how many seconds a task was seen to await the same thing.

        With each step that it takes, it awaits another future.
        """
        awaited = getattr(task, "_fut_waiter", None)
        seen = self._seen.get(task)
        if seen is None or awaited is None or seen[0]() is not awaited:  # None: it runs
            seen = self._seen[task] = (_reference(awaited), now)
        return now - seen[1]


def _reference(awaited: object) -> Callable[[], object]:
    try:
        return ref(awaited)
    except TypeError:  # one that waits for its turn, or None
        return lambda: awaited


def look_at(
    runs: Sequence[AppRun], most: int | None, movements: Movements | None = None
) -> AppTasks:
    """Return what an app does, by its runs in one event loop.

    In another thread than that of the loop, what it says of a task that runs meanwhile may be
    wrong, and nothing else.
    """
    loop = next(run.loop for run in runs if run.loop is not None)
    return _Look(loop, most, movements).at(runs)


class _Look:
    def __init__(
        self, loop: asyncio.AbstractEventLoop, most: int | None, movements: Movements | None
    ) -> None:
        self._began = time.perf_counter()
        self._now = time.monotonic()
        self._at = datetime.now(UTC)
        self._left = sys.maxsize if most is None else most
        self._left_out = 0
        self._movements = movements
        self._loop = loop
        self._tasks = _all_tasks(loop)
        self._kinds: dict[Task, TaskKind] = {}
        self._parents: dict[Task, Task] = {}
        self._children: dict[Task, list[Task]] = {}
        self._shown: set[Task] = set()
        self._link()

    # Who has started whom

    def _link(self) -> None:
        """Find out who has started whom, of the tasks that are not known to a request."""
        closures: list[tuple[Task, Any]] = []
        parents = self._parents
        for task in self._tasks:
            for callback, _ in getattr(task, "_callbacks", None) or ():
                group = getattr(callback, "__self__", None)
                if group is None:
                    closures.append((task, callback))
                elif isinstance(group, asyncio.TaskGroup):
                    parents[task] = group._parent_task  # type: ignore[attr-defined]  # noqa: SLF001  # asyncio's, and ours
                    self._kinds[task] = _kind_in(group, task)
                    break
        self._link_by_waiters(closures)
        self._link_by_anyio()
        for task, parent in parents.items():
            if parent is not task:
                self._children.setdefault(parent, []).append(task)

    def _link_by_waiters(self, closures: Iterable[tuple[Task, Any]]) -> None:
        waiting: dict[int, Task] = {}
        for task in self._tasks:
            waiter = getattr(task, "_fut_waiter", None)
            if waiter is not None:
                waiting[id(waiter)] = task
                if isinstance(waiter, asyncio.Task):
                    self._parents.setdefault(waiter, task)
        for task, callback in closures:
            for future in _futures_of(callback):
                if id(future) in waiting:
                    self._parents.setdefault(task, waiting[id(future)])

    def _link_by_anyio(self) -> None:
        states = getattr(sys.modules.get("anyio._backends._asyncio"), "_task_states", None)
        if states:
            by_id = {id(task): task for task in self._tasks}
            for task in self._tasks:
                parent = by_id.get(getattr(states.get(task), "parent_id", None) or 0)
                if parent is not None:
                    self._parents.setdefault(task, parent)

    # What there is

    def at(self, runs: Sequence[AppRun]) -> AppTasks:
        open_requests = [each for run in runs for each in run.open_requests().items()]
        open_requests.sort(key=lambda each: each[0].began)
        work = [each for run in runs for each in run.handed_over.work]
        jobs = [each for each in running_jobs() if each[0].get_loop() is self._loop]
        # Each has its place below its request, or is work of its own, whoever else waits for it.
        claimed = {task for task, _, _ in work} | {task for task, _ in jobs}
        for request, _ in open_requests:
            handler, group = request.parent, request.innermost.group
            claimed.update(
                () if handler is None else (handler,), () if group is None else group.tasks
            )
            for child in () if group is None else group.tasks:
                self._kinds[child] = _kind_in(group, child)
        lifespans = tuple(self._lifespans(runs))
        pumps = tuple(self._pump(run, pump) for run in runs for pump in run.pumps.runs)
        self._shown |= claimed
        requests = tuple(self._requests(open_requests))
        handed_over = tuple(self._handed_over(work))
        jobs_found = tuple(self._jobs(jobs))
        return AppTasks(
            at=self._at,
            pid=os.getpid(),
            process=multiprocessing.current_process().name,
            is_shutting_down=any(run.shutdown.has_begun for run in runs),
            lifespans=lifespans,
            pumps=pumps,
            handed_over=handed_over,
            jobs=jobs_found,
            requests=requests,
            others=tuple(self._others()),
            open_requests=len(open_requests),
            tasks=len(self._tasks),
            requests_left_out=len(open_requests) - len(requests),
            tasks_left_out=self._left_out,
            seconds=time.perf_counter() - self._began,
        )

    def _lifespans(self, runs: Iterable[AppRun]) -> Iterator[LifespanInfo]:
        for run in runs:
            stage = run.lifespan
            if stage is None or stage.task.done():
                continue
            age = self._now - stage.since
            task = None
            if not run.pumps.is_starting:
                task = self._task(stage.task, TaskKind.OTHER, is_handler=True)
            yield LifespanInfo(
                phase=stage.phase, since=self._at - timedelta(seconds=age), age=age, task=task
            )

    def _pump(self, run: AppRun, pump: PumpRun) -> PumpInfo:
        task, health = run.pumps.task_of(pump), pump_health(pump)
        lock = pump.pump.once
        return PumpInfo(
            name=health.name,
            state=health.state,
            is_up=health.is_up,
            since=health.since,
            next_run=health.next_run,
            restarts=health.restarts,
            lock=None if lock is None else repr(lock),
            holder=health.holder,
            task=(
                None
                if task is None
                else self._task(task, TaskKind.BACKGROUND, (), name_of(pump.pump.function))
            ),
        )

    def _requests(self, requests: Iterable[tuple[Any, Connection]]) -> Iterator[RequestInfo]:
        for request, scope in requests:
            if self._left <= 0:
                return
            found = request.innermost
            # Outside of the middleware there is none, and one that has ended says nothing.
            if isinstance(found, Exchange):
                yield self._request(found, found.conn or scope)

    def _request(self, request: Exchange, scope: Connection) -> RequestInfo:
        age = self._now - request.began
        group, client, handler = request.group, scope.get("client"), request.parent
        info = None
        if handler is not None and not handler.done():
            children = [] if group is None else [child for child, _ in group.children()]
            endpoint = name_of(scope.get("endpoint"))
            info = self._task(handler, TaskKind.OTHER, children, endpoint, is_handler=True)
        return RequestInfo(
            method=shortened(str(scope.get("method", "WebSocket"))),
            route=route_path(scope),
            path=shortened(str(scope.get("path", ""))),
            client=None if not client else shortened(":".join(map(str, client))),
            since=self._at - timedelta(seconds=age),
            age=age,
            deadline_left=None if request.watch is None else request.watch.time_left,
            phase=_phase_of(request),
            cancel_reason=None if request.reason is None else str(request.reason),
            handler=info,
        )

    def _handed_over(self, work: Sequence[tuple[Task, str, float]]) -> Iterator[WorkInfo]:
        for number, (task, origin, since) in enumerate(work):
            if self._left <= 0:
                self._left_out += len(work) - number
                return
            age = self._now - since
            yield WorkInfo(
                origin=origin,
                since=self._at - timedelta(seconds=age),
                age=age,
                task=self._task(task, TaskKind.FOREGROUND),
            )

    def _jobs(self, jobs: Sequence[tuple[Task, RunningCall]]) -> Iterator[JobInfo]:
        for number, (task, call) in enumerate(jobs):
            if self._left <= 0:
                self._left_out += len(jobs) - number
                return
            age = self._now - call.since
            yield JobInfo(
                job=call.job,
                origin=shortened(call.origin),
                attempt=call.attempt,
                since=self._at - timedelta(seconds=age),
                age=age,
                task=self._task(task, TaskKind.FOREGROUND, (), call.function),
            )

    def _others(self) -> Iterator[TaskInfo]:
        """Yield what the app has started by itself, and nobody has said where it belongs."""
        for task in self._tasks:
            if task in self._shown or not runs_the_app(task) or self._is_below_others(task):
                continue
            if self._left > 0:
                yield self._task(task, TaskKind.OTHER)
            else:
                self._left_out += 1

    def _is_below_others(self, task: Task) -> bool:
        seen = {task}
        parent = self._parents.get(task)
        while parent is not None and parent not in seen:
            if parent in self._shown or runs_the_app(parent):
                return True
            seen.add(parent)
            parent = self._parents.get(parent)
        return False

    # One task

    def _task(
        self,
        task: Task,
        kind: TaskKind,
        children: Sequence[Task] = (),
        function: str | None = None,
        *,
        is_handler: bool = False,
        depth: int = 0,
    ) -> TaskInfo:
        self._left -= 1
        self._shown.add(task)
        frames, _ = frames_of(task)
        if is_handler:
            frames = inside_of_middleware(frames)
        is_waiting = waits_for_turn(task)
        hidden: dict[Task, None] = {}
        below = list(self._below([*children, *self._children.get(task, ())], hidden))
        at = _At(task, frames, hidden)
        state = TaskState.RUNNING
        if task.cancelling():
            state = TaskState.CANCELLING
        elif is_waiting:
            state = TaskState.WAITING
        movements = self._movements
        # Those that it waits for say it of themselves, also where it waits for their places.
        return TaskInfo(
            id=f"{id(task):x}",
            name=shortened(task.get_name()),
            function=function or at.function or name_of(coroutine_of(task)) or "",
            kind=kind,
            state=state,
            place=at.place,
            awaits="" if is_waiting else at.awaits,
            unmoved=(
                None
                if movements is None or at.awaits_tasks or is_waiting
                else movements.unmoved(at.task, self._now)
            ),
            children=tuple(self._infos(below, set(children), depth + 1)),
        )

    def _infos(self, tasks: Iterable[Task], claimed: set[Task], depth: int) -> Iterator[TaskInfo]:
        for task in sorted(dict.fromkeys(tasks), key=self._order):
            if (task in self._shown and task not in claimed) or task.done():
                continue
            if self._left <= 0 or depth > DEEPEST:
                self._shown.add(task)
                self._left_out += 1
            else:
                yield self._task(task, self._kinds.get(task, TaskKind.OTHER), depth=depth)

    def _order(self, task: Task) -> tuple[TaskKind, int, str]:
        """Sort by kind and name: Task-9 before Task-10."""
        name = task.get_name()
        return self._kinds.get(task, TaskKind.OTHER), len(name), name

    def _below(self, tasks: Iterable[Task], hidden: dict[Task, None]) -> Iterator[Task]:
        """Yield tasks, but for one of a library's own those below it, and note it in *hidden*."""
        to_see = [*tasks]
        while to_see:
            task = to_see.pop()
            if task in self._kinds or runs_the_app(task):
                yield task
            elif task not in hidden and len(hidden) < MOST_HIDDEN:
                hidden[task] = None
                to_see += self._children.get(task, ())


class _At:
    """Where a task is, or one of a library's own that it waits for, and what is awaited there.

    Args:
        task: The task.
        frames: Those in which it is suspended, the outermost one first.
        hidden: Tasks of a library's that it waits for, such as those of a response that streams.

    Attributes:
        task: The task that is there.
        function: The function that it runs; empty if none of the app's own is known.
        place: The line.
        awaits: What is awaited.
        awaits_tasks: Whether that is other tasks.
    """

    def __init__(self, task: Task, frames: Sequence[FrameType], hidden: Iterable[Task]) -> None:
        self.task, self.function, self.place = task, "", None
        self.awaits, self.awaits_tasks = "", False
        if not frames:
            return
        thread = thread_frames(frames)
        stack = [*with_bodies(frames), *thread]
        own = own_frames(stack)
        for each in hidden:
            deeper = list(with_bodies(frames_of(each)[0]))
            found = own_frames(deeper)
            if deeper and (found or not own):
                self.task, own, stack = each, found, deeper
        if own:
            code = own[-1].f_code
            self.function = own[0].f_code.co_qualname
            self.place = Place(
                function=code.co_qualname, file=code.co_filename, line=own[-1].f_lineno
            )
        waiter, last = getattr(self.task, "_fut_waiter", None), stack[-1]
        in_process = called_in_process(frames)
        if in_process is not None:
            self.awaits = f"a process, in {_named(in_process)}"
        elif thread:
            self.awaits = f"a thread, in {_called(last)}"
        elif isinstance(waiter, asyncio.Task):
            self.awaits, self.awaits_tasks = f"the task {shortened(waiter.get_name())!r}", True
        elif waiter is None:
            self.awaits = "nothing: it runs"
        elif package_of(last) == "quattro_core":
            self.awaits, self.awaits_tasks = "its children", True
        elif type(waiter).__name__ == "_GatheringFuture":
            self.awaits, self.awaits_tasks = "asyncio.gather", True
        elif not own or last is not own[-1]:
            self.awaits = _called(last)


def _named(function: Any) -> str:
    return f"{getattr(function, '__module__', None)}.{name_of(function)}"


def _called(frame: FrameType) -> str:
    return f"{frame.f_globals.get('__name__')}.{frame.f_code.co_qualname}"


def _kind_in(group: object, task: Task) -> TaskKind:
    background = getattr(group, "_background", None) or ()
    return TaskKind.BACKGROUND if task in background else TaskKind.FOREGROUND


def _phase_of(request: Exchange) -> RequestPhase:
    state, group = request.state, request.group
    if state is RequestState.OVER:
        return RequestPhase.ENDING
    if request.reason is not None:
        return RequestPhase.CANCELLING
    waiter = None if group is None else group._on_completed_fut  # noqa: SLF001  # asyncio's name
    if waiter is not None and not waiter.done():
        return RequestPhase.WAITING
    return _PHASES[state]


_PHASES = {
    RequestState.OPEN: RequestPhase.HANDLING,
    RequestState.HOLDING: RequestPhase.HOLDING,
    RequestState.STREAMING: RequestPhase.STREAMING,
}


def _futures_of(callback: object) -> tuple[object, ...]:
    """Return what a callback of asyncio's, which is a closure or a partial, refers to."""
    if isinstance(callback, partial):
        return callback.args
    if isinstance(callback, FunctionType) and callback.__closure__:
        try:
            return tuple(cell.cell_contents for cell in callback.__closure__)
        except ValueError:  # one is empty
            pass
    return ()


def _all_tasks(loop: asyncio.AbstractEventLoop) -> list[Task]:
    """Return the tasks of a loop that have not ended, in any thread."""
    return [task for task in asyncio.all_tasks(loop) if not task.done()]
