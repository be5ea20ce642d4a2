"""`run_in_thread` and `run_in_process`: functions that block or compute, as children."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import anyio.to_process
import pytest

from quattro_core import TaskGroup
from tests.core import computing
from tests.core.conftest import Run, turns
from tests.core.test_background import forever
from tests.core.test_errors import errors_of, fail

variable: ContextVar[str] = ContextVar("variable")


class Blocking:
    """A function that blocks its thread until it is released."""

    def __init__(self, log: list[str], error: BaseException | None = None) -> None:
        self.begun, self.released = threading.Event(), threading.Event()
        self.log = log
        self.error = error

    def __call__(self) -> str:
        self.begun.set()
        assert self.released.wait(10)
        self.log.append("thread ended")
        if self.error is not None:
            raise self.error
        return "result"

    async def has_begun(self) -> None:
        while not self.begun.is_set():
            await asyncio.sleep(0)


def test_thread(run: Run) -> None:
    """C12: A function runs in a thread, with its arguments and the context variables of the
    caller; awaiting the child gives its result."""

    def work(one: int, *, other: int) -> tuple[int, str, bool]:
        return one + other, variable.get(), threading.current_thread() is threading.main_thread()

    async def main() -> None:
        variable.set("own")
        async with TaskGroup() as tg:
            task = tg.run_in_thread(work, 1, other=2)
            assert task.get_name() == "test_thread.<locals>.work"  # for logs
            assert await task == (3, "own", False)

    run(main)


@pytest.mark.parametrize("error", [ValueError, StopIteration])
def test_thread_that_fails(run: Run, error: type[Exception]) -> None:
    """C12, C5: What the function raises is the failure of a child."""

    def work() -> None:
        raise error("thread")

    async def main() -> None:
        async with TaskGroup() as tg:
            tg.run_in_thread(work)
            await forever()

    [told] = errors_of(run, main)
    assert told == ("thread" if error is ValueError else f"{work!r} raised StopIteration")


def test_limit(run: Run) -> None:
    """C12, C6: Such children count for the limit of the group."""
    works = [Blocking([]) for _ in range(3)]

    async def main() -> None:
        async with TaskGroup(concurrency_limit=2) as tg:
            for work in works:
                tg.run_in_thread(work)
            for work in works[:2]:
                await work.has_begun()
            await turns()
            assert not works[2].begun.is_set()
            for work in works:
                work.released.set()

    run(main)
    assert works[2].begun.is_set()


def double(number: int) -> int:
    """Fail for the number two."""
    if number == 2:
        raise ValueError(number)
    return 2 * number


async def partial_results(tg: TaskGroup, call: Callable[[int], asyncio.Task[int]]) -> None:
    """Have partial results in each way in which one may ask for them."""

    async def child(number: int) -> int:
        return await call(number)

    async def careful(number: int) -> int:
        try:
            return await call(number)
        except ValueError:
            return 0

    partial = [2, "ValueError(2)", 6]

    def shown(results: Iterable[object]) -> list[object]:
        return [result if isinstance(result, int) else repr(result) for result in results]

    assert shown(await tg.gather(call(1), call(2), call(3), return_exceptions=True)) == partial
    calls = child(1), call(2), child(3)
    assert shown(await tg.gather(*calls, return_exceptions=True)) == partial
    assert shown(await tg.gather(child(1), child(2), return_exceptions=True)) == partial[:2]
    for function in (child, call):
        results = await tg.map(function, range(1, 4), limit=2, return_exceptions=True)
        assert shown(results) == partial
    assert await tg.gather(careful(2), call(1), return_exceptions=True) == (0, 2)
    assert await tg.gather(call(1), child(3)) == (2, 6)
    assert await tg.map(call, (1, 3), limit=2) == [2, 6]
    assert tg.exceptions == ()


@pytest.mark.parametrize("limit", [None, 3])
def test_partial_results(run: Run, limit: int | None) -> None:
    """C12: The error of a function in a thread is a result, whether `gather` is given what
    `run_in_thread` returns or a child awaits that, and in a map; else the group goes on."""

    async def main() -> None:
        async with TaskGroup(concurrency_limit=limit) as tg:
            await partial_results(tg, lambda number: tg.run_in_thread(double, number))

    run(main)


def test_an_error_that_nobody_awaits(run: Run) -> None:
    """C12, C5: What a child whose errors are results does not await is a failure of the group."""

    async def main() -> None:
        async with TaskGroup() as tg:

            async def child() -> None:
                tg.run_in_thread(double, 2)
                await forever()

            await tg.gather(child(), return_exceptions=True)

    assert errors_of(run, main) == ["2"]


@pytest.mark.parametrize("how", ["group", "child", "timeout", "gather", "twice"])
@pytest.mark.parametrize("error", [None, ValueError("late")])
def test_a_cancelled_thread_is_waited_for(run: Run, how: str, error: Exception | None) -> None:
    """C12: Whatever cancels it, the child ends when its thread has; what the function raises then
    is not lost."""
    log: list[str] = []
    work = Blocking(log, error)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with TaskGroup() as tg:
            task = tg.run_in_thread(work)
            task.add_done_callback(lambda _: log.append("child ended"))
            await work.has_begun()
            loop.call_soon(loop.call_soon, loop.call_soon, work.released.set)
            if how == "group":
                tg.cancel()
                await forever()
            elif how in ("timeout", "gather"):
                with pytest.raises((TimeoutError, ValueError, asyncio.CancelledError)):
                    async with asyncio.timeout(0):
                        await (task if how == "timeout" else tg.gather(task))
                assert log == ["thread ended", "child ended"]
            else:
                task.cancel()
                if how == "twice":
                    await asyncio.sleep(0)
                    task.cancel()
                await asyncio.wait([task])
                assert task.cancelled() == (error is None)

    if error is None:
        run(main)
    else:
        assert errors_of(run, main) == ["late"]
    assert log == ["thread ended", "child ended"]


def test_a_cancelled_thread_that_has_not_begun(run: Run) -> None:
    """C12: A child that is cancelled before it has a thread ends at once, and its function is
    never called."""
    log: list[str] = []
    work = Blocking(log)

    async def main() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        async with TaskGroup() as tg:
            tg.run_in_thread(work)
            second = tg.run_in_thread(log.append, "never")
            await work.has_begun()
            await turns()
            second.cancel()
            await asyncio.wait([second])
            assert (second.cancelled(), log) == (True, [])
            work.released.set()
        assert await asyncio.get_running_loop().run_in_executor(None, lambda: log) == log

    run(main)
    assert log == ["thread ended"]


def test_asyncios_threads_are_waited_for(run: Run) -> None:
    """C12, C5: A child, or a body, that waits in `asyncio.to_thread` is cancelled by its group when
    the thread has ended."""
    log: list[str] = []

    async def main(in_body: bool) -> None:
        work = Blocking(log)
        loop = asyncio.get_running_loop()

        async def call() -> None:
            try:
                await asyncio.to_thread(work)
                await forever()
            finally:
                log.append("waiter ended")

        async def stop() -> None:
            await work.has_begun()
            tg.cancel()
            loop.call_soon(loop.call_soon, work.released.set)

        async with TaskGroup() as tg:
            tg.create_task(stop())
            await (call() if in_body else tg.create_task(call()))

    for in_body in (True, False):
        log.clear()
        run(lambda: main(in_body))  # noqa: B023  # it is called at once
        assert log == ["thread ended", "waiter ended"]


def test_asyncios_thread_as_a_child(run: Run) -> None:
    """C12: `create_task(asyncio.to_thread(...))` works, and is waited for like the rest."""
    log: list[str] = []

    async def main() -> None:
        work = Blocking(log)
        async with TaskGroup() as tg:
            task = tg.create_task(asyncio.to_thread(work))
            await work.has_begun()
            asyncio.get_running_loop().call_soon(work.released.set)
            tg.create_task(fail(ValueError("other")))
            await task

    assert errors_of(run, main) == ["other"]
    assert log == ["thread ended"]


def test_futures_are_refused(run_plain: Run) -> None:
    """C12, C7: A future of `loop.run_in_executor` is a `TypeError` that names the two methods, and
    a task one that says what to do with it."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with TaskGroup() as tg:
            future: Any = loop.run_in_executor(None, int)
            methods: list[Callable[[Any], Any]] = [tg.create_task, tg.create_background_task]
            for method in methods:
                with pytest.raises(TypeError, match=r"call run_in_thread\(function, \.\.\.\) or "):
                    method(future)
            with pytest.raises(TypeError, match="call run_in_thread"):
                await tg.gather(future)
            await future
            task: Any = tg.create_task(asyncio.sleep(0))
            with pytest.raises(TypeError, match="it is already running, so await it"):
                tg.create_task(task)

    run_plain(main)


