"""The tasks of a request: its task group, and how its response waits for it."""

from __future__ import annotations

import asyncio
import sys
from asyncio import CancelledError, current_task
from asyncio import tasks as asyncio_tasks
from asyncio.events import _get_running_loop
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Iterator
from contextlib import suppress
from contextvars import Context
from functools import partial
from gc import get_referents
from types import CoroutineType, FrameType, MappingProxyType
from typing import Any, Never, NoReturn, Protocol, TypeVar, cast

from starlette.requests import ClientDisconnect
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from quattro_core import TaskGroup, TooManyWaitingError
from quattro_core._deadlock import waits_for
from quattro_core._threads import awaited_by, cancel, frame_of, local_of, thread_call
from quattro_web._errors import DeadlineExceededError, ShuttingDownError
from quattro_web._request.handler_end import REQUEST_STACK, Guard
from quattro_web._request.handlers import (
    HANDLERS,
    EndsChildren,
    choose,
    end_children_first,
    exited,
    log_unanswered,
    note_unawaited,
    only_leaf,
    raise_anew,
    refuse_denial,
)
from quattro_web._request.response import (
    BODIES,
    STARTS,
    ResponseGate,
    Sender,
    close_body,
    nothing,
    takes_errors_for_leaving,
)
from quattro_web._request.state import CancelReason, RequestState
from quattro_web._util import cancel_scopes
from quattro_web._util.counts import REJECTIONS, TASK_FAILURES, error_type
from quattro_web._util.routes import route_path
from quattro_web._util.scope import REQUEST, Connection
from quattro_web._util.task_stacks import task_name

T = TypeVar("T")

# What `TaskGroup.create_task` takes.
CoroutineOrFunction = (
    Coroutine[Any, Any, T] | Generator[Any, None, T] | Callable[[], Coroutine[Any, Any, T]]
)

CALL_GRAPH = sys.version_info >= (3, 14)  # tasks know who waits for them
# Whether a group passes on, as it exits, a cancellation that its body has met before: see NO_LEAKS
# of _taskgroup.py.
KNOWS_CANCELS = sys.version_info >= (3, 13)


class Request(Sender, Protocol):
    """What the tasks of a request need of it: of the `Exchange`, which is above them."""

    parent: asyncio.Task[Any] | None
    failed_before: int
    opened_gate: ResponseGate | None

    @property
    def gate(self) -> ResponseGate: ...
    def hold(self, start: Message) -> None: ...
    @property
    def is_over(self) -> bool: ...
    @property
    def is_accepted(self) -> bool: ...
    @property
    def client_has_left(self) -> bool: ...
    async def unwatch(self) -> None: ...
    async def sections_end(self) -> None: ...


_OVER = RequestState.OVER  # see response.py

# Turns of the event loop that whoever has awaited a child gets to see how it has ended, before the
# host is cancelled: `gather` takes three.
TURNS = 4

# Turns that the host gets to pass on the failure of a stream before it is cancelled: a task group
# of anyio's loses the failure if its host is cancelled in the group's last turn.
FAILURE_TURNS = 20

# Seconds that who has seen the cancellation of a child, for which it waited, gets to end by itself.
PATIENCE = 10.0

# Turns that a response which listens for its client's leaving gets to begin to stream.
BEGIN_TURNS = 20

_CANCELLED = "the request's task group was cancelled before the response was complete"

_OWN_ERRORS: dict[CancelReason | None, type[DeadlineExceededError | ShuttingDownError]] = {
    CancelReason.DEADLINE: DeadlineExceededError,
    CancelReason.SHUTDOWN: ShuttingDownError,
}


