"""How Starlette answers what a handler raises: in the except block that has caught it."""

from __future__ import annotations

import inspect
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quattro_web._exchange import Exchange


def is_answer_to(raised: BaseException, exchange: Exchange) -> bool:
    """Whether a response that is sent while *raised* is being handled is the answer to it.

    An app that falls back on another one from an except block of its own answers nothing. Nor is
    what is being handled around the middleware any of the handler's: its frame is further out.
    """
    traceback = raised.__traceback__
    if traceback is None or not _is_starlettes(traceback.tb_frame):
        return False
    frame = inspect.currentframe()
    while frame is not None and frame is not traceback.tb_frame:
        is_middlewares = frame.f_globals.get("__name__") == "quattro_web._middleware"
        if is_middlewares and frame.f_locals.get("exchange") is exchange:
            return False
        frame = frame.f_back
    return True


def answerable(exc: BaseException | None) -> BaseException | None:
    """Return what Starlette could not answer any more, since it takes the start for sent.

    The start of a stream passes it before the first chunk is made, and is held back here: what
    fails until then can still be answered.
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
