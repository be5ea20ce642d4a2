"""Threads that a handler waits for in roundabout ways: they end, and no more of them begin."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Annotated, Any, TypeVar

import pytest
from anyio import from_thread
from fastapi import Depends, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from quattro_core import TaskGroup
from quattro_web import cancel_on_disconnect, install, request_task_group, set_deadline
from quattro_web._util.scope import REQUEST
from quattro_web.fastapi import RequestTaskGroup
from quattro_web.testing import VirtualClockLoop
from tests.support.asgi import Exchange, Socket

T = TypeVar("T")


class Scene:
    """A request whose threads work until everything else that can happen has happened.

    Args:
        calls: How many threads work at once.
    """

    def __init__(self, calls: int = 1) -> None:
        self.log: list[str] = []
        self.begun = 0
        self.are_working = asyncio.Event()
        self._calls = calls

    def work(self, end: Callable[[], object] = lambda: None) -> str:
        """Be in a thread; *end* is called in the event loop as soon as all are."""
        from_thread.run(self._outlast, end)
        self.log.append("thread ended")
        return "result"

    async def _outlast(self, end: Callable[[], object]) -> None:
        self.begun += 1
        if self.begun == self._calls:
            self.are_working.set()
        await self.are_working.wait()
        end()
        for _ in range(50):
            await asyncio.sleep(0)

    async def call(self) -> str:
        return await run_in_threadpool(self.work)

    async def fail(self) -> None:
        await self.are_working.wait()
        raise HTTPException(418)

    async def session(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            self.log.append("session closed")

    def serve(self, handler: Callable[..., Any]) -> Exchange:
        app = FastAPI()
        install(app)
        app.get("/", dependencies=[Depends(self.session)])(handler)
        exchange = Exchange(app)
        exchange.scope["leave"] = exchange.disconnect
        return run_in_time_with_threads(exchange.run())


def run_in_time_with_threads(main: Coroutine[Any, Any, T]) -> T:
    """Run a test on a virtual clock that waits for threads."""
    with asyncio.Runner(debug=True, loop_factory=VirtualClockLoop) as runner:
        return runner.run(main)


Wait = Callable[[Scene, TaskGroup], Coroutine[Any, Any, None]]


async def by_child_of_a_child(scene: Scene, tg: TaskGroup) -> None:
    async def child() -> None:
        await tg.create_task(scene.call())

    await tg.create_task(child())


async def by_gather_of_asyncio(scene: Scene, tg: TaskGroup) -> None:
    await asyncio.gather(scene.call(), scene.call())


async def by_gather_of_children(scene: Scene, tg: TaskGroup) -> None:
    await asyncio.gather(tg.create_task(scene.call()), tg.create_task(scene.call()))


async def by_wait_for(scene: Scene, tg: TaskGroup) -> None:
    await asyncio.wait_for(scene.call(), 3600)


async def by_wait_for_child(scene: Scene, tg: TaskGroup) -> None:
    async def child() -> None:
        await tg.create_task(scene.call())

    await asyncio.wait_for(tg.create_task(child()), 3600)


async def by_wait_for_gather(scene: Scene, tg: TaskGroup) -> None:
    await asyncio.wait_for(asyncio.gather(scene.call(), scene.call()), 3600)


async def by_group(scene: Scene, tg: TaskGroup) -> None:
    async with TaskGroup() as inner:
        inner.create_task(scene.call())
        inner.create_background_task(scene.call())


async def by_body_of_group(scene: Scene, tg: TaskGroup) -> None:
    async with TaskGroup() as inner:
        inner.create_task(scene.call())
        await scene.call()


async def by_gather_of_group(scene: Scene, tg: TaskGroup) -> None:
    async with TaskGroup() as inner:
        await inner.gather(scene.call(), scene.call())


async def by_group_of_asyncio(scene: Scene, tg: TaskGroup) -> None:
    async with asyncio.TaskGroup() as inner:
        inner.create_task(scene.call())
        inner.create_task(scene.call())


async def by_generator(scene: Scene, tg: TaskGroup) -> None:
    async for _ in iterate_in_threadpool(scene.work() for _ in range(9)):
        pass


async def by_next(scene: Scene, tg: TaskGroup) -> None:
    await anext(iterate_in_threadpool(scene.work() for _ in range(9)), None)


class Awaitable:
    def __init__(self, scene: Scene) -> None:
        self._call = scene.call()

    def __await__(self) -> Any:
        return self._call.__await__()


async def by_awaitable(scene: Scene, tg: TaskGroup) -> None:
    await Awaitable(scene)


class OldAwaitable(Awaitable):
    def __await__(self) -> Any:
        return (yield from super().__await__())


async def by_generator_of_an_awaitable(scene: Scene, tg: TaskGroup) -> None:
    await OldAwaitable(scene)


TWO: set[Wait] = {
    by_gather_of_asyncio,
    by_gather_of_children,
    by_wait_for_gather,
    by_group,
    by_body_of_group,
    by_gather_of_group,
    by_group_of_asyncio,
}
ONE: set[Wait] = {
    by_child_of_a_child,
    by_wait_for,
    by_wait_for_child,
    by_generator,
    by_next,
    by_awaitable,
    by_generator_of_an_awaitable,
}


@pytest.mark.parametrize("wait", sorted(ONE | TWO, key=str))
def test_session_of_threads(wait: Wait) -> None:
    """R3: However a handler waits for threads, a child that fails does not close its session while
    they work, and the handler does not go on when they have ended."""
    calls = 2 if wait in TWO else 1
    scene = Scene(calls)

    async def handler(tg: RequestTaskGroup) -> None:
        tg.create_task(scene.fail())
        await wait(scene, tg)
        await asyncio.sleep(3600)

    exchange = scene.serve(handler)
    assert (exchange.status, exchange.error) == (418, None)
    assert scene.log == ["thread ended"] * calls + ["session closed"]


@pytest.mark.parametrize("reason", ["failure", "deadline", "disconnect", "shutdown"])
@pytest.mark.parametrize("is_child", [False, True])
def test_one_call_after_the_other(reason: str, is_child: bool) -> None:
    """R3, R7, R8: Whatever cancels a request, it waits for the thread that works, and what calls
    one after the other calls no more."""
    scene = Scene()

    async def handler(request: Request, tg: RequestTaskGroup) -> None:
        def end() -> None:
            if scene.begun > 1:
                return
            if reason == "failure":
                tg.create_task(scene.fail())
            elif reason == "deadline":
                set_deadline(request, 1e-10)
            elif reason == "disconnect":
                request.scope["leave"]()
            else:
                request.scope[REQUEST].cut_off(request)

        async def calls() -> None:
            for _ in range(9):
                await run_in_threadpool(scene.work, end)

        cancel_on_disconnect(request)
        await asyncio.sleep(1)  # its client is watched by now
        await (tg.create_task(calls()) if is_child else calls())
        await asyncio.sleep(3600)

    exchange = scene.serve(handler)
    expected = {"failure": 418, "deadline": 504, "disconnect": 499, "shutdown": 503}
    assert (exchange.status, exchange.error) == (expected[reason], None)
    assert scene.log == ["thread ended", "session closed"]


async def gather_in_time(scene: Scene, tg: TaskGroup) -> None:
    async with asyncio.timeout(None) as timeout:
        call = run_in_threadpool(scene.work, lambda: timeout.reschedule(0))
        await tg.gather(call, scene.call())


async def group_in_time(scene: Scene, tg: TaskGroup) -> None:
    async with asyncio.timeout(None) as timeout, TaskGroup() as inner:
        inner.create_task(run_in_threadpool(scene.work, lambda: timeout.reschedule(0)))
        inner.create_task(scene.call())


async def map_in_time(scene: Scene, tg: TaskGroup) -> None:
    async def call(_: int) -> None:
        await run_in_threadpool(scene.work, lambda: timeout.reschedule(0))

    async with asyncio.timeout(None) as timeout, tg.map(call, range(9), limit=2) as results:
        await anext(results)


@pytest.mark.parametrize("wait", [gather_in_time, group_in_time, map_in_time])
def test_time_is_over_while_threads_work(wait: Wait) -> None:
    """R3: `gather`, `map` and inner groups wait for their threads when a timeout around them ends
    them, so that the session closes afterwards."""
    scene = Scene(2)

    async def handler(tg: RequestTaskGroup) -> None:
        await wait(scene, tg)

    exchange = scene.serve(handler)
    assert (exchange.status, type(exchange.error)) == (500, TimeoutError)
    assert scene.log == ["thread ended", "thread ended", "session closed"]


def test_child_of_an_inner_group_fails() -> None:
    """R3: An inner group whose child fails waits for the threads of its body and its children."""
    scene = Scene(2)

    async def handler() -> None:
        async with TaskGroup() as inner:
            inner.create_task(scene.fail())
            inner.create_task(scene.call())
            await scene.call()
            await asyncio.sleep(3600)

    exchange = scene.serve(handler)
    assert exchange.status == 418
    assert scene.log == ["thread ended", "thread ended", "session closed"]


def test_result_of_a_thread_is_not_lost() -> None:
    """R3: Who is cancelled while it waits for a thread has its result first: a connection that was
    taken there can be given back."""
    scene = Scene()

    async def handler(tg: RequestTaskGroup) -> None:
        tg.create_task(scene.fail())
        result = await scene.call()
        try:
            await asyncio.sleep(3600)
        finally:
            scene.log.append(result)

    assert scene.serve(handler).status == 418
    assert scene.log == ["thread ended", "result", "session closed"]


@pytest.mark.parametrize("is_child", [False, True])
def test_clean_up_after_a_gather_is_not_cut(*, is_child: bool) -> None:
    """R3, R4: A handler, or a child, that has seen the cancellation of one call is not cancelled
    once more when the thread of another has ended, and has not failed by itself."""
    scene = Scene()

    async def sleep() -> None:
        await asyncio.sleep(3600)

    async def waits(tg: TaskGroup) -> None:
        try:
            await asyncio.gather(tg.create_task(scene.call()), tg.create_task(sleep()))
        finally:
            await asyncio.sleep(1)
            scene.log.append("cleaned up")

    async def handler(tg: RequestTaskGroup) -> None:
        tg.create_task(scene.fail())
        await (tg.create_task(waits(tg)) if is_child else waits(tg))

    assert scene.serve(handler).status == 418
    assert scene.log == ["thread ended", "cleaned up", "session closed"]


def test_session_of_a_def_dependency() -> None:
    """R3: A def dependency with yield is cancelled when its thread has ended."""
    scene = Scene()

    def dependency() -> Iterator[None]:
        scene.work()
        try:
            yield
        finally:
            scene.log.append("dependency closed")

    async def spawn(tg: RequestTaskGroup) -> None:
        tg.create_task(scene.fail())

    async def handler(
        spawned: Annotated[None, Depends(spawn)], _: Annotated[None, Depends(dependency)]
    ) -> None:
        await asyncio.sleep(3600)

    assert scene.serve(handler).status == 418
    assert scene.log == ["thread ended", "dependency closed", "session closed"]


def test_handler_of_starlette() -> None:
    """R3: The threads of a Starlette handler have ended when an exception handler runs."""
    scene = Scene(2)

    async def handler(request: Request) -> None:
        tg = request_task_group(request)
        tg.create_task(scene.fail())
        await asyncio.gather(scene.call(), scene.call())

    async def answer(request: Request, exc: Exception) -> Response:
        scene.log.append("answered")
        return PlainTextResponse("teapot", 418)

    app = Starlette(routes=[Route("/", handler)], exception_handlers={418: answer})
    install(app)
    assert run_in_time_with_threads(Exchange(app).run()).status == 418
    assert scene.log == ["thread ended", "thread ended", "answered"]


def test_websocket() -> None:
    """R3, R6: The threads of a WebSocket have ended when its session closes."""
    scene = Scene(2)
    app = FastAPI()
    install(app)

    @app.websocket("/", dependencies=[Depends(scene.session)])
    async def handler(websocket: WebSocket, tg: RequestTaskGroup) -> None:
        await websocket.accept()
        tg.create_task(scene.fail())
        async with TaskGroup() as inner:
            inner.create_task(scene.call())
            inner.create_task(scene.call())

    run_in_time_with_threads(Socket(app, log=scene.log).run())
    assert scene.log == [
        "accept",
        "thread ended",
        "thread ended",
        "session closed",
        "close 1011",
        "raised HTTPException",
    ]


def test_body_of_a_stream() -> None:
    """R3: A def generator, from which a response streams, is not in its thread any more when its
    session closes."""
    scene = Scene()

    def chunks() -> Iterator[str]:
        while True:
            scene.work()
            yield "chunk"

    async def handler(tg: RequestTaskGroup) -> StreamingResponse:
        tg.create_task(scene.fail())
        return StreamingResponse(chunks())

    scene.serve(handler)
    assert scene.log == ["thread ended", "session closed"]


def test_body_that_waits_again_after_its_thread() -> None:
    """R3, R5: A body that waits for something else when its thread has ended is cancelled then."""
    scene = Scene()

    async def chunks() -> AsyncIterator[str]:
        yield "chunk"
        await scene.call()
        await asyncio.Event().wait()

    async def handler(tg: RequestTaskGroup) -> StreamingResponse:
        tg.create_task(scene.fail())
        return StreamingResponse(chunks())

    scene.serve(handler)
    assert scene.log == ["thread ended", "session closed"]


def test_body_of_a_stream_whose_client_leaves() -> None:
    """R3, R7: So it is if its client leaves while the thread works, which is the last one."""
    scene = Scene()

    async def handler(request: Request, tg: RequestTaskGroup) -> StreamingResponse:
        def chunks() -> Iterator[str]:
            for _ in range(9):
                scene.work(request.scope["leave"])
                yield "chunk"

        return StreamingResponse(chunks())

    scene.serve(handler)
    assert scene.log == ["thread ended", "session closed"]
