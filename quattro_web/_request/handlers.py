"""The app's exception handlers: which one answers which failure, and what happens before."""

from __future__ import annotations

import concurrent.futures
import inspect
import logging
import sys
from asyncio import CancelledError, Future
from collections.abc import (
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    MutableMapping,
    Sequence,
)
from functools import partial
from types import FrameType
from typing import Any, NoReturn, Protocol, cast

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response

from quattro_core import TooManyWaitingError
from quattro_core._threads import local_of
from quattro_web._errors import DeadlineExceededError, ShuttingDownError
from quattro_web._util.exceptions import add_note, exc_info_of, leaves, set_context
from quattro_web._util.facts import facts
from quattro_web._util.scope import REQUEST, Connection, describe

logger = logging.getLogger("quattro_web")

# Where Starlette keeps them: by class, and by status code.
HANDLERS = "starlette.exception_handlers"

Handler = Callable[[Any, BaseException], Any]


class Children(Protocol):
    """What is needed of the tasks of a request, to end them with its handler."""

    @property
    def is_accepted(self) -> bool: ...
    @property
    def are_to_end(self) -> bool: ...
    def is_handled_here(self) -> bool: ...
    async def handler_raised(self, exc: BaseException) -> BaseException: ...

    # What an exception handler of the app's has raised, which was offered to all there are, or what
    # it was to answer when it was cancelled.
    offered: BaseException | None


def find_handler(scope: Mapping[str, Any], error: BaseException) -> Handler | None:
    """Find the app's exception handler, as Starlette does; the sub-app's own, in a sub-app."""
    handlers = scope.get(HANDLERS)
    by_class, by_status = ({}, {}) if handlers is None else handlers
    handler = by_status.get(error.status_code) if isinstance(error, HTTPException) else None
    for cls in type(error).__mro__[:-1]:  # not `object`, which stands for every class
        handler = handler or by_class.get(cls)
    handler = getattr(handler, "quattro_web_handler", handler)
    # What is of our own making is answered in any app.
    return cast("Handler | None", handler or _OWN.get(type(error)))


async def call_handler(
    handler: Handler, conn: HTTPConnection, error: BaseException
) -> Response | None:
    """Call an exception handler, in a thread if it is no coroutine function."""
    function: Any = handler
    while isinstance(function, partial):
        function = function.func
    is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004  # not whether, but what
    )
    if is_async:
        return cast("Response | None", await handler(conn, error))
    return cast("Response | None", await run_in_threadpool(handler, conn, error))


def choose(errors: Sequence[BaseException], scope: Mapping[str, Any]) -> BaseException:
    """Choose what is answered of several failures: a bug is never hidden behind a 404.

    A handler of the app's for exception groups gets all. Else groups count as what is in them: one
    failure is itself; of several the first is answered if each of them has a handler, and the
    others are logged.

    Args:
        errors: What has failed, the first one first.
        scope: Where the app's exception handlers are.
    """
    group = errors[0]
    if len(errors) > 1:
        group = BaseExceptionGroup("several tasks of a request have failed", errors)
    if find_handler(scope, group) is not None:
        return group
    # A child that waits for another one fails with the same object: that is one failure.
    first, *others = {id(leaf): leaf for error in errors for leaf in leaves(error)}.values()
    if not others:
        return first
    if not all(find_handler(scope, error) for error in (first, *others)):
        return group
    for other in others:
        logger.error("another failure of a request was answered first", exc_info=exc_info_of(other))
        drop_traceback(other)
    return first


def log_unanswered(errors: Iterable[BaseException], scope: Connection) -> None:
    """Log the bugs among what has failed: somebody has cancelled the request before its answer."""
    for error in {id(leaf): leaf for failed in errors for leaf in leaves(failed)}.values():
        if isinstance(error, CancelledError) or find_handler(scope, error) is not None:
            continue
        logger.error(
            "%s has failed, and was cancelled before it was answered",
            describe(scope),
            exc_info=exc_info_of(error),
            extra=facts(scope),
        )
        drop_traceback(error)


def only_leaf(error: BaseException) -> BaseException:
    """Return the one error that is in a group, or in groups in it; itself if there are more."""
    first, *others = leaves(error)
    return error if others else first


def drop_traceback(error: BaseException) -> None:
    """Forget where an error was raised that was answered or logged, as Starlette does.

    A module may raise the same one again and again, and each time would keep a request.
    """
    BaseException.with_traceback(error, None)  # a class may have made something else of it
    if isinstance(error, BaseExceptionGroup):
        for leaf in leaves(error):
            BaseException.with_traceback(leaf, None)


async def refuse_denial(failure: BaseException) -> NoReturn:
    """Raise what is answered with a status in place of sending it: it is too late for one."""
    try:
        raise_anew(failure)
    finally:
        del failure


def raise_anew(failure: BaseException) -> NoReturn:
    """Raise an error as it is, whatever is being handled."""
    context = failure.__context__
    try:
        raise failure
    finally:
        set_context(failure, context)
        del failure, context  # it refers to this frame


# Where a returned task or coroutine is met that is none of what can be sent, and its name there.
_RETURNED = {
    "fastapi.encoders": "obj",
    "fastapi.routing": "raw_response",
    "starlette.routing": "response",
}
_INVALID = "ResponseValidationError"