class RequestGroup(TaskGroup):
    """The task group of a request, which knows whom to cancel when the request is to end, and when.

    - Whoever waits for a child that fails is not cancelled: what it awaits raises the error.
    - While the handler runs, it is cancelled at once. FastAPI's may run in a task of its own, below
      a `BaseHTTPMiddleware`: that is cancelled, not the one that waits for it.
    - Who hosts other tasks with the request's code (a response that streams, a middleware that runs
      the app in a task) may hold them in a cancel scope of anyio's, which cancels them again on
      each turn of the loop, and with them the child that one of them waits for. So children end
      first, then the task that streams, and then the host is cancelled.
    - What waits for a thread is cancelled when the thread has ended. A ``def`` handler, or a child
      that has called into the thread pool, would otherwise go on there with the dependencies that
      are closed then. anyio does not tell when a thread has ended.
    """

    _way_out = (
        ": the tasks of a request end before its response is complete; "
        "hand work that outlives it to quattro_web.app_task_group(conn)"
    )
    _is_open = (
        ": the request's group is open until its response is complete, so use it without async "
        "with; for a group of your own, write async with quattro_web.TaskGroup() as tg"
    )
    # Of one that is traced, which has its scope.
    is_traced = False
    scope: Connection = MappingProxyType({})
    # What has failed: the kind of each child, and its error's name.
    failed: tuple[tuple[str, str], ...] = ()
    # The tasks that run the request's code besides the parent: FastAPI's handler, as long as it
    # runs, and what sends the response.
    handler: asyncio.Task[Any] | None = None
    stream: asyncio.Task[Any] | None = None
    # Whether the parent may be a host.
    is_hosted = False
    # Whether `cancel` was called, by us or by the app.
    was_cancelled = False
    # Whether nobody may be cancelled now: the group is being ended by who would be, or the start of
    # a response is on its way, which has left or has not.
    is_held_up = False
    _is_left = False
    _left: asyncio.Future[None] | None = None
    _ending: asyncio.Task[bool] | None = None
    # The tasks that have asked for the group, without its children.
    askers: tuple[asyncio.Task[Any], ...] = ()
    # The errors that one of those was told of as themselves, by their numbers: it answers for them.
    told: frozenset[int] = frozenset()
    # How many children are being made.
    _making = 0
    # What was cancelled in place of the parent.
    _cancelled: asyncio.Task[Any] | None = None
    _is_cancelling_hosts = False
    _is_stream_cancelled = False
    # Those that saw the end of a child for which they waited, since one has failed: a cancellation
    # would cut what they do then.
    _told_by_child: tuple[asyncio.Task[Any], ...] = ()
    # Those of them that had, or have now, their time to end by themselves.
    _waited_for: tuple[asyncio.Task[Any], ...] = ()
    _held_up: tuple[object] | None = None
    _patience: asyncio.TimerHandle | None = None
    # Which handler's end is next: what was to be cancelled in time for an earlier one is not.
    _phase = 0

    def _abort(self) -> None:
        if not self._aborting and current_task() is not self._parent_task:
            self._note_cancels()
        super()._abort()

    def _note_cancels(self) -> None:
        # One for which the parent cleans up, or which `gather` keeps, has not come out yet.
        if not handles_cancellation(self._parent_task):
            super()._note_cancels()

    def _settle(self, task: asyncio.Task[Any], *, is_background: bool = False) -> None:
        super()._settle(task, is_background=is_background)
        # Called before whoever waits for the child is woken, whatever it waits with.
        if self._aborting and self.is_hosted:
            for host in {self._parent_task, self.handler, self.stream}:
                if host is None or host in self._told_by_child:
                    continue
                if task in waits_for(host):
                    self._told_by_child += (host,)

    # Children

    def create_task(
        self,
        coro: CoroutineOrFunction[T],
        *args: Never,
        name: str | None = None,
        context: Context | None = None,
        **kwargs: Any,
    ) -> asyncio.Task[T]:
        if args:
            return super().create_task(coro, *args)  # which says what is wrong
        loop = self._spawns_in
        if (
            _get_running_loop() is not loop
            or coro.__class__ is not CoroutineType
            or kwargs
            or loop.get_task_factory() is not None
        ):
            # With care: a child may be eager, or have to wait, or there is something wrong.
            try:
                return self._create_with_care(coro, name=name, context=context, **kwargs)
            except TooManyWaitingError:
                REJECTIONS.add("total_limit")
                raise
        child: Any = _run_child(coro, self)
        child.__qualname__ = coro.__qualname__  # what asyncio's logs show
        child.send(None)
        task: asyncio.Task[T]
        if self._is_direct:
            task = asyncio_tasks.Task(child, loop=loop, name=name, context=context)
        else:
            task = loop.create_task(child, name=name, context=context)
        self._tasks.add(task)
        if CALL_GRAPH:
            self._register(task)
        return task

    create_task.__doc__ = TaskGroup.create_task.__doc__

    def children(self) -> list[tuple[asyncio.Task[Any], str]]:
        """Return all children, those that wait for their turn too, and what each is; in any thread.

        That is ``"foreground"`` or ``"background"``.
        """
        background = tuple(self._background or ())
        foreground = ((task, "foreground") for task in tuple(self._tasks))
        return [*foreground, *((task, "background") for task in background)]

    def has_child(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether a task that runs is a child, also one that has begun before the group knows it.

        A task that a child starts meanwhile counts as one.
        """
        return self.is_making or task in self.tasks

    @property
    def is_making(self) -> bool:
        """Whether a child is being made: an eager one runs its first step then."""
        return self._making > 0

    def _make(
        self,
        coro: CoroutineOrFunction[T],
        *,
        name: str | None,
        context: Context | None,
        **kwargs: Any,
    ) -> asyncio.Task[T]:
        self._making += 1
        try:
            return super()._make(coro, name=name, context=context, **kwargs)
        finally:
            self._making -= 1

    def _on_last_step(self, task: asyncio.Task[Any]) -> None:
        # When a callback of the task would be called, and before those that others have added. Not
        # at once: siblings that fail in the same turn of the loop are failures, too.
        self._loop.call_soon(self._on_task_done, task)

    def _coroutine_of(self, child: CoroutineOrFunction[T]) -> Coroutine[Any, Any, T]:
        coro = super()._coroutine_of(child)
        if not hasattr(coro, "__await__"):
            return coro  # a generator, as 3.11 takes it
        if self._loop.get_task_factory() is not None:
            return _GuardedChild(coro, self)
        guarded: Any = _run_child(coro, None)
        guarded.__qualname__ = getattr(coro, "__qualname__", "child")
        guarded.send(None)
        return cast("Coroutine[Any, Any, T]", guarded)

    # The handler's end

    def note_handler_end(self) -> None:
        """Know that the handler has ended: what was to cancel it later would cut clean-up."""
        self._is_left = True
        self._phase += 1
        self._is_cancelling_hosts = False
        self._told_by_child = ()
        if self._patience is not None:
            self._patience.cancel()
        if self._left is not None and not self._left.done():
            self._left.set_result(None)

    def cancel_now(self, msg: object) -> None:
        """Cancel the current task, which unwinds, and not once more in time: it would cut clean-up.

        A cancel scope of anyio's would take an error that it raises for one of its own.
        """
        task = current_task()
        if task is self._parent_task:
            super()._cancel_parent(msg)
        elif task is not None and task is self.stream:
            self._cancel_stream(task, msg)

    async def take_back(self) -> bool:
        """Take back the cancellation of the current task; tells whether the group has asked for it.

        Who calls it raises what has failed instead.
        """
        self._held_up = None
        task = current_task()
        if task is self._cancelled:
            self._cancelled = None
        elif self._parent_cancel_requested and task is self._parent_task:
            self._parent_cancel_requested = False
        else:
            return False
        assert task is not None
        if getattr(task, "_must_cancel", False):
            # It has not met it yet, and would at its next await. uncancel() may leave it so.
            with suppress(CancelledError):
                await asyncio.sleep(0)
        task.uncancel()
        return True

    async def outlasts(self) -> bool:
        """Wait for the end of the group in another task than the handler's; tells if it has come.

        A child can't wait for its own end, nor can a task for which a child waits. When the handler
        has ended, every other task is one of those.
        """
        await asyncio.sleep(0)  # the group knows an eager child when its first step has ended
        if not self.tasks:
            return True
        if self._is_left or current_task() in self.tasks:
            return False
        self._left = self._loop.create_future()
        self._ending = self._loop.create_task(self.finish(), name="quattro_web end")
        try:
            await asyncio.wait((self._ending, self._left), return_when=asyncio.FIRST_COMPLETED)
        except CancelledError:
            self._ending.cancel()
            raise
        return self._ending.done()

    async def settle(self) -> None:
        """Leave nothing behind of whoever has waited for the end."""
        if self._ending is not None:
            await asyncio.wait((self._ending,))

    async def cancel_stream(self) -> None:
        """End the children, and what sends the response: nobody reads it any more."""
        if self._tasks or self._background:
            self._abort()
        while self._tasks or self._background:
            await asyncio.wait([*self._tasks, *(self._background or ())])
        turns = 0
        while self.stream is None and turns < BEGIN_TURNS:
            await asyncio.sleep(0)  # it is about to begin
            turns += 1
        stream = self.stream
        if stream is not None and stream is not current_task():
            if stream in self._told_by_child or cleans_up(stream):
                await asyncio.wait((stream,), timeout=PATIENCE)
            self._cancel_stream(stream, None)
            # One that goes on all the same is left to the scope around it.
            await asyncio.wait((stream,), timeout=PATIENCE)

    # Who is cancelled

    @property
    def is_cancelled(self) -> bool:
        """Whether it was cancelled, and the current task, which waits for its end, has not seen."""
        is_due = self._parent_cancel_requested and getattr(current_task(), "_must_cancel", False)
        return is_due or self._held_up is not None

    def is_cancelled_by_others(self, parent: asyncio.Task[Any]) -> bool:
        """Whether somebody else has cancelled the parent, which has not seen it before."""
        return parent.cancelling() > self._cancels_before

    def release(self) -> None:
        """Cancel now whoever was to be cancelled while it was held up."""
        self.is_held_up = False
        held, self._held_up = self._held_up, None
        if held is not None:
            self._cancel_parent(*held)

    def _error_of(self, task: asyncio.Task[Any]) -> BaseException | None:
        if not task.cancelled():
            return task.exception()
        if self._aborting or task.cancelling():
            return None
        # Nobody has asked it to end: work is missing that somebody waits for, or a stream its
        # feeder.
        error = RuntimeError(f"{task_name(task)} was cancelled by something that it awaited")
        try:
            task.exception()
        except CancelledError as cancelled:
            error.__cause__ = cancelled
        return error

    def _is_returned(self, task: asyncio.Task[Any], error: BaseException) -> bool:
        # One that has called sys.exit() has no result: see `exited`.
        is_exit = isinstance(error.__cause__, SystemExit)
        return not is_exit and super()._is_returned(task, error)

    def _fail(
        self,
        error: BaseException,
        task: asyncio.Task[Any] | None = None,
        *,
        is_background: bool = False,
    ) -> None:
        self.failed += (("background" if is_background else "foreground", error_type(error)),)
        super()._fail(error, task, is_background=is_background)

    def _tell_body(self, task: asyncio.Task[Any] | None) -> None:
        for asker in self.askers if task is not None else ():
            # One that somebody else has cancelled by now sees that instead.
            is_awaited = getattr(asker, "_fut_waiter", None) is task
            if is_awaited and not getattr(asker, "_must_cancel", False):
                self.told |= {id(self._errors[-1])}
                return
        super()._tell_body(task)

    @property
    def untold(self) -> list[BaseException]:
        """The errors of children that the handler does not know of as themselves."""
        errors = self._errors or []
        return [error for error in errors if id(error) not in self.told] if self.told else errors

    def failed_before(self, exc: BaseException | None) -> int:
        """Return how many of those have come before *exc*, which may be one that it was told of."""
        count = 0
        for error in self._errors or ():
            if error is exc:
                break
            count += id(error) not in self.told
        return count

    def _take_back_cancel(self, failure: BaseException) -> bool:
        task = current_task()
        assert task is not None
        before = self._cancels_before if task is self._parent_task else 0
        if (count := task.cancelling() - before) > 1:
            return False  # somebody else has cancelled it as well
        if task is self._cancelled:
            self._cancelled = None
        elif self._parent_cancel_requested and task is self._parent_task:
            self._parent_cancel_requested = False
        elif count or task not in (self._parent_task, self.handler, self.stream):
            return False  # a child, or a task of the handler's: others are cancelled for it
        if count:
            task.uncancel()
        else:
            # It may be about to be cancelled, when children have ended, for what it knows now.
            self._phase += 1
            self._is_cancelling_hosts = False
        self.told |= {id(failure)}
        return True

    def _cancel_parent(self, msg: object = None, *, late: bool = False) -> None:
        if self.is_held_up:
            self._held_up = (msg,)
        elif self._cancelled is None:
            handler = self.handler
            if handler is not None and handler.done():
                handler = None
            if self.is_hosted and handler is None:
                if not self._is_cancelling_hosts:
                    self._is_cancelling_hosts = True
                    self._cancel_hosts(msg, self._phase)
                return
            task = handler or self._parent_task
            cancel_it = partial(self._cancel_parent_late, msg, self._phase)
            if self._put_off(task, cancel_it, late=late):
                return
            if task is self._parent_task:
                super()._cancel_parent(msg, late=late)
            else:
                self._cancelled = task
                task.cancel(msg)

    def _cancel_parent_late(self, msg: object, phase: int) -> None:
        if phase == self._phase:
            self._cancel_parent(msg, late=True)

    def _pass_on_cancel(self, parent: asyncio.Task[Any]) -> None:
        # A cancel scope of anyio's, which knows its own, cancels again by itself.
        if not cancel_scopes.is_cancelled():
            super()._pass_on_cancel(parent)

    def cancel(self, msg: object = None) -> None:
        # When its children have ended, an answer is on its way, or dependencies close.
        if not self._exiting:
            self.end(msg)

    def end(self, msg: object) -> None:
        """Do what `cancel` does, also when the children have ended."""
        self.was_cancelled = True
        super().cancel(msg)

    def _cancel_hosts(self, msg: object, phase: int, _: object = None, *, turns: int = 0) -> None:
        """Cancel from the inside out: what streams when the children have ended, then the host."""
        if phase != self._phase:
            return  # the handler has ended meanwhile
        again = partial(self._cancel_hosts, msg, phase)
        for task in (*self._tasks, *(self._background or ())):
            if not task.done():
                task.add_done_callback(again)
                return
        stream = self.stream
        host = self._parent_task
        task = host if stream is None or stream.done() else stream
        call = thread_call(task)
        if call is not None:
            call.add_done_callback(again)
        elif task not in self._waited_for and (
            # It is costly to look for a clean-up: at the last moment, since it may end by itself.
            task in self._told_by_child or (turns >= TURNS and cleans_up(task))
        ):
            self._waited_for += (task,)
            task.add_done_callback(partial(again, turns=TURNS))
            self._patience = self._loop.call_later(PATIENCE, again)
        elif turns < (FAILURE_TURNS if task is host and has_failed(stream) else TURNS):
            self._loop.call_soon(partial(again, turns=turns + 1))
        elif task is host:
            super()._cancel_parent(msg)
        else:
            self._cancel_stream(task, msg)
            task.add_done_callback(partial(again, turns=TURNS))  # what is behind it never runs

    def _cancel_stream(self, stream: asyncio.Task[Any], msg: object) -> None:
        if not self._is_stream_cancelled:
            self._is_stream_cancelled = True
            cancel(stream, msg)


# Errors of Python's own, such as that of an attribute that is missing, name the public class.
RequestGroup.__name__ = RequestGroup.__qualname__ = TaskGroup.__name__


def has_failed(stream: asyncio.Task[Any] | None) -> bool:
    """Whether a task, if any, which is done, has ended with an error of its own."""
    return stream is not None and not stream.cancelled() and stream.exception() is not None


def cleans_up(task: asyncio.Task[Any]) -> bool:
    """Whether a task, or one that it waits for, is where a cancellation has led it."""
    tasks = (each for each in (task, *waits_for(task)) if isinstance(each, asyncio.Task))
    return any(handles_cancellation(each) for each in tasks)


def handles_cancellation(task: asyncio.Task[Any]) -> bool:
    """Whether a task is where a cancellation has led it, or keeps one to raise it later."""
    at = None if task.done() else task.get_coro()
    while at is not None:
        # It refers to what it handles, which nothing else tells.
        if any(isinstance(found, CancelledError) for found in get_referents(at)):
            return True
        at = awaited_by(at)
    return False


class _FirstStep:
    """What a child awaits before it begins: the first step of its task."""

    def __await__(self) -> Iterator[None]:
        return iter(_ONCE)


_ONCE = (None,)  # task_stacks.py knows a child that waits for its first step by a tuple's iterator
_FIRST_STEP: Any = _FirstStep()  # typeshed wants a generator, which takes longer


async def _run_child(coro: Coroutine[Any, Any, T], group: RequestGroup | None) -> T:
    """Run a child in its task.

    asyncio lets the SystemExit of any task out of the event loop, which ends with it: nothing but a
    coroutine around the child keeps it back. It pays for itself where it tells the group of the
    child's end: a callback of the task takes longer than all of this.

    It is sent None before its task is made: so it can close a child that is cancelled before its
    first step, which Python would warn of as "never awaited".

    Args:
        coro: The child.
        group: What to tell of its end; None if that is for a callback of its task.
    """
    try:
        await _FIRST_STEP
    except BaseException as exc:
        coro.close()
        if group is not None and isinstance(exc, asyncio.CancelledError):
            _tell(group, current_task())
        raise
    task: Any = current_task()
    try:
        result = await coro
    except BaseException as exc:
        # The coroutine of a task that is destroyed while it waits is closed, in no task.
        if group is not None and not _is_gone(task):
            _tell(group, task)
        task = group = None  # the error refers to this frame, and the task to the error
        if isinstance(exc, SystemExit):
            raise exited(exc) from exc
        raise
    if group is not None:
        tasks: set[Any] = group._tasks  # noqa: SLF001  # of a subclass of TaskGroup: see there
        if len(tasks) == 1:
            _tell(group, task)
        else:
            tasks.discard(task)
            if CALL_GRAPH:
                asyncio.future_discard_from_awaited_by(task, group._parent_task)  # type: ignore[attr-defined,unused-ignore] # noqa: SLF001  # of 3.14
    return result


def _tell(group: RequestGroup, task: asyncio.Task[Any] | None) -> None:
    assert task is not None
    group._on_last_step(task)  # noqa: SLF001  # as above


def _is_gone(task: asyncio.Task[Any] | None) -> bool:
    try:
        return current_task() is not task
    except RuntimeError:
        return True  # no event loop runs


class _GuardedChild(Coroutine[Any, Any, T]):
    """What `_run_child` does for the task factory of an application, which may have its own way.

    It is none of Python's coroutines, which can't be awaited any more when they have begun, and are
    "never awaited" if they have not. asyncio takes longer for a task of such an object.
    """

    __slots__ = ("_coro", "_error", "_group")

    def __init__(self, coro: Coroutine[Any, Any, T], group: RequestGroup) -> None:
        self._coro = coro
        self._group: RequestGroup | None = group  # until its first step
        self._error: BaseException | None = None  # of an eager first step

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coro, name)

    def __await__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def send(self, value: Any) -> Any:
        is_eager = self._group is not None and self._group.is_making
        self._group = None  # who keeps the task keeps no group
        try:
            self._raise_error()
            return self._coro.send(value)
        except StopIteration:
            raise
        except (Exception, SystemExit, CancelledError) as exc:
            if is_eager:
                # In the next turn, as in any other task. Whoever awaits the child at once would see
                # it before the group does, which would cancel it then: in its clean-up.
                self._error = exc
                return None
            if isinstance(exc, SystemExit):
                raise exited(exc) from exc
            raise

    def throw(self, *args: Any) -> Any:
        try:
            self._raise_error()
            return self._coro.throw(*args)
        except SystemExit as exc:
            raise exited(exc) from exc

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
        finally:
            del error  # it refers to this frame

    def close(self) -> None:
        self._error = None
        self._coro.close()


class _Unwinding(CancelledError):  # noqa: N818  # no error, as little as what it is a kind of
    """The cancellation that leads out of `send` to where the handler ends: see `_unwind`."""


def runs_handler(task: asyncio.Task[Any], others: Iterable[asyncio.Task[Any] | None]) -> bool:
    """Whether the current task is in a handler of Starlette's or FastAPI's, from the outermost on.

    A task that a handler has started is not, also if it runs an app of its own.

    Args:
        task: The current task.
        others: Those in which the handler may be instead.
    """
    own = _stack(task)
    if not any(_module_of(frame) in _ROUTING for frame in own):
        return False
    for other in others:
        if other is None or other is task or other.done():
            continue
        stack = [frame for frame in _stack(other) if frame not in own]
        innermost = next((frame for frame in stack if _module_of(frame) in _CALLING), None)
        # Methods of routes and routers call middlewares of routes and mounted apps, too.
        if innermost is not None and (
            _module_of(innermost) not in _ROUTING or innermost.f_code.co_varnames[:1] != ("self",)
        ):
            return False
    return True


def _stack(task: asyncio.Task[Any]) -> list[FrameType]:
    """Return the frames of a task, the innermost first.

    If it is making an eager task just now, the frames of that come before.
    """
    coro = task.get_coro()
    stack: list[FrameType] = []
    if getattr(coro, "cr_running", False):
        frame: FrameType | None = sys._getframe()  # noqa: SLF001  # nothing else tells
        while frame is not None:
            stack.append(frame)
            frame = None if frame is frame_of(coro) else frame.f_back
    else:
        at: Any = coro
        while at is not None:
            if (frame := frame_of(at)) is not None:
                stack.insert(0, frame)
            at = awaited_by(at)
    return stack


def _module_of(frame: FrameType) -> object:
    return frame.f_globals.get("__name__")


_ROUTING = frozenset({"fastapi.routing", "starlette.routing"})
_CALLING = _ROUTING | {"starlette.endpoints"}


def sending_websocket() -> WebSocket | None:
    """Return the WebSocket whose `send` the current task is in."""
    frame: FrameType | None = sys._getframe()  # noqa: SLF001  # nothing else tells
    while frame is not None:
        websocket = local_of(frame, "self") if frame.f_code is _SEND else None
        if isinstance(websocket, WebSocket):
            return websocket
        frame = frame.f_back
    return None


_SEND = WebSocket.send.__code__
# What raises a WebSocketDisconnect.
_METHODS = frozenset(
    function.__code__ for function in vars(WebSocket).values() if hasattr(function, "__code__")
)


class RequestTasks:
    """The task group of one request, made when it was first asked for, and how it ends.

    Args:
        request: The request.
        group: The group, entered.
        conn: What the group was asked for with.

    Attributes:
        guards: What ends the children before dependencies close; None if there is nothing to.
        have_ended: Whether the children have, so that whatever is sent may leave.
        has_raised: Whether the handler has raised something of its own.
        offered: What an exception handler of the app's has raised, or has not answered as it was
            cancelled: it is offered to none again.
        failure: What was raised at the end of the handler, to whoever stands around it; None if
            nothing has failed until then.
    """

    # Without __slots__: CPython 3.13 makes and frees an object with them more slowly.

    def __init__(self, request: Request, group: RequestGroup, conn: Connection) -> None:
        self.request = request
        self.group = group
        self.conn = conn
        self.have_ended = False
        self.failure: BaseException | None = None
        self.has_raised = False
        self.offered: BaseException | None = None
        # Why the request had been cancelled when that was told.
        self._told_reason: CancelReason | None = None
        # What tells those around the handler that the client has left: it is no failure.
        self._news: BaseException | None = None
        # Whether a cancellation from outside is to come out when the request has been answered.
        self._owes_cancel = False
        # Whether a response was made that has failed: nothing of it may leave any more.
        self._is_refusing = False
        # Of each pair of FastAPI's exit stacks, by the number of the first.
        self.guards: dict[int, Guard] | None = None

    @property
    def scope(self) -> Connection:
        """The ASGI scope."""
        scope: Connection = getattr(self.conn, "scope", self.conn)
        return scope

    @property
    def is_websocket(self) -> bool:
        """Whether this is a WebSocket connection."""
        return bool(self.conn["type"] == "websocket")

    @property
    def is_accepted(self) -> bool:
        """Whether this is a WebSocket that was accepted."""
        return self.request.is_accepted

    @property
    def are_to_end(self) -> bool:
        """Whether children are to be ended before anybody else sees what their handler raises."""
        return self._is_before_response and not self.have_ended

    @property
    def _is_before_response(self) -> bool:
        """Whether no response has begun; that of a WebSocket handler never does."""
        return self.request.state is RequestState.OPEN or self.is_websocket

    def is_handled_here(self) -> bool:
        """Whether the current task has asked for the group, and is no child."""
        return current_task() in self.group.askers

    def guard(self, conn: Connection, task: asyncio.Task[Any] | None) -> None:
        """See to it that children end with the handler of whoever asks for the group.

        Args:
            conn: What it asks with.
            task: Who asks. None if the request is to be cancelled, and nobody has asked.
        """
        group, parent = self.group, self.request.parent
        scope = getattr(conn, "scope", conn)
        if task is not None and task not in group.askers:
            if task is not parent and group.has_child(task):
                task = None  # a child is no handler
            else:
                group.askers += (task,)
                handlers = scope.get(HANDLERS)
                if handlers is not None and EndsChildren not in handlers[0]:
                    end_children_first(handlers)
            if task is not parent and group.stream is None and not self._is_before_response:
                group.stream = task  # the body of a response asks, the start of which has left
        if REQUEST_STACK in scope:
            if self.guards is None:
                self.guards = {}
            stack = id(scope[REQUEST_STACK])  # which its guard keeps alive
            guard = self.guards.get(stack)
            if guard is None:
                guard = self.guards[stack] = Guard(scope, self)
            if guard.task is None and task is not None and self._is_before_response:
                if task is parent or runs_handler(task, (parent, group.handler)):
                    guard.task = group.handler = task
                else:
                    group.is_hosted = True  # a task that the handler has started asks for it
        elif task is not None and task is not parent:
            if self._is_before_response and runs_handler(task, (parent, group.handler)):
                group.handler = task
            group.is_hosted = True

    def unguard(self) -> None:
        """Let go of those dependencies, and count what has failed: the request has ended."""
        for kind, error in self.group.failed:
            TASK_FAILURES.add(kind, error, route_path(self.scope))
        guards, self.guards = self.guards, None
        for guard in (guards or {}).values():
            guard.detach()
        self._news = self.offered = None  # they refer to this object, by their tracebacks

    def _is_main(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether the handler runs in it, or the middleware does."""
        guards = (self.guards or {}).values()
        return task is self.request.parent or any(guard.task is task for guard in guards)

    # Sending

    def send(self, message: Message) -> Awaitable[None]:
        """Send a message, but not the end of the response before its time."""
        kind = message["type"]
        if self.have_ended:
            is_denial = kind == "websocket.http.response.start"
            if is_denial and self.failure is not None and self.is_accepted:
                return refuse_denial(self.failure)
            if self._is_refusing and (kind in BODIES or kind in STARTS):
                return self._send_instead(message)
            return self.request.pass_on(message)
        if kind == "http.response.start":
            self._hold(message)
            return nothing()
        if kind in BODIES and not message.get("more_body"):
            return self._send_end(message)
        return self._send(message)

    def _hold(self, start: Message) -> None:
        group = self.group
        task = current_task()
        if task is not self.request.parent and not group.has_child(task):
            group.stream = task
        group.is_hosted = True
        if self.guards is None:
            group.handler = None  # it has returned; one of FastAPI's is told of by its guard
        self.request.hold(start)

    async def _send_instead(self, message: Message) -> None:
        """Send what is answered instead of a response that has failed, and nothing more of that."""
        request = self.request
        if message["type"] in BODIES or request.start is not None:
            await close_body()
            await self._unwind()
        self._is_refusing = False
        await request.pass_on(message)

    async def _send_end(self, end: Message) -> None:
        """Send the end of a response when the children have ended, after all that is held back."""
        request, group = self.request, self.group
        gate = request.opened_gate
        if gate is not None:
            gate.keep()
        if request.start is not None:
            await asyncio.sleep(0)  # as in `Exchange._send_last`
        if current_task() is request.parent:
            group.is_held_up = True
            try:
                await group.finish()
            finally:
                group.is_held_up = False
        elif not await group.outlasts():
            request.gate.hold_end(end)
            return
        else:
            await group.finish()
        if request.reason is not None or group.untold or group.is_cancelled:
            await self._fail()
        self.have_ended = True
        gate = request.opened_gate
        if gate is None or not (gate.behind or gate.releasing is not None):
            await request.send_whole(end)
        else:
            await request.gate.flush()
            await request.pass_on(end)

    async def _send(self, message: Message) -> None:
        """Send what is not the end of a response: a start, a piece, a message of a WebSocket."""
        request = self.request
        kind: str = message["type"]
        if kind in BODIES:
            gate = request.gate
            try:
                if self.group.untold or request.reason is not None:
                    await self._unwind()
                if gate.hold_piece(message):
                    await asyncio.sleep(0)  # a send that never waits would starve the others
                    return
                if gate.is_ahead:
                    await gate.flush()
                await request.pass_on(message)
            except (CancelledError, Exception):
                await close_body()
                raise
            return
        if self.group.untold or request.reason is not None:
            await self._unwind()
        if kind in STARTS:
            self._hold(message)
            return
        if kind == "websocket.close":
            await self._before_close()
        elif request.held is not None or request.starting is not None:
            await request.gate.flush()  # it follows the start
        await request.pass_on(message)

    async def _before_close(self) -> None:
        """Wait for the children of a WebSocket that closes; they may send until then."""
        # That of a child, or of a task of a child's, goes out at once: it can't wait for its own
        # end, and the handler may be waiting for what follows the close.
        group = self.group
        if current_task() is self.request.parent:
            # It takes the close for sent, and would refuse whatever children send.
            websocket = self._reopen() if group.tasks else None
            group.is_held_up = True
            try:
                if self._is_abandoned:
                    await self.request.sections_end()
                await group.finish(immediate=self._is_abandoned)
            finally:
                group.is_held_up = False
            if group.untold or self.request.reason is not None:
                await self._fail()
            if websocket is not None:
                websocket.application_state = WebSocketState.DISCONNECTED
            self.have_ended = True
        # granian before 2.8.9 sends it only when no receive() is pending, as that of a watch.
        await self.request.unwatch()

    def _reopen(self) -> WebSocket | None:
        """Let the WebSocket that is sending a close, which has not left, send something else."""
        websocket = sending_websocket()
        if websocket is not None:
            state = WebSocketState.CONNECTED if self.is_accepted else WebSocketState.CONNECTING
            websocket.application_state = state
        return websocket

    # The end of the handler

    async def handler_raised(self, exc: BaseException) -> BaseException:
        """End the children, since the handler has raised: they are cancelled.

        Args:
            exc: What it has raised. A cancellation by the group stands for what has failed.

        Returns:
            What has failed: *exc*, what it stands for, or a group of several. Whoever stands around
            the handler sees that.
        """
        group = self.group
        if self.failure is not None:
            # It has ended before. What is raised now comes from who stands around it.
            is_own = isinstance(exc, CancelledError) and (
                await group.take_back() or isinstance(exc, _Unwinding)
            )
            # A task group around the handler may have wrapped what `send` has raised.
            return self.failure if is_own or only_leaf(exc) is self.failure else exc
        note_unawaited(exc)
        at = group.failed_before(exc)
        self.has_raised = not isinstance(exc, CancelledError)
        group.note_handler_end()
        cancelled = await self._finish()
        is_own = await group.take_back()
        self.have_ended = True
        if isinstance(exc, CancelledError):
            if not is_own and not self._is_told_by_others():
                return exc
        elif cancelled is not None and not is_own:
            log_unanswered([exc], self.scope)
            try:
                raise cancelled
            finally:
                del cancelled  # it refers to this frame
        parent = self.request.parent
        if (
            not KNOWS_CANCELS and parent is not None
        ):  # pragma: no cover (of the oldest, if combined)
            # Somebody else's, which is answered as the failure of a child for now.
            is_met = isinstance(exc, CancelledError) or cancelled is not None
            self._owes_cancel = is_met and group.is_cancelled_by_others(parent)
        failure = self._failure(exc, at)
        self.failure = exc if failure is None else failure
        self._told_reason = self.request.reason
        return self.failure

    def _is_told_by_others(self) -> bool:
        """Whether a cancellation that the group has not asked for tells that the request ends.

        It does in a task that a middleware has made, whose cancel scope the parent has opened, and
        if a child for which the handler waits was cancelled. Somebody else's goes on as it is.
        """
        task = current_task()
        group = self.group
        if task is None:
            return False
        if task is self.request.parent and group.is_cancelled_by_others(task):
            return False
        return bool(group.exceptions) or group.was_cancelled

    async def handler_returned(self) -> None:
        """End the children, since dependencies close: they are waited for."""
        if self.have_ended:
            return
        self.group.is_held_up = True
        try:
            if self._is_abandoned:
                await self.request.sections_end()
            await self.group.finish(immediate=self._is_abandoned)
        except CancelledError:
            await self.group.finish(immediate=True)  # another task than the parent does not wait
            raise
        finally:
            self.group.is_held_up = False
        if self.group.untold or self.request.reason is not None:
            await self._fail()
        # FastAPI closes a stack also before it sends what the handler has returned: what is held
        # back then still has to leave before the rest.

    async def response_made(self, guard: Guard) -> None:
        """Know that the handler has returned its response, which its children may produce."""
        group = self.group
        if group.handler is guard.task:
            group.handler = None
            group.is_hosted = True
        if group.untold or self.request.reason is not None:
            await self._fail()

    def is_consequence(self, exc: BaseException | None) -> bool:
        """Whether this is what others make of a handler that was cancelled.

        A `BaseHTTPMiddleware` says that it has no response, and FastAPI that its stack, with the
        task group of an event stream in it, has taken the cancellation for one of its own. An exit
        stack sets the context of what has failed, which a frozen dataclass refuses.
        """
        if isinstance(exc, AttributeError) and exc.__context__ is self.failure is not None:
            return True
        group = self.group
        if not (group.untold or group.was_cancelled):
            return False
        if type(exc).__module__ == "fastapi.exceptions" and "not awaited" in str(exc):
            return True
        traceback = exc.__traceback__ if isinstance(exc, RuntimeError) else None
        while traceback is not None and traceback.tb_next is not None:
            traceback = traceback.tb_next
        if traceback is None:
            return False
        return traceback.tb_frame.f_globals.get("__name__") == "starlette.middleware.base"

    def hold_up(self, *, on: bool) -> None:
        """Begin or end a time in which dependencies close, which nothing may cut."""
        if on:
            self.group.is_held_up = True
        else:
            self.group.release()

    def disconnected(self, exc: BaseException | None) -> bool:
        """Whether this is what dependencies are told if the client has left."""
        return exc is self._news

    async def exit(self, exc: BaseException | None) -> list[BaseException]:
        """Leave the group, in the frame of the middleware.

        Args:
            exc: What the app has raised.

        Returns:
            What has failed, in the order in which it did; a cancellation from outside is raised.
        """
        group, parent, failure, raised = self.group, self.request.parent, self.failure, exc
        errors: list[BaseException] = []
        cancelled: CancelledError | None = None
        at = group.failed_before(exc)
        group.note_handler_end()
        try:
            if self._is_abandoned and (exc is None or isinstance(exc, Exception)):
                cancelled = await self._finish()
                if cancelled is not None:
                    log_unanswered(() if exc is None else (exc,), self.scope)
                    exc = cancelled  # the exit tells whether it is the group's own
            if isinstance(exc, CancelledError) and self._is_told_by_others():
                await group.finish(immediate=True)
                exc = None
            told = group.told if failure is None else {id(error) for error in group.exceptions}
            await group.__aexit__(None, exc, None)  # which does not look at the class
        except BaseExceptionGroup as failed:
            # A child that waits for another one fails with the same object: that is one failure.
            found = {id(error): error for error in failed.exceptions}
            if exc is not None:
                found.pop(id(exc), None)
            # What the handler's end has told of is answered by who was told.
            errors = [error for number, error in found.items() if number not in told]
            if isinstance(raised, CancelledError) and failure is None and not errors:
                errors = self._caught(found.values())
        finally:
            self.have_ended = True
            group.note_handler_end()
            if self._owes_cancel and parent is not None:  # pragma: no cover (as above)
                group._pass_on_cancel(parent)  # noqa: SLF001  # as the group itself from 3.13 on
            await group.settle()
            if exc is None or isinstance(exc, CancelledError):
                if failure is not None and not self.request.is_over:
                    errors.insert(0, failure)
            elif failure is None:
                errors.insert(at, exc)
            else:
                errors.insert(0, exc)
            # They refer to this object, by their tracebacks.
            self.failure = failure = exc = raised = cancelled = None
        return errors

    def failures(
        self, errors: list[BaseException], by_handler: BaseException | None
    ) -> list[BaseException]:
        """Return what has failed: without what is no news, and with what cancelled the request.

        Args:
            errors: What the handler and its children have raised, in that order of time.
            by_handler: What the handler has raised.
        """
        request = self.request
        reason = request.reason
        if self._news is not None:
            errors = [error for error in errors if only_leaf(error) is not self._news]
        if reason is CancelReason.DISCONNECT:
            # What the handler's own read was told is no news, and no failure.
            news = (ClientDisconnect, WebSocketDisconnect)
            errors = [error for error in errors if not isinstance(only_leaf(error), news)]
        elif self.is_websocket:
            # A child may be told so in the middle of its work; what the handler itself lets out
            # leaves the app, as it does without a group.
            errors = [e for e in errors if e is by_handler or not self.tells_of_leaving(e)]
        own = None if request.is_over else _OWN_ERRORS.get(reason)
        is_told = reason is self._told_reason
        if own is None or is_told or any(error is self.offered for error in errors):
            return errors
        at = min(request.failed_before, len(errors))
        return [*errors[:at], own(), *errors[at:]]

    def tells_of_leaving(self, error: BaseException) -> bool:
        """Whether an error says that the client of this WebSocket has left.

        One that comes from the WebSocket of somebody else, as where clients send to each other, is
        an error like others.
        """
        if not isinstance(error, WebSocketDisconnect) or self.request.client_has_left:
            return isinstance(error, WebSocketDisconnect)
        traceback = error.__traceback__
        while traceback is not None:
            frame = traceback.tb_frame
            websocket = local_of(frame, "self") if frame.f_code in _METHODS else None
            if isinstance(websocket, WebSocket):
                request = websocket.scope.get(REQUEST)
                return request is not None and request.innermost is self.request
            traceback = traceback.tb_next
        return False

    def _failure(self, exc: BaseException | None, at: int) -> BaseException | None:
        """Return what has failed when the handler has ended: in place of its cancellation, too."""
        errors = list({id(error): error for error in self.group.untold}.values())
        errors = [error for error in errors if error is not exc]
        if exc is not None and not isinstance(exc, CancelledError):
            errors.insert(at, exc)
        errors = self.failures(errors, exc)
        if errors:
            return choose(errors, self.scope)
        if self.group.untold:  # a child was told that the client has left
            self._news = self.group.untold[0]
        elif self.request.reason is CancelReason.DISCONNECT:
            self._news = WebSocketDisconnect(1006) if self.is_websocket else ClientDisconnect()
        if self._news is not None:
            return self._news if exc is None or isinstance(exc, CancelledError) else None
        if not (exc is None or isinstance(exc, CancelledError)):
            return None
        if caught := self._caught(self.group.exceptions):
            return choose(caught, self.scope)
        return RuntimeError(_CANCELLED)  # the app has cancelled its group by itself

    def _caught(self, errors: Iterable[BaseException]) -> list[BaseException]:
        """Return the errors of children, if the handler has caught them and is cancelled for them.

        It has awaited another child then, which the failure has cancelled.
        """
        if self.group.was_cancelled or self.request.reason is not None:
            return []
        return list({id(error): error for error in errors}.values())

    async def _finish(self) -> CancelledError | None:
        """Cancel the children, and wait for them whatever comes; return a cancellation, if any."""
        group = self.group
        last: CancelledError | None = None
        group.is_held_up = True
        try:
            if self.request.client_has_left:
                await self.request.sections_end()
        except CancelledError as cancelled:
            last = cancelled
        try:
            await group.finish(immediate=True)
        except CancelledError as cancelled:
            last = cancelled
        finally:
            group.is_held_up = False
        try:
            return last
        finally:
            del last  # it refers to this frame

    async def _fail(self) -> NoReturn:
        """Raise what has failed, where the handler waits for its children: nothing may leave then.

        Another task than that of the handler is cancelled instead.
        """
        if not self._is_main(current_task()):
            await self._unwind()
        if self.failure is None:
            at = len(self.group.untold)
            self.group.note_handler_end()
            await self._finish()
            await self.group.take_back()
            self.failure = self._failure(None, at)
            self._told_reason = self.request.reason
            self.have_ended = self._is_refusing = True
            self.request.gate.drop()
        failure = self.failure
        assert failure is not None
        if self.is_websocket:
            self._reopen()
        if isinstance(failure, OSError) and takes_errors_for_leaving():
            await self._unwind()
        try:
            raise_anew(failure)
        finally:
            del failure

    @property
    def _is_abandoned(self) -> bool:
        """Whether the client had left when the handler returned: nobody needs the children."""
        request = self.request
        return request.client_has_left and (self.is_websocket or not request.is_over)

    async def _unwind(self) -> NoReturn:
        """Unwind, as a cancellation, to where the handler ends: the request has failed."""
        reason = self.request.reason
        if not self.have_ended:
            self.group.cancel_now(reason)
        # The cancellation comes now if it is due: one that came later would cut a clean-up.
        await asyncio.sleep(0)
        raise _Unwinding(reason or "a task of the request has failed")
