"""Types of `quattro_core`, which the type checkers check: nothing of this runs.

An ignore is what they must complain of: one that nothing is to be complained of is an error.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, assert_type, cast

from quattro_core import MapResults, SharedLimit, TaskFuture, TaskGroup


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
    tg.create_task(number(), "name")  # type: ignore[arg-type]
    tg.create_task(tg.create_task(number()))  # type: ignore[arg-type]


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


async def gathered_with_errors(
    tg: TaskGroup, many: list[Coroutine[Any, Any, int]], is_so: bool
) -> None:
    i, s = number, text
    assert_type(await tg.gather(return_exceptions=True), tuple[()])
    assert_type(await tg.gather(i(), return_exceptions=True), tuple[int | Exception])
    assert_type(
        await tg.gather(i(), s(), return_exceptions=True), tuple[int | Exception, str | Exception]
    )
    assert_type(
        await tg.gather(i(), s(), i(), s(), i(), s(), i(), s(), return_exceptions=True),
        tuple[
            int | Exception,
            str | Exception,
            int | Exception,
            str | Exception,
            int | Exception,
            str | Exception,
            int | Exception,
            str | Exception,
        ],
    )
    assert_type(
        await tg.gather(i(), i(), i(), i(), i(), i(), i(), i(), i(), return_exceptions=True),
        tuple[int | Exception, ...],
    )
    assert_type(await tg.gather(i(), s(), return_exceptions=False), tuple[int, str])
    assert_type(await tg.gather(*many, return_exceptions=True), tuple[int | Exception, ...])
    assert_type(await tg.gather(*many, return_exceptions=False), tuple[int, ...])
    assert_type(await tg.gather(*many, return_exceptions=is_so), tuple[int | Exception, ...])
    one, two = await tg.gather(i(), s, return_exceptions=True)
    assert_type(one, int | Exception)
    if not isinstance(two, Exception):
        assert_type(two, str)
    await tg.gather(i(), 1, return_exceptions=True)  # type: ignore[call-overload]


async def mapped_with_errors(tg: TaskGroup, is_so: bool) -> None:
    results = tg.map(length, ["a"], limit=1, return_exceptions=True)
    assert_type(results, MapResults[int | Exception])
    assert_type(await results, list[int | Exception])
    assert_type(await tg.map(length, words(), limit=2), list[int])
    assert_type(tg.map(length, ["a"], limit=1, return_exceptions=False), MapResults[int])
    assert_type(
        tg.map(length, ["a"], limit=1, return_exceptions=is_so), MapResults[int | Exception]
    )


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
    tg.map(length, 3, limit=1)  # type: ignore[call-overload]
    tg.map(length, ["a"])  # type: ignore[call-overload]
    tg.map(length, ["a"], 1)  # type: ignore[call-overload]
    tg.map(length, ["a"], limit="1")  # type: ignore[call-overload]
    del iterator, wider


def count(word: str, *, of: str = "") -> int:
    return word.count(of)


async def workers(tg: TaskGroup) -> None:
    assert_type(tg.run_in_thread(count, "a", of="b"), asyncio.Task[int])
    assert_type(await tg.run_in_process(count, "a"), int)
    assert_type(tg.run_in_thread(lambda: ""), asyncio.Task[str])
    tg.run_in_thread(count, 1)  # type: ignore[arg-type]
    tg.run_in_thread(count)  # type: ignore[call-arg]
    tg.run_in_process(count, "a", off="b")  # type: ignore[call-arg]
    tg.run_in_thread(count("a"))  # type: ignore[arg-type]


async def gathered_workers(tg: TaskGroup, words: list[str]) -> None:
    work = tg.run_in_process
    assert_type(await tg.gather(work(count, "a"), tg.create_task(text())), tuple[int, str])
    assert_type(await tg.gather(work(count, "a"), text, text()), tuple[int, str, str])
    assert_type(
        await tg.gather(work(count, "a"), text(), return_exceptions=True),
        tuple[int | Exception, str | Exception],
    )
    each = [work(count, word) for word in words]
    assert_type(await tg.gather(*each, return_exceptions=True), tuple[int | Exception, ...])
    assert_type(await tg.map(lambda word: work(count, word), words, limit=1), list[int])


def in_a_thread(tg: TaskGroup) -> None:
    task = tg.create_task(text())
    assert_type(task.result(), str)
    future = cast("TaskFuture[str]", task)
    assert_type(future.result(timeout=1), str)
    assert_type(future.exception(), BaseException | None)
    assert_type(future.cancel(), bool)
    plain_future: concurrent.futures.Future[str] = future
    del plain_future


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
