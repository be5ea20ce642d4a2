"""Attributes and messages of an app's exceptions, which may be of any kind.

One that is a frozen dataclass refuses to have an attribute set, also one of `BaseException`. One
that a module keeps, such as ``NOT_FOUND = HTTPException(404)``, is raised again and again.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType


def add_note(error: BaseException, note: str) -> None:
    """Add a note, once."""
    notes = getattr(error, "__notes__", ())
    if note not in notes:
        BaseException.__setattr__(error, "__notes__", [*notes, note])


def set_cause(error: BaseException, cause: BaseException) -> None:
    """Set what has caused it."""
    BaseException.__setattr__(error, "__cause__", cause)


def set_context(error: BaseException, context: BaseException | None) -> None:
    """Set what was being handled when it was raised."""
    BaseException.__setattr__(error, "__context__", context)


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors in a group, and in groups in it; itself if it is none."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


def forget_traceback(error: BaseException) -> None:
    """Drop the traceback of an error, whose frames hold what they have worked with."""
    BaseException.with_traceback(error, None)


def exc_info_of(
    error: BaseException,
) -> tuple[type[BaseException], BaseException, TracebackType | None]:
    """Return the ``exc_info`` for a log entry: logging leaves out an error that is false."""
    return type(error), error, error.__traceback__


def message_of(error: BaseException) -> str:
    """Return what an error says, or that it fails to say it."""
    try:
        return str(error)
    except Exception as exc:  # noqa: BLE001  # of its own method
        return f"its message could not be made ({type(exc).__name__})"


def text_of(error: BaseException) -> str:
    """Return the class and the message of an error: the ``repr`` of redis-py's has no message."""
    name, text = type(error).__name__, message_of(error)
    return f"{name}: {text}" if text else name
