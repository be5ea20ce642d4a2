"""What somebody else has written into Redis: it runs nothing here, and stops nothing."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
from typing import Any

import pytest

pytest.importorskip("docket", reason="pydocket is missing: pip install 'quattro-web[docket]'")

from redis.asyncio import Redis

from quattro_web._jobs.docket_engine import is_harmless
from quattro_web._jobs.wire import dump_error, frame, load_error
from quattro_web.jobs import RemoteError
from tests.jobs.functions import Functions, log, note, until
from tests.jobs.test_children import running


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return note, ("evil",)


def message(**fields: Any) -> dict[bytes, bytes]:
    values = {
        "key": b"a:1",
        "when": b"2026-01-31T12:00:00+00:00",
        "function": b"double",
        "args": pickle.dumps((b"{}",)),
        "kwargs": pickle.dumps({}),
        "attempt": b"1",
        "generation": b"1",
        **fields,
    }
    return {name.encode(): value for name, value in values.items() if value is not None}


@pytest.mark.parametrize(
    "fields",
    [
        {"args": pickle.dumps((Evil(),))},
        {"args": pickle.dumps((b"{}", Evil()))},
        {"kwargs": pickle.dumps({"a": Evil()})},
        {"args": b"cos\nsystem\n(S'true'\ntR."},
        {"args": b"no pickle"},
        {"args": pickle.dumps(("text",))},
        {"args": None},
        {"key": None},
        {"when": b"tomorrow"},
        {"when": b"2026-01-31T12:00:00"},
        {"traceparent": b"\xff"},
        {"args": b"\x80\x04C\x00r\x00\x00\x00\x02\x85."},  # a few bytes that take 512 MB
        {"args": pickle.dumps((b"{}",), 4).replace(b"\x80\x04", b"\x80\x09")},
        {"args": pickle.dumps((b"{}",), 4).replace(b"\x95", b"\x95\xff")},
        {"kwargs": pickle.dumps({"a": 1})},
        {"attempt": b"x"},
        {"generation": b"x"},
    ],
)
def test_other_messages_are_not_harmless(fields: dict[str, Any]) -> None:
    """D3: Only a message of one bytes object passes, and nothing of another is run to see that."""
    log.clear()
    assert is_harmless(message())
    assert is_harmless(message(traceparent=b"00-1-1-01"))
    for size in (300, 100_000):
        assert is_harmless(message(args=pickle.dumps((bytes(size),))))
    assert not is_harmless(message(**fields))
    assert log == []


def test_messages_of_others_run_nothing(
    redis: str, name: str, errors: list[logging.LogRecord]
) -> None:
    """D3: Pickles that somebody has put into the streams of docket are neither run nor kept, and
    the worker goes on."""

    async def scene() -> None:
        f = Functions(redis, name)
        async with Redis.from_url(redis) as client, running(f):
            await client.xadd(f"{name}:stream", message(args=pickle.dumps((Evil(),))))  # type: ignore[arg-type]
            await client.xadd(f"{name}:stream", message(traceparent=b"\xff"))  # type: ignore[arg-type]
            await client.xadd(
                f"{name}:strikes",
                {
                    "direction": "strike", "function": "double", "parameter": "number",
                    "operator": "==", "value": pickle.dumps(Evil()),
                },
            )  # fmt: skip
            assert await f.double.remote(3) == 6
            await until(lambda: len(errors) == 2)
            assert await client.xlen(f"{name}:stream") == 0
        assert "foreign message" in errors[0].getMessage()
        assert log == []

    asyncio.run(scene())


def test_calls_of_others_are_dropped(redis: str, name: str) -> None:
    """D3: A call that no client has made is dropped, and the worker goes on."""

    async def scene() -> None:
        f = Functions(redis, name)
        async with Redis.from_url(redis) as client, running(f):
            for payload in (b"", b"[]", b"{}", b'{"owner": "nobody"}', b'{"owner": 1}\n[{}]'):
                args = pickle.dumps((payload,))
                await client.xadd(f"{name}:stream", message(args=args, generation=b"0"))  # type: ignore[arg-type]
            assert await f.double.remote(3) == 6
            await asyncio.sleep(0.1)
            assert await f.double.remote(3) == 6

    asyncio.run(scene())


def test_no_class_is_imported() -> None:
    """D3: An error of a class of a module that is not imported here imports it not."""
    data = dump_error(ValueError("x")).replace(b"builtins:ValueError", b"antigravity:Error")
    assert str(load_error(data, "w")) == "antigravity.Error: x"
    assert "antigravity" not in __import__("sys").modules


@pytest.mark.parametrize(
    "type_name", [b"builtins:exec", b"os:system", b"builtins:SystemExit", b"x"]
)
def test_only_exceptions_are_made(type_name: bytes) -> None:
    """D3: What is no class of errors is not called."""
    data = dump_error(ValueError("x")).replace(b"builtins:ValueError", type_name)
    assert type(load_error(data, "w")) is RemoteError


def test_outcome_is_not_a_pickle() -> None:
    """D3: An outcome that is none is an error, and nothing is made of it."""
    log.clear()
    with pytest.raises(ValueError, match=r"utf|JSON|Expecting|codec"):
        load_error(pickle.dumps(Evil()), "w")
    assert frame({}, b"") == b"{}\n"
    assert log == []
    assert os.getpid()
