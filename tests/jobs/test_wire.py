"""How errors and arguments are told to another process."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

pytest.importorskip("docket", reason="pydocket is missing: pip install 'quattro-web[docket]'")

from pydantic import BaseModel, SecretStr

from quattro_web._jobs.wire import FunctionTypes, dump_error, load_error
from quattro_web.jobs import RemoteError


class ArgsGoneError(Exception):
    args = None  # type: ignore[assignment]


class UnreadableError(Exception):
    @property
    def __notes__(self) -> list[str]:  # type: ignore[override]
        raise LookupError("no notes")

    def __str__(self) -> str:
        raise LookupError("no text")


@dataclass(frozen=True)
class FrozenError(Exception):
    code: int


def nested(depth: int) -> Exception:
    exc: Exception = ValueError("x")
    for _ in range(depth):
        exc = ExceptionGroup("g", [exc])
    return exc


@pytest.mark.parametrize(
    "exc",
    [ArgsGoneError("x"), UnreadableError("x"), nested(3000)],
    ids=["args", "unreadable", "nested"],
)
def test_any_error_is_told(exc: Exception) -> None:
    """D3: An error that can't be described is told by its class and its text."""
    exc.__traceback__ = None
    try:
        raise exc
    except Exception:
        data = dump_error(exc)
    told = load_error(data, "w")
    name = type(exc).__name__
    assert isinstance(told, RemoteError | ExceptionGroup)
    assert name in repr(told) + str(told)
    assert "test_wire.py" in str(told.__cause__)


def test_notes_that_are_none() -> None:
    """D3: An error whose notes are None is told as itself."""
    exc = ValueError("x")
    exc.__notes__ = None  # type: ignore[assignment]
    assert repr(load_error(dump_error(exc), "w")) == "ValueError('x')"


def test_frozen_error_comes_back() -> None:
    """D3: An error that refuses to have an attribute set comes back as itself, with its cause."""
    for exc in (FrozenError(3), FrozenError(code=3)):
        BaseException.__setattr__(exc, "__notes__", ["a note"])
        told = load_error(dump_error(exc), "w")
        assert told == FrozenError(3)
        assert told.__notes__ == ["a note"]
        assert "on worker w" in str(told.__cause__)


class Login(BaseModel):
    name: str
    password: SecretStr


async def log_in(login: Login, code: SecretStr) -> SecretStr: ...  # type: ignore[empty-body]


def test_secrets_are_refused() -> None:
    """D3: A secret that would arrive as asterisks is an error, which does not show it."""
    types = FunctionTypes(log_in)
    login = Login(name="a", password=SecretStr("hunter2"))
    with pytest.raises(ValueError, match="a secret would arrive as asterisks") as caught:
        types.dump_arguments((login, SecretStr("")), {})
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ValueError, match="a secret would arrive as asterisks"):
        types.dump_result(SecretStr("hunter2"))


def test_asterisks_are_no_secret() -> None:
    """D3: A text of asterisks arrives."""

    async def count(*texts: str, **named: str) -> None: ...

    types = FunctionTypes(count)
    data = types.dump_arguments(("*" * 10,), {"a": "*" * 10})
    assert types.load_arguments(data) == (("*" * 10,), {"a": "*" * 10})
