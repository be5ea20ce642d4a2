"""One request or WebSocket of a test, served in its own task, as by a server."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Scope
from starlette.websockets import WebSocketDisconnect

from quattro_web._util.exceptions import exc_info_of
from quattro_web._util.scope import describe
from quattro_web.testing._leaks import watch_scope

logger = logging.getLogger("quattro_web.testing")

# Bytes that may be on their way to a client that does not read; then the app has to wait.
HIGH_WATER = 65536


class ClientLeftError(OSError):
    """The client has left: raised to an app that sends, as servers do and Starlette expects."""


class ServedConnection(ABC):
    """Both ends of a request or a WebSocket: the common part of HTTP and WebSockets.

    Args:
        app: The app.
        scope: The ASGI scope.
        raises: Whether the app's errors are raised in the test.
    """

    def __init__(self, app: ASGIApp, scope: Scope, *, raises: bool) -> None:
        self._app = app
        self._scope = scope
        self._raises = raises
        self._to_app: deque[Message] = deque()
        self._changed = asyncio.Event()
        self._unread = 0
        self._has_left = False
        self._is_reading_on = False
        self._is_error_seen = False
        self._error: BaseException | None = None
        self._task = asyncio.create_task(self._serve(), name=describe(scope))

    @property
    def error(self) -> BaseException | None:
        """The error that the app raised, which a server would log.

        .. versionadded:: 0.1
        """
        self._is_error_seen = True
        return self._error

    # The app's end

    async def _serve(self) -> None:
        try:
            with watch_scope(self._scope):
                await self._app(self._scope, self._receive, self._send)
            self._check_end()
        except asyncio.CancelledError as exc:
            if _is_cancelled():
                raise
            msg = f"{describe(self._scope)} has raised CancelledError, but nobody cancelled it"
            error = RuntimeError(msg)
            error.__cause__ = exc
            self._fail(error)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:  # noqa: BLE001  # as a server does, and pytest.fail() raises one
            self._fail(exc)
        finally:
            self._changed.set()

    def _fail(self, error: BaseException) -> None:
        logger.error("%s has failed", describe(self._scope), exc_info=exc_info_of(error))
        self._error = error
        if self._has_left and _is_by_leaving(error):
            self._raises = False  # the app has learnt that the client has left, and ends by that
        elif not self._has_left and not self._raises:
            self._answer_failure()

    @abstractmethod
    def _answer_failure(self) -> None:
        """Answer as servers do for an app that has failed, unless it has answered."""

    @abstractmethod
    def _check_end(self) -> None:
        """Raise what a server logs of an app that has ended too early."""

    @abstractmethod
    def _end_of_input(self) -> Message | None:
        """Return what the app receives when nothing more is to come; None if that may come."""

    async def _receive(self) -> Message:
        await self._until(lambda: bool(self._to_app) or self._end_of_input() is not None)
        message = self._to_app.popleft() if self._to_app else self._end_of_input()
        assert message is not None
        return message

    @abstractmethod
    def _take(self, message: Message) -> int:
        """Take in a message of the app; return how many bytes the client has to read."""

    async def _send(self, message: Message) -> None:
        # An app that never waits for anything must not keep the client from leaving.
        await asyncio.sleep(0)
        self._unread += self._take(message)
        self._changed.set()
        await self._until(
            lambda: self._unread < HIGH_WATER or self._is_reading_on or self._has_left
        )

    # The client's end

    def _feed(self, message: Message) -> None:
        self._to_app.append(message)
        self._changed.set()

    def _leave(self) -> None:
        """Leave in the middle, unless it is over."""
        self._has_left = True
        self._changed.set()

    async def _wait_finished(self) -> None:
        await self._ended()
        self._raise_error()

    async def _wait_block_end(self) -> None:
        await self._ended()
        if not self._is_error_seen:
            self._raise_error()

    async def _ended(self) -> None:
        self._is_reading_on = True
        self._changed.set()
        await asyncio.wait((self._task,))

    def _raise_error(self) -> None:
        error = self._error
        if error is not None and self._raises:
            self._is_error_seen = True
            raise error

    @property
    def _unseen_error(self) -> BaseException | None:
        """What the app has raised, if the test has not seen it yet."""
        return None if self._is_error_seen or not self._raises else self._error

    async def _until(self, is_so: Callable[[], Any]) -> None:
        while not is_so():
            self._changed.clear()
            await self._changed.wait()


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _is_by_leaving(error: BaseException) -> bool:
    """Whether an app has raised that only because its client has left."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_by_leaving, error.exceptions))
    return isinstance(error, (ClientDisconnect, ClientLeftError, WebSocketDisconnect))
