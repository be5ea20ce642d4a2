"""The part of a server that runs an app's lifespan, with each message on record."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

from starlette.types import ASGIApp, Message

from quattro_web import AppTaskGroup, app_task_group
from tests.support.asgi import Exchange


class Life:
    """One run of an app, started up and shut down by the block.

    Args:
        app: The app.
        log: Where messages are noted, between the test's own entries.
        has_state: Whether this server has the extension of the lifespan's state.
    """

    def __init__(
        self, app: ASGIApp, *, log: list[str] | None = None, has_state: bool = True
    ) -> None:
        self.app = app
        self.log: list[str] = [] if log is None else log
        self.state: dict[str, Any] = {}
        self.sent: list[Message] = []
        self.error: BaseException | None = None
        self._has_state = has_state
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._outbox: asyncio.Queue[Message | None] = asyncio.Queue()
        self._serving: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        et: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> str | None:
        """Start the app up, and return what it answers: None if it ended without a word."""
        self._serving = asyncio.create_task(self._serve())
        return await self._tell("startup")

    async def stop(self) -> str | None:
        """Shut the app down, and return what it answers, when it has ended."""
        assert self._serving is not None
        answer = None if self._serving.done() else await self._tell("shutdown")
        await asyncio.wait((self._serving,))
        return answer

    async def give_up(self) -> None:
        """Cancel the lifespan, as a server does that is out of patience."""
        assert self._serving is not None
        self._serving.cancel()
        await asyncio.wait((self._serving,))

    async def ended(self) -> None:
        """Wait until the app ends its lifespan by itself."""
        assert self._serving is not None
        await asyncio.wait((self._serving,))

    async def get(self, path: str = "/", **scope: Any) -> Exchange:
        """Make a request in this run."""
        return await self.exchange(path, **scope).run()

    def exchange(self, path: str = "/", **scope: Any) -> Exchange:
        """Prepare a request in this run."""
        return Exchange(self.app, path, log=self.log, state=dict(self.state), **scope)

    async def group(self) -> AppTaskGroup:
        """Return the app's group, as a request in this run gets it."""
        passed = await Exchange(self.app, state=dict(self.state)).run()
        return app_task_group(passed.scope)

    async def _tell(self, what: str) -> str | None:
        self._inbox.put_nowait({"type": f"lifespan.{what}"})
        message = await self._outbox.get()
        return None if message is None else str(message["type"]).removeprefix("lifespan.")

    async def _serve(self) -> None:
        scope: dict[str, Any] = {"type": "lifespan", "asgi": {"version": "3.0"}}
        if self._has_state:
            scope["state"] = self.state
        try:
            await self.app(scope, self._inbox.get, self._send)
        except BaseException as exc:  # a server logs it
            self.error = exc
        finally:
            self._outbox.put_nowait(None)

    async def _send(self, message: Message) -> None:
        self.sent.append(message)
        self.log.append(str(message["type"]).removeprefix("lifespan."))
        self._outbox.put_nowait(message)
