"""Errors for FastAPI handlers whose parameters FastAPI can't inject."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, NoReturn, TypeVar

from quattro_web._util.scope import Connection

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


class NotInjected:
    """Annotates a parameter that FastAPI should never fill, for the error that says what to write.

    FastAPI takes every parameter of a dependency that it does not know for one of the client's
    query. It asks pydantic for it when the route is added.

    Args:
        line: What is right.
    """

    def __init__(self, line: str) -> None:
        self._line = line

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> NoReturn:
        msg = f"this is not a dependency that FastAPI can call: write {self._line}"
        raise TypeError(msg)


# What is called with a connection is not for Depends(...): FastAPI would read a body for it.
CalledWith = Annotated[
    Connection,
    NotInjected(
        "the parameter or dependency that quattro_web.fastapi has for it, such as "
        "tg: RequestTaskGroup, app_tg: AppTaskGroup or dependencies=[Deadline(30)]"
    ),
]


def refuse_as_dependency(alias: Any, line: str) -> None:
    """Make ``Depends(alias)``, of an ``Annotated`` alias, an error that says *line*."""
    not_injected = Annotated[Any, NotInjected(line)]
    kind = inspect.Parameter.KEYWORD_ONLY
    parameter = inspect.Parameter("_", kind, annotation=not_injected)
    alias.__signature__ = inspect.Signature([parameter])
