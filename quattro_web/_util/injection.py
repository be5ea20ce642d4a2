"""The error for a FastAPI handler that annotates a class where it needs the injected alias."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

SchemaT = TypeVar("SchemaT")


def schema_of_injected(cls: type, source: object, handler: Callable[[object], SchemaT]) -> SchemaT:
    """Return pydantic's schema for a class that FastAPI should inject, if pydantic has one.

    It has one in a user's model that allows arbitrary types. FastAPI asks for it where nothing
    injects the parameter, and would say no more than "Invalid args for response field!".

    Raises:
        TypeError: If it has none.
    """
    try:
        return handler(source)
    except RuntimeError:  # pydantic's, which is not imported for it
        name = cls.__name__
        msg = (
            f"FastAPI can't read a quattro_web.{name} from a request: annotate the parameter with "
            f"quattro_web.fastapi.{name}, which FastAPI injects"
        )
        raise TypeError(msg) from None