@pytest.mark.parametrize("method", ["run_in_thread", "run_in_process"])
def test_arguments(run_plain: Run, method: str) -> None:
    """C12: What is no function, or would run in no worker, is an error at once."""

    async def main() -> None:
        async with TaskGroup() as tg:
            with pytest.raises(TypeError, match="must be callable, and not called yet, got 3"):
                getattr(tg, method)(3)
            with pytest.raises(TypeError, match=r"call create_task\(forever\(\.\.\.\)\) instead"):
                getattr(tg, method)(forever)
        with pytest.raises(RuntimeError, match="is finished"):
            getattr(tg, method)(int)

    run_plain(main)


# A process is slow to come, and nothing about it is virtual: these run on a loop of asyncio's.


def test_process() -> None:
    """C12: A function runs in another process, with its arguments; what it raises is the failure
    of the child, or a result where that is asked for, and a process that ends by itself is one."""

    async def main() -> None:
        async with TaskGroup(concurrency_limit=1) as tg:
            assert await tg.run_in_process(computing.add, 1, other=2) == 3
            assert await tg.run_in_process(os.getpid) != os.getpid()
        async with TaskGroup() as tg:
            await partial_results(tg, lambda number: tg.run_in_process(double, number))
        for function, args, kind in (
            (computing.fail, (ValueError("process"),), ValueError),
            (computing.die, (), anyio.BrokenWorkerProcess),
        ):
            with pytest.raises(ExceptionGroup) as caught:
                async with TaskGroup() as tg:
                    tg.run_in_process(function, *args)
            assert [type(error) for error in caught.value.exceptions] == [kind]

    asyncio.run(main())


