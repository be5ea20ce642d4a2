"""Types of `quattro_core`, which the type checkers check: nothing of this runs.

An ignore is what they must complain of: one that nothing is to be complained of is an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, assert_type

from quattro_core import MapResults, SharedLimit, TaskGroup


async def number() -> int:
    return 1


async def text() -> str:
    return ""


async def nothing() -> None:
    return None


async def length(word: str) -> int:
    return len(word)


async def words() -> AsyncIterator[str]:
    yield ""


def plain(word: str) -> int:
    return len(word)


async def children(tg: TaskGroup, function: Callable[[], Coroutine[Any, Any, bytes]]) -> None:
    assert_type(tg.create_task(number()), asyncio.Task[int])
    assert_type(tg.create_task(number), asyncio.Task[int])
    assert_type(tg.create_task(lambda: text()), asyncio.Task[str])
    assert_type(tg.create_task(function, name="one"), asyncio.Task[bytes])
    assert_type(tg.create_task(nothing()), asyncio.Task[None])
    assert_type(await tg.create_task(text), str)
    assert_type(tg.create_background_task(number()), asyncio.Task[int])
    assert_type(tg.create_background_task(function), asyncio.Task[bytes])
    tg.create_task(1)  # type: ignore[arg-type]
    tg.create_task(length)  # type: ignore[arg-type]
    tg.create_task(plain("word"))  # type: ignore[arg-type]
    tg.create_background_task(length)  # type: ignore[arg-type]
    tg.create_task(number(), name=1)  # type: ignore[arg-type]


async def gathered(tg: TaskGroup, many: list[Coroutine[Any, Any, int]]) -> None:
    i, s = number, text
    assert_type(await tg.gather(), tuple[()])
    assert_type(await tg.gather(i()), tuple[int])
    assert_type(await tg.gather(i(), s()), tuple[int, str])
    assert_type(await tg.gather(i(), s(), i()), tuple[int, str, int])
    assert_type(await tg.gather(i(), s(), i(), s()), tuple[int, str, int, str])
    assert_type(await tg.gather(i(), s(), i(), s(), i()), tuple[int, str, int, str, int])
    assert_type(await tg.gather(i(), s(), i(), s(), i(), s()), tuple[int, str, int, str, int, str])
    assert_type(
        await tg.gather(i(), s(), i(), s(), i(), s(), i()),
        tuple[int, str, int, str, int, str, int],
    )
    assert_type(
        await tg.gather(i(), s(), i(), s(), i(), s(), i(), s()),
        tuple[int, str, int, str, int, str, int, str],
    )
    assert_type(
        await tg.gather(i(), i(), i(), i(), i(), i(), i(), i(), i()),
        tuple[int, ...],
    )
    assert_type(await tg.gather(*many), tuple[int, ...])
    assert_type(await tg.gather(*[length(word) for word in "ab"]), tuple[int, ...])
    assert_type(await tg.gather(i, lambda: s(), nothing), tuple[int, str, None])
    one, two = await tg.gather(i(), s)
    assert_type(one, int)
    assert_type(two, str)
    _, _, _ = await tg.gather(i(), s())  # type: ignore[misc]
    await tg.gather(i(), 1)  # type: ignore[call-overload]
    await tg.gather(length)  # type: ignore[arg-type]


async def mapped(tg: TaskGroup) -> None:
    results = tg.map(length, ["a", "b"], limit=2)
    assert_type(results, MapResults[int])
    async for result in results:
        assert_type(result, int)
    async with tg.map(length, words(), limit=2, ordered=True) as entered:
        assert_type(entered, MapResults[int])
        assert_type([result async for result in entered], list[int])
        assert_type(await anext(entered), int)
    assert_type(await anext(tg.map(lambda word: length(word), ["a"], limit=1)), int)
    iterator: AsyncIterator[int] = results
    wider: MapResults[object] = results
    tg.map(length, results, limit=1)  # type: ignore[arg-type]
    tg.map(length, [1, 2], limit=1)  # type: ignore[arg-type]
    tg.map(plain, ["a"], limit=1)  # type: ignore[arg-type]
    tg.map(number, ["a"], limit=1)  # type: ignore[arg-type]
    tg.map(length, 3, limit=1)  # type: ignore[arg-type]
    tg.map(length, ["a"])  # type: ignore[call-arg]
    tg.map(length, ["a"], 1)  # type: ignore[call-arg]
    tg.map(length, ["a"], limit="1")  # type: ignore[arg-type]
    del iterator, wider


async def groups() -> None:
    async with TaskGroup(concurrency_limit=1, shared_limit=SharedLimit(3)) as tg:
        assert_type(tg, TaskGroup)
        assert_type(tg.tasks, tuple[asyncio.Task[Any], ...])
        assert_type(tg.exceptions, tuple[BaseException, ...])
    assert_type(TaskGroup().enter(), TaskGroup)
    standard: asyncio.TaskGroup = TaskGroup()
    TaskGroup(concurrency_limit="3")  # type: ignore[arg-type]
    TaskGroup(3)  # type: ignore[call-arg]
    del standard
