"""The lifespan of an app, run as by a server."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from starlette.types import ASGIApp, Message

from quattro_web._harness import HARNESS, Harness
from quattro_web.testing._leaks import block_of

logger = logging.getLogger("quattro_web.testing")


class Life:
    """One run of an app.

    Args:
        app: The app.
        harness: What stands in for the server's signals.

    Attributes:
        state: What the app's lifespan has yielded.
        task: The task that it runs in.
    """

    def __init__(self, app: ASGIApp, harness: Harness) -> None:
        self._app = app
        self._harness = harness
        self.state: dict[str, Any] = {}
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._answers: asyncio.Queue[Message | None] = asyncio.Queue()
        self._has_answered = False
        self._error: BaseException | None = None
        self.task = asyncio.create_task(self._run(), name="lifespan")

    async def start(self) -> None:
        """Start the app up; raise what keeps it from starting."""
        self._raise(await self._tell("startup"))

    async def stop(self) -> None:
        """Shut the app down, if it has not done so by itself; raise what fails then."""
        answer = None if self.task.done() else await self._tell("shutdown")
        await asyncio.wait((self.task,))
        self._raise(answer)

    async def _tell(self, what: str) -> Message | None:
        self._inbox.put_nowait({"type": f"lifespan.{what}"})
        return await self._answers.get()

    def _raise(self, answer: Message | None) -> None:
        if self._error is not None:
            raise self._error
        if answer is not None and str(answer["type"]).endswith(".failed"):
            raise RuntimeError(answer.get("message") or answer["type"])

    async def _run(self) -> None:
        HARNESS.set(self._harness)
        asgi = {"version": "3.0", "spec_version": "2.0"}
        scope = {"type": "lifespan", "asgi": asgi, "state": self.state}
        try:
            with block_of(scope):
                await self._app(scope, self._inbox.get, self._send)
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:  # it is raised to the test
            if self._has_answered:
                self._error = exc
            else:  # as an app may refuse a lifespan that it does not have: servers go on without
                logger.warning("the app has not answered its lifespan", exc_info=exc)
        finally:
            self._answers.put_nowait(None)

    async def _send(self, message: Message) -> None:
        self._has_answered = True
        self._answers.put_nowait(message)
