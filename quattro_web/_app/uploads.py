"""A request's uploads, kept open for the work that it handed over."""

from __future__ import annotations

from contextlib import AsyncExitStack
from weakref import WeakKeyDictionary

from quattro_web._util.exit_stacks import holds_any
from quattro_web._util.scope import Connection

# Not public API. FastAPI puts the closing of a form's files on it, and closes it around everything
# else of the request; so does each app that is mounted in another one.
UPLOAD_STACK = "fastapi_middleware_astack"


class Uploads:
    """What FastAPI would close at the end of a request: the files that were uploaded with it.

    It is closed when nobody uses it any more: neither the request nor any work that it has handed
    over, or that such work has.

    Args:
        stack: FastAPI's stack, which is emptied.
        origin: The request, as logs name it.
    """

    def __init__(self, stack: AsyncExitStack, origin: str) -> None:
        self.origin = origin
        self._kept = stack.pop_all()
        self._users = 1  # the request, until its stack closes
        stack.push_async_callback(self._leave_request)

    @property
    def is_used(self) -> bool:
        """Whether somebody still uses it, so that it is not closed."""
        return self._users > 0

    def join(self) -> None:
        """Count one more that uses it."""
        self._users += 1

    def leave(self) -> bool:
        """Count one less; tells whether that was the last, who has to close it."""
        self._users -= 1
        return not self._users

    async def close(self) -> None:
        """Close the files."""
        await self._kept.aclose()

    async def _leave_request(self) -> None:
        if self.leave():
            await self.close()


def uploads_of(scope: Connection, origin: str) -> Uploads | None:
    """Take the uploads of a request over from FastAPI, once; None if there are none.

    Args:
        scope: That of the request. Its stack is that of the innermost FastAPI app, whose
            handler has the uploads.
        origin: The request, as logs name it.
    """
    stack = scope.get(UPLOAD_STACK)
    if not isinstance(stack, AsyncExitStack):  # another framework's request
        return None
    uploads = _UPLOADS.get(stack)
    if uploads is None and holds_any(stack):
        uploads = _UPLOADS[stack] = Uploads(stack, origin)
    return uploads if uploads is not None and uploads.is_used else None


# Uploads don't refer to the stack that they were taken from.
_UPLOADS: WeakKeyDictionary[AsyncExitStack, Uploads] = WeakKeyDictionary()