@pytest.mark.parametrize("how", ["group", "child", "timeout", "gather"])
def test_a_cancelled_process_is_ended(tmp_path: Path, how: str) -> None:
    """C12: Whatever cancels the child, its process has ended when it has."""
    path = tmp_path / "pid"

    async def main() -> None:
        async with TaskGroup() as tg:
            task = tg.run_in_process(computing.compute_for_ever, str(path))
            while not path.exists():
                await asyncio.sleep(0.01)
            if how in ("timeout", "gather"):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0):
                        await (task if how == "timeout" else tg.gather(task))
            elif how == "child":
                task.cancel()
            else:
                tg.cancel()
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.read_text()), 0)

    asyncio.run(main())


def test_a_main_program_that_runs_in_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C12: A main program that fails where the process imports it, since it has no guard, is an
    error that shows the guard."""
    path = tmp_path / "main.py"
    path.write_text("raise ValueError('main')")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(path), raising=False)
    processes: list[anyio.abc.Process] = []

    async def open_process(*args: Any, **options: Any) -> anyio.abc.Process:
        processes.append(await anyio.open_process(*args, **options))
        return processes[0]

    monkeypatch.setattr("anyio.to_process.open_process", open_process)

    async def main() -> None:
        with pytest.raises(ExceptionGroup) as caught:
            async with TaskGroup() as tg:
                tg.run_in_process(int)
        [told] = caught.value.exceptions
        assert isinstance(told, anyio.BrokenWorkerProcess)
        message = f"{path}, and that has failed there with ValueError: .* below if __name__ == "
        assert re.search(message, str(told))
        await processes[0].aclose()  # which anyio leaves to itself

    asyncio.run(main())


def test_what_no_process_can_be_sent() -> None:
    """C12: A function that can't be sent to another process, as a lambda, is an error that says
    which functions can; one of this kind that it raises itself is its own."""

    async def main() -> None:
        async with TaskGroup() as tg:
            local = tg.run_in_process(lambda: 5)
            own = tg.run_in_process(computing.fail, AttributeError("its own"))
            error, own_error = await tg.gather(local, own, return_exceptions=True)
        assert isinstance(error, TypeError)
        assert re.match(r"run_in_process can't send .*<lambda>.* top level", str(error))
        assert repr(own_error) == "AttributeError('its own')"

    asyncio.run(main())


def test_process_without_anyio(run_plain: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """C12: Without anyio the error says what to install."""
    monkeypatch.setitem(sys.modules, "anyio.to_process", None)

    async def main() -> None:
        async with TaskGroup() as tg:
            with pytest.raises(ModuleNotFoundError, match="run_in_process needs anyio"):
                tg.run_in_process(int)

    run_plain(main)
