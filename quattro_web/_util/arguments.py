"""Checks of arguments: the values that are allowed, and the errors for others."""

from __future__ import annotations

import math
import re


def checked_seconds(name: str, seconds: float | None) -> float | None:
    """Return a duration that was given as argument *name*, if it is one; None means no limit.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is not positive and finite.
    """
    return None if seconds is None else _seconds(name, seconds, " or None")


def checked_stream(name: str, stream: float | None, of: str, seconds: float | None) -> float | None:
    """Return the duration of a whole stream, given as argument *name*, if it is one.

    Args:
        name: The name of the argument.
        stream: The duration; None means no limit.
        of: The name of the argument with the time until the stream begins, which is a part of it.
        seconds: That time.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is not positive and finite, or shorter than its part.
    """
    if stream is None:
        return None
    _seconds(name, stream, " or None")
    if seconds is None:
        msg = f"{name} needs {of} as well, which may be the same number, got {stream!r} alone"
        raise ValueError(msg)
    if stream < seconds:
        msg = f"{name} must be >= {of}, which is {seconds!r}, got {stream!r}"
        raise ValueError(msg)
    return stream


def required_seconds(name: str, seconds: float) -> float:
    """Return a duration that was given as argument *name*, if it is one, where None is none.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is not positive and finite.
    """
    return _seconds(name, seconds)


def checked_wait(name: str, seconds: float) -> float:
    """Return a duration that was given as argument *name*, if it is one, where 0 is none.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is negative or not finite.
    """
    return 0.0 if seconds == 0 and not isinstance(seconds, bool) else _seconds(name, seconds)


def checked_limit(name: str, limit: int | None, *, least: int = 1) -> int | None:
    """Return a limit that was given as argument *name*, if it is one; None means no limit.

    Raises:
        TypeError: If it is not an int.
        ValueError: If it is below *least*.
    """
    if limit is None:
        return None
    if isinstance(limit, bool) or not isinstance(limit, int):
        msg = f"{name} must be an int or None, got {limit!r}"
        raise TypeError(msg)
    if limit < least:
        msg = f"{name} must be >= {least}, got {limit!r}"
        raise ValueError(msg)
    return limit


def checked_bool(name: str, value: object) -> bool:
    """Return what was given as argument *name*, if it is True or False: ``"no"`` would be true.

    Raises:
        TypeError: If it is not.
    """
    if not isinstance(value, bool):
        msg = f"{name} must be True or False, got {value!r}"
        raise TypeError(msg)
    return value


def checked_text(name: str, text: str) -> str:
    """Return a string that was given as argument *name*, if it is one.

    Raises:
        TypeError: If it is not.
    """
    if not isinstance(text, str):
        msg = f"{name} must be a str, got {text!r}"
        raise TypeError(msg)
    return text


def checked_header(name: str, header: str | None) -> bytes | None:
    """Return a header's name that was given as argument *name*, as an ASGI scope has it.

    Raises:
        TypeError: If it is not a string.
        ValueError: If no header can have that name.
    """
    if header is None:
        return None
    if not _TOKEN.fullmatch(checked_text(name, header)):
        msg = f"{name} must be the name of a header, such as 'x-request-timeout', got {header!r}"
        raise ValueError(msg)
    return header.lower().encode()


def without_value(value: object) -> str:
    """Return how an error names a value that may have a password in it."""
    return "None" if value is None else f"a value of type {type(value).__name__}"


def _seconds(name: str, seconds: float, otherwise: str = "") -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        msg = f"{name} must be a number of seconds{otherwise}, got {seconds!r}"
        raise TypeError(msg)
    if not 0 < seconds < math.inf:
        msg = f"{name} must be a positive number of seconds{otherwise}, got {seconds!r}"
        raise ValueError(msg)
    return seconds


# A token of HTTP (RFC 9110, 5.6.2).
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
