"""How arguments, results and errors are sent: as JSON, by the function's annotations.

As a pickle on request, and then signed: whoever may write to the engine could run code here with
one. Errors never do.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import pickle
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, NotRequired, cast, get_type_hints

from pydantic import ConfigDict, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaWarningKind
from typing_extensions import TypedDict

from quattro_web._jobs.errors import RemoteError, RemoteTraceback
from quattro_web._util.exceptions import add_note, set_cause

Header = dict[str, Any]

# Binary data as text that takes a third more, instead of an error; infinity and NaN as they are.
_CONFIG = ConfigDict(
    ser_json_bytes="base64",
    val_json_bytes="base64",
    ser_json_inf_nan="constants",
    extra="forbid",
)
# What a log can bear, and more than anybody reads.
_MOST_TEXT = 20_000
_MOST_ERRORS = 20
# What a schema says for readers, and defaults, which are not sent.
_PROSE = {"default", "description", "examples", "title"}
# What pydantic writes for a SecretStr.
_MASK = b'"**********"'


def frame(header: Header, body: bytes) -> bytes:
    """Put a header, which is ours, and a body, whose JSON has the types of a user, together."""
    return json.dumps(header).encode() + b"\n" + body


def unframe(data: bytes) -> tuple[Header, bytes]:
    """Take both apart.

    Raises:
        ValueError: If it was put together by somebody else.
    """
    head, _, body = data.partition(b"\n")
    header = json.loads(head)
    if isinstance(header, dict):
        return header, body
    msg = f"a header was expected, got {head[:100]!r}"
    raise ValueError(msg)


def is_failure(outcome: bytes) -> bool:
    """Whether an outcome is an error that a worker has told."""
    try:
        return unframe(outcome)[0]["ok"] is False
    except (KeyError, ValueError):
        return False


class FunctionTypes:
    """The types of a function: its arguments and its result, to and from JSON.

    Raises:
        TypeError: If pydantic can't do it with one of them.
        NameError: If an annotation names what is not there.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._signature = inspect.signature(function)
        hints = get_type_hints(function, include_extras=True)
        fields: dict[str, Any] = {}
        for name, parameter in self._signature.parameters.items():
            hint = hints.get(name, Any)
            if parameter.kind is parameter.VAR_POSITIONAL:
                hint = tuple[hint, ...]  # type: ignore[valid-type]
            elif parameter.kind is parameter.VAR_KEYWORD:
                hint = dict[str, hint]  # type: ignore[valid-type]
            # The default of whoever runs it counts, not that of the caller.
            fields[name] = NotRequired[hint]
        # In a tuple, since pydantic takes no configuration for a class that may have its own.
        arguments = cast("Any", TypedDict)("arguments", fields)
        self._arguments = _adapter(arguments)
        self._result = _adapter(hints.get("return", Any))

    @cached_property
    def version(self) -> str:
        """A short hash of how the arguments and the result travel.

        It is the same in every process where that is the same.
        """
        try:
            schemas = [
                _shape(each.json_schema(schema_generator=_QuietSchema))
                for each in (self._arguments, self._result)
            ]
            text = json.dumps([schemas, _needed(self._signature)], sort_keys=True)
        except Exception:  # noqa: BLE001  # of a type of the user's, which has no schema
            text = _without_defaults(self._signature)
        return _hash(text)

    def dump_arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """Return the arguments of a call as JSON.

        Raises:
            TypeError: If the function takes others.
            ValueError: If one of them is not what its annotation says.
        """
        bound = self._signature.bind(*args, **kwargs)
        return _dump(self._arguments, dict(bound.arguments))

    def load_arguments(self, data: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of a call.

        Raises:
            ValueError: If one of them is not what its annotation says.
            TypeError: If one is missing.
        """
        (arguments,) = self._arguments.validate_json(data)
        bound = inspect.BoundArguments(self._signature, cast("Any", arguments))
        self._signature.bind(*bound.args, **bound.kwargs)
        return bound.args, bound.kwargs

    def dump_result(self, result: Any) -> bytes:
        """Return a result as JSON.

        Raises:
            ValueError: If it is not what the annotation says.
        """
        return _dump(self._result, result)

    def load_result(self, data: bytes) -> Any:
        """Return a result.

        Raises:
            ValueError: If it is not what the annotation says.
        """
        return self._result.validate_json(data)[0]


class PickledTypes:
    """The arguments and the result of a function, to and from pickles, which were signed."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._signature = inspect.signature(function)

    @cached_property
    def version(self) -> str:
        """A short hash of the arguments and the annotations, as they are written."""
        return _hash(f"pickle {_without_defaults(self._signature)}")

    def dump_arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """Return the arguments of a call as a pickle.

        Raises:
            TypeError: If the function takes others.
            ValueError: If one of them can't be pickled.
        """
        self._signature.bind(*args, **kwargs)
        return _pickled((args, dict(kwargs)))

    def load_arguments(self, data: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of a call, whose signature was verified.

        Raises:
            Exception: If a class of theirs is unknown here, or does not take its state.
            TypeError: If the function takes others.
        """
        args, kwargs = pickle.loads(data)  # noqa: S301  # it was signed
        self._signature.bind(*args, **kwargs)
        return args, kwargs

    def dump_result(self, result: Any) -> bytes:
        """Return a result as a pickle.

        Raises:
            ValueError: If it can't be pickled.
        """
        return _pickled(result)

    def load_result(self, data: bytes) -> Any:
        """Return a result, whose signature was verified.

        Raises:
            ValueError: If a class of its is unknown here, or does not take its state.
        """
        try:
            return pickle.loads(data)  # noqa: S301  # it was signed
        except Exception as exc:
            msg = f"it can't be unpickled: {exc!r}"
            raise ValueError(msg) from exc


def _pickled(value: object) -> bytes:
    try:
        return pickle.dumps(value, 5)  # which each Python can read
    except Exception as exc:
        msg = f"it can't be pickled: {exc!r}"
        raise ValueError(msg) from exc


class _QuietSchema(GenerateJsonSchema):
    """A schema that is for nobody to read: what it can't say is left out."""

    ignored_warning_kinds: set[JsonSchemaWarningKind] = {  # noqa: RUF012
        "non-serializable-default",
        "skipped-choice",
    }


def _needed(signature: inspect.Signature) -> list[str]:
    """Return the names of the arguments that a call can't be without."""
    return [
        name
        for name, parameter in signature.parameters.items()
        if parameter.default is parameter.empty
    ]


def _shape(schema: Any, *, is_of_names: bool = False) -> Any:
    """Return a schema without what it says for readers: only keys of its own are looked at."""
    if isinstance(schema, list):
        return [_shape(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _shape(value, is_of_names=not is_of_names and key in ("$defs", "properties"))
        for key, value in schema.items()
        if is_of_names or key not in _PROSE
    }


def _without_defaults(signature: inspect.Signature) -> str:
    parameters = [
        parameter if parameter.default is parameter.empty else parameter.replace(default=...)
        for parameter in signature.parameters.values()
    ]
    text = str(signature.replace(parameters=parameters))
    return re.sub(r" at 0x[0-9a-f]+", "", text)  # of an object in an Annotated


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _adapter(hint: Any) -> TypeAdapter[tuple[Any]]:
    return TypeAdapter(tuple[hint], config=_CONFIG)


def _dump(adapter: TypeAdapter[tuple[Any]], value: object) -> bytes:
    data = adapter.dump_json((value,), warnings="error", by_alias=True, round_trip=True)
    if _MASK in data and adapter.validate_json(data) != (value,):
        msg = "a secret would arrive as asterisks: pass its value"
        raise ValueError(msg)
    return data


def dump_error(exc: BaseException) -> bytes:
    """Return an exception as JSON: class, arguments, attributes, notes, text and traceback.

    It never fails, whatever the class does: one that can't be described is told by its text.
    """
    try:
        data = _describe(exc)
    except Exception:  # noqa: BLE001  # its attributes are the user's
        data = _told_by_text(exc)
    try:
        lines = traceback.format_exception(exc)
    except Exception:  # noqa: BLE001
        lines = traceback.format_tb(exc.__traceback__)
    data["traceback"] = "".join(lines)[-_MOST_TEXT:]
    return json.dumps(data).encode()


def load_error(data: bytes, worker: str) -> Exception:
    """Return an exception of a worker, with where it was raised as its cause.

    Its class is one that this process has imported already, and `RemoteError` if it has not, or if
    an exception of that class would not say the same.

    Raises:
        ValueError: If it was written by somebody else.
    """
    described = json.loads(data)
    exc = _restored(described)
    cause = RemoteTraceback(worker, str(described.get("traceback", "")).rstrip())
    set_cause(exc, cause)
    return exc


def _told_by_text(exc: BaseException) -> dict[str, Any]:
    cls = type(exc)
    return {"type": f"{cls.__module__}:{cls.__qualname__}", "text": _text(exc)[:_MOST_TEXT]}


def _describe(exc: BaseException, depth: int = 0) -> dict[str, Any]:
    data = _told_by_text(exc)
    data["notes"] = [str(note)[:_MOST_TEXT] for note in getattr(exc, "__notes__", None) or ()]
    if isinstance(exc, BaseExceptionGroup) and depth < _MOST_ERRORS:
        data["message"] = exc.message
        data["errors"] = [_describe(inner, depth + 1) for inner in exc.exceptions[:_MOST_ERRORS]]
        return data
    state = {k: v for k, v in vars(exc).items() if k != "__notes__"}
    told = {"args": list(exc.args), "state": state}
    return data | {key: value for key, value in told.items() if _is_json(value)}


def _text(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception:  # noqa: BLE001  # it is the user's
        return object.__repr__(exc)


def _is_json(value: object) -> bool:
    """Whether a value is the same after it has travelled: a tuple would be a list."""
    try:
        text = json.dumps(value)
        return len(text) <= _MOST_TEXT and bool(json.loads(text) == value)
    except Exception:  # noqa: BLE001  # its classes are the user's
        return False


def _restored(data: Mapping[str, Any]) -> Exception:
    type_name, text = str(data["type"]), str(data["text"])
    exc: Exception | None
    if "errors" in data:
        errors = [_restored(inner) for inner in data["errors"]]
        exc = ExceptionGroup(str(data["message"]), errors)
    else:
        exc = _instance(_known_class(type_name), data)
    if exc is None:
        exc = RemoteError(text, type_name.replace(":", ".").removeprefix("builtins."))
    for note in data.get("notes", ()):
        add_note(exc, str(note))
    return exc


def _known_class(type_name: str) -> type[Exception] | None:
    """Return a class of exceptions that this process knows: nothing is imported."""
    module_name, _, path = type_name.partition(":")
    found: Any = sys.modules.get(module_name)
    for name in path.split("."):
        found = vars(found).get(name) if hasattr(found, "__dict__") else None
    # A SystemExit of a worker does not end this process.
    return found if isinstance(found, type) and issubclass(found, Exception) else None


def _instance(cls: type[Exception] | None, data: Mapping[str, Any]) -> Exception | None:
    """Return an exception of this class that says the same, if there can be one."""
    if cls is None or "args" not in data:
        return None
    args = tuple(data["args"])
    for make in (_unpickled, _called):
        try:
            exc = make(cls, args, data.get("state"))
            # A message that its __init__ has made of the arguments would be made of itself.
            if type(exc) is cls and exc.args == args and str(exc) == data["text"]:
                return exc
        except Exception:  # noqa: BLE001, S112  # its class is the user's: it is told by its text
            continue
    return None


def _unpickled(cls: type[Exception], args: tuple[Any, ...], state: Any) -> Exception:
    """Make an exception by its state, as pickle does, but without its ``__init__``."""
    if not isinstance(state, dict):
        msg = "part of its state was lost on the way"
        raise TypeError(msg)
    exc = cls.__new__(cls, *args)
    vars(exc).update(state)
    return exc


def _called(cls: type[Exception], args: tuple[Any, ...], _state: Any) -> Exception:
    return cls(*args)