def note_unawaited(exc: BaseException) -> None:
    """Note at an error that the handler has returned a task or a coroutine, if that is why.

    FastAPI and Starlette say no more than that it can't be iterated over, or called.
    """
    may_be = isinstance(exc, (TypeError, ValueError)) or type(exc).__name__ == _INVALID
    traceback = exc.__traceback__ if may_be else None
    found: Any = None
    while traceback is not None:
        frame = traceback.tb_frame
        name = _RETURNED.get(frame.f_globals.get("__name__", ""))
        value = None if name is None else local_of(frame, name)
        # FastAPI looks into what it is given: its last frames may have parts of a task.
        if isinstance(value, (Awaitable, concurrent.futures.Future)):
            found = value
        traceback = traceback.tb_next
    if found is not None:
        kind = "task" if isinstance(found, (Future, concurrent.futures.Future)) else "coroutine"
        note = f"the handler has returned a {kind}: write `return await ...` in an async def"
        add_note(exc, f"{note} handler, and `return task.result()` in a def one")


class EndsChildren:
    """An exception handler of the app's that ends the children of the request before it answers.

    Starlette calls it nearest to the handler, below the middlewares of its route, and before any
    other code sees what was raised.

    Args:
        handler: The app's; None if there is none, and what was raised goes on.
    """

    def __init__(self, handler: Handler | None) -> None:
        self.quattro_web_handler = handler

    async def __call__(self, conn: HTTPConnection, exc: BaseException) -> Response | None:
        """Answer what has failed: that may be a child, or several."""
        request = conn.scope.get(REQUEST)
        tasks: Children | None = None if request is None else request.innermost.tasks
        failure, handler = exc, self.quattro_web_handler
        try:
            if tasks is not None:
                failure = await tasks.handler_raised(exc)
                if failure is not exc:
                    handler = find_handler(conn.scope, failure)
                if tasks.is_accepted and isinstance(failure, HTTPException):
                    handler = None  # a WebSocket that was accepted has no status any more
            if handler is None:
                raise_anew(failure)
            try:
                response = await call_handler(handler, conn, failure)
            except BaseException as raised:
                if tasks is not None:
                    # One that was cancelled, for a shutdown, has not answered.
                    is_cut = isinstance(raised, CancelledError)
                    tasks.offered = failure if is_cut else raised
                raise
            drop_traceback(failure)  # as newer versions of Starlette do
            return response
        finally:
            del failure, exc  # they refer to this frame


class _Every:
    """The key of an exception handler for every class, while the current task has children to end.

    It is `object`, the last class for which Starlette looks. Otherwise it is nothing, so that what
    has no handler passes Starlette as it does without us.
    """

    def __hash__(self) -> int:
        return hash(object)

    def __eq__(self, other: object) -> bool:
        if other is not object:
            return self is other
        tasks = _handled()
        return tasks is not None and tasks.are_to_end


_EVERY = _Every()


def _handled() -> Children | None:
    """Return the tasks of the request for whose handler Starlette looks an exception handler up.

    Its function knows the request: nothing else would be right for a handler that calls another
    app, or its own one, in its task, and a table of tasks would keep those of a closed event loop.
    """
    frame: FrameType | None = sys._getframe()  # noqa: SLF001  # nothing else tells
    while frame is not None and not _is_starlettes(frame):
        frame = frame.f_back
    while frame is not None and _is_starlettes(frame):
        scope = local_of(frame, "scope")
        if scope is not None:
            request = scope.get(REQUEST)
            tasks: Children | None = None if request is None else request.innermost.tasks
            return tasks if tasks is not None and tasks.is_handled_here() else None
        frame = frame.f_back
    return None


def end_children_first(handlers: tuple[MutableMapping[Any, Handler], ...]) -> None:
    """Put an `EndsChildren` around each exception handler of an app.

    Its `ExceptionMiddleware` keeps them in two dicts, which Starlette has read before a handler is
    called: that the dicts are changed, once for each app, is the only way to be there first. An
    `EndsChildren` for its own class tells that they are.

    Args:
        handlers: What the scope has for `HANDLERS`.
    """
    by_class = handlers[0]
    for table in handlers:
        for key, handler in tuple(table.items()):
            if not isinstance(handler, EndsChildren):  # another thread may be at it as well
                table[key] = EndsChildren(handler)
    by_class[EndsChildren] = by_class[_EVERY] = EndsChildren(None)


def without_started(exc: BaseException | None) -> BaseException | None:
    """Return what Starlette was to answer and could not, since it takes the start for sent.

    The start of a response passes it before the end is made, and is held back here: what fails
    until then can still be answered.
    """
    while isinstance(exc, RuntimeError) and exc.__cause__ is not None:
        traceback = exc.__traceback__
        while traceback is not None and traceback.tb_next is not None:
            traceback = traceback.tb_next
        if traceback is None or not _is_starlettes(traceback.tb_frame):
            break
        exc = exc.__cause__
    return exc


def _is_starlettes(frame: FrameType) -> bool:
    return frame.f_globals.get("__name__") == "starlette._exception_handler"


async def _gateway_timeout(_conn: HTTPConnection, _error: BaseException) -> Response:
    return PlainTextResponse("Gateway Timeout", 504)


async def _service_unavailable(_conn: HTTPConnection, _error: BaseException) -> Response:
    return PlainTextResponse("Service Unavailable", 503, {"retry-after": "1"})


_OWN: dict[type[BaseException], Handler] = {
    DeadlineExceededError: _gateway_timeout,
    ShuttingDownError: _service_unavailable,
    TooManyWaitingError: _service_unavailable,
}


def exited(exc: BaseException) -> RuntimeError:
    """Return the failure of a request that has called `sys.exit`: the server goes on."""
    msg = f"{exc!r} ends a request, and not the server"
    error = RuntimeError(msg)
    error.__cause__ = exc
    return error
