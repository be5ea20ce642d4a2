"""Files that were uploaded with a request, read by the work that it hands over to the app."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from typing import Annotated, Any

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, Form, HTTPException, Request, UploadFile
from pydantic import BaseModel, ConfigDict
from starlette.applications import Starlette
from starlette.datastructures import UploadFile as StarletteUploadFile
from starlette.requests import Request as StarletteRequest
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from quattro_web import app_task_group, install, task_group_lifespan
from quattro_web._app.uploads import UPLOAD_STACK
from quattro_web.fastapi import AppTaskGroup
from tests.support.apps import settle
from tests.support.asgi import Exchange, run
from tests.support.clock import VirtualClockLoop
from tests.support.lifespan import Life

HEADERS = [("content-type", "multipart/form-data; boundary=edge")]

Files = list[StarletteUploadFile]
Handler = Callable[[AppTaskGroup, UploadFile], Awaitable[Any]]


def form(contents: Iterable[bytes] = (b"the file",), name: str = "file") -> list[bytes]:
    """Return a multi-part body with such files."""
    head = f'--edge\r\ncontent-disposition: form-data; name="{name}"; filename="a.txt"\r\n\r\n'
    return [*(head.encode() + content + b"\r\n" for content in contents), b"--edge--\r\n"]


def post(life: Life, path: str = "/", body: Iterable[bytes] | None = None) -> Exchange:
    """Prepare the upload of a file."""
    body = form() if body is None else body
    return life.exchange(path, method="POST", headers=HEADERS, body=body)


def app_with(handler: Handler, log: list[str], **options: Any) -> tuple[FastAPI, Files]:
    """Return an app whose handler has an upload, and the files that were uploaded."""
    app = FastAPI()
    files: Files = []

    @app.post("/")
    async def upload(group: AppTaskGroup, file: UploadFile) -> str:
        files.append(file)
        await handler(group, file)
        return "accepted"

    install(app, **options)
    return app, files


async def reads(file: UploadFile, answered: asyncio.Event, log: list[str]) -> None:
    """Read an upload when its request has been answered."""
    await answered.wait()
    log.append((await file.read()).decode())


def closed(files: Files) -> list[bool]:
    return [file.file.closed for file in files]


@pytest.mark.parametrize("size", [8, 2_000_000], ids=["in memory", "on disk"])
def test_work_reads_an_upload(size: int) -> None:
    """A5: Work handed over can read a file that was uploaded with its request, when the response
    is complete; then the file is closed."""
    log: list[str] = []
    answered = asyncio.Event()

    async def work(file: UploadFile) -> None:
        await answered.wait()
        log.append(f"read {len(await file.read())}")

    async def handler(group: AppTaskGroup, file: UploadFile) -> None:
        group.create_task(work(file))

    app, files = app_with(handler, log)

    async def main() -> None:
        async with Life(app) as life:
            assert (await post(life, body=form([b"x" * size])).run()).is_complete
            assert closed(files) == [False]
            answered.set()
        assert log == [f"read {size}"]
        assert closed(files) == [True]

    with asyncio.Runner(debug=True) as runner:  # no virtual clock: it does not wait for threads
        runner.run(main())


def test_file_is_closed_when_the_last_work_ends() -> None:
    """A5: Several pieces of work, and those that they hand over themselves, share the uploads."""
    log: list[str] = []
    go = [asyncio.Event() for _ in range(3)]

    async def handler(group: AppTaskGroup, file: UploadFile) -> None:
        async def work(number: int) -> None:
            await go[number].wait()
            await file.seek(0)
            log.append(f"{number} read {(await file.read()).decode()}")
            if number == 1:
                group.create_task(work(2))

        group.create_task(work(0))
        group.create_task(work(1))

    app, files = app_with(handler, log)

    async def main() -> None:
        async with Life(app) as life:
            await post(life).run()
            for event in go:
                assert closed(files) == [False]
                event.set()
                await settle()
            assert closed(files) == [True]
        assert log == [f"{number} read the file" for number in range(3)]

    run(main())


def test_request_reads_until_its_end() -> None:
    """A5: The request can read its uploads when the work that it handed over has ended already, in
    BackgroundTasks as well."""
    log: list[str] = []
    app = FastAPI()
    files: Files = []

    async def work() -> None:
        log.append("work done")

    async def later(file: UploadFile) -> None:
        log.append(f"read {(await file.read()).decode()}")

    @app.post("/")
    async def upload(group: AppTaskGroup, file: UploadFile, tasks: BackgroundTasks) -> None:
        files.append(file)
        await group.create_task(work())
        await settle()
        tasks.add_task(later, file)

    install(app)

    async def main() -> None:
        async with Life(app) as life:
            await post(life).run()
            assert log[-1] == "read the file"
            assert closed(files) == [True]

    run(main())


@pytest.mark.parametrize("error", [HTTPException(409), ZeroDivisionError()])
def test_request_that_fails(error: Exception) -> None:
    """A5: The uploads of a request that fails after it has handed work over stay open for it."""
    log: list[str] = []
    answered = asyncio.Event()

    async def handler(group: AppTaskGroup, file: UploadFile) -> None:
        group.create_task(reads(file, answered, log))
        raise error

    app, files = app_with(handler, log)

    async def main() -> None:
        async with Life(app) as life:
            assert (await post(life).run()).status in (409, 500)
            answered.set()
        assert log == ["the file"]
        assert closed(files) == [True]

    run(main())


def test_several_files_and_a_form_model() -> None:
    """A5: All files of a request stay open, however its handler takes them."""
    app = FastAPI()
    files: Files = []
    answered = asyncio.Event()
    log: list[str] = []

    class Album(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        pictures: list[UploadFile]

    async def work() -> None:
        await answered.wait()
        log.extend([(await file.read()).decode() for file in files])

    @app.post("/list")
    async def upload_list(group: AppTaskGroup, pictures: list[UploadFile]) -> None:
        files.extend(pictures)
        group.create_task(work())

    @app.post("/model")
    async def upload_model(group: AppTaskGroup, album: Annotated[Album, Form()]) -> None:
        files.extend(album.pictures)
        group.create_task(work())

    install(app)

    async def main(path: str) -> None:
        async with Life(app) as life:
            assert (await post(life, path, form([b"1", b"2"], "pictures")).run()).status == 200
            assert closed(files) == [False, False]
            answered.set()
        assert log == ["1", "2"]
        assert closed(files) == [True, True]

    for path in ("/list", "/model"):
        files.clear()
        log.clear()
        answered = asyncio.Event()
        run(main(path))


def test_dependency_hands_over() -> None:
    """A5: A dependency with ``yield`` may hand the uploads over, also when it closes."""
    app = FastAPI()
    files: Files = []
    log: list[str] = []
    answered = asyncio.Event()

    async def work() -> None:
        await answered.wait()
        log.append((await files[0].read()).decode())

    async def dependency(group: AppTaskGroup, file: UploadFile) -> AsyncIterator[None]:
        files.append(file)
        yield
        group.create_task(work())

    @app.post("/", dependencies=[Depends(dependency)])
    async def upload() -> None: ...

    install(app)

    async def main() -> None:
        async with Life(app) as life:
            await post(life).run()
            answered.set()
        assert log == ["the file"]
        assert closed(files) == [True]

    run(main())


@pytest.mark.parametrize("where", ["mounted", "mounted and installed", "copied scope"])
def test_in_a_sub_app(where: str) -> None:
    """A5: The uploads of a mounted app stay open for the work that its handlers hand over."""
    log: list[str] = []
    answered = asyncio.Event()

    sub = FastAPI()
    files: Files = []

    @sub.post("/")
    async def upload(group: AppTaskGroup, file: UploadFile) -> None:
        files.append(file)
        group.create_task(reads(file, answered, log))

    async def copying(scope: Any, receive: Any, send: Any) -> None:
        await sub(dict(scope), receive, send)

    app = FastAPI()
    app.mount("/sub", copying if where == "copied scope" else sub)
    install(app)
    if where == "mounted and installed":
        install(sub)

    async def main() -> None:
        async with Life(app) as life:
            assert (await post(life, "/sub/").run()).status == 200
            assert closed(files) == [False]
            answered.set()
        assert log == ["the file"]
        assert closed(files) == [True]

    run(main())


def test_with_a_lifespan_by_hand() -> None:
    """A5: Uploads stay open without the middleware, too."""
    app = FastAPI(lifespan=task_group_lifespan())
    files: Files = []
    log: list[str] = []
    answered = asyncio.Event()

    @app.post("/")
    async def upload(request: Request, file: UploadFile) -> None:
        async def work() -> None:
            await answered.wait()
            log.append((await file.read()).decode())

        files.append(file)
        app_task_group(request).create_task(work())

    async def main() -> None:
        async with Life(app) as life:
            await post(life).run()
            answered.set()
        assert log == ["the file"]
        assert closed(files) == [True]

    run(main())


@pytest.mark.parametrize("first", [True, False])
def test_hand_over_that_is_refused(first: bool) -> None:
    """A5: Work that is refused keeps no file open; what was handed over before still reads it."""
    log: list[str] = []
    busy = asyncio.Event()

    async def handler(group: AppTaskGroup, file: UploadFile) -> None:
        async def work() -> None:
            log.append((await file.read()).decode())

        if first:
            group.create_task(busy.wait())
        group.create_task(work())
        group.create_task(work())

    app, files = app_with(handler, log, app_concurrency_limit=1, app_max_waiting=0 + first)

    async def main() -> None:
        async with Life(app) as life:
            (await life.group()).create_task(asyncio.sleep(5)) if not first else None
            assert (await post(life).run()).status == 503
            assert closed(files) == [not first]
            busy.set()
        assert log == ["the file"] * first
        assert closed(files) == [True]

    run(main())


@pytest.mark.parametrize("limit", [None, 1])
def test_work_that_is_cancelled_before_its_first_step(limit: int | None) -> None:
    """A5: Work that never begins closes the uploads nevertheless."""
    log: list[str] = []

    async def handler(group: AppTaskGroup, file: UploadFile) -> None:
        group.create_task(asyncio.sleep(5))
        group.create_task(settle()).cancel()

    app, files = app_with(handler, log, app_concurrency_limit=limit)

    async def main() -> None:
        async with Life(app) as life:
            await post(life).run()
            assert closed(files) == [False]
        assert closed(files) == [True]

    run(main())


def test_shutdown_cancels_the_work(errors: list[logging.LogRecord]) -> None:
    """A5, A6: Work that the shutdown cancels can read its uploads in its clean-up; then they are
    closed, before the shutdown is complete."""
    log: list[str] = []

    async def handler(group: AppTaskGroup, file: UploadFile) -> None:
        close = file.close

        async def close_slowly() -> None:  # as in a thread
            await settle()
            await close()

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                log.append(f"read {len(await file.read())}")

        file.close = close_slowly  # type: ignore[method-assign]
        group.create_task(work())

    app, files = app_with(handler, log)

    async def main() -> None:
        life = Life(app)
        await life.start()
        await post(life).run()
        await settle()
        await life.stop()
        assert log == ["read 8"]
        assert closed(files) == [True]

    run(main())
    assert [record.levelname for record in errors] == ["WARNING"]


def test_event_loop_ends() -> None:
    """A5: The end of the event loop, which cancels the work, closes the uploads."""
    log: list[str] = []

    async def handler(group: AppTaskGroup, file: UploadFile) -> None:
        group.create_task(asyncio.Event().wait)

    app, files = app_with(handler, log)

    async def main() -> None:
        life = Life(app)
        await life.start()
        await post(life).run()
        await settle()

    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        runner.run(main())
    assert closed(files) == [True]


def test_closing_that_fails(errors: list[logging.LogRecord]) -> None:
    """A5: An error of closing the uploads after the work is logged with the request."""
    log: list[str] = []

    async def handler(group: AppTaskGroup, file: UploadFile) -> None:
        async def fail() -> None:
            file.file.close()
            raise OSError("the disk is full")

        file.close = fail  # type: ignore[method-assign]
        group.create_task(settle())

    app, _ = app_with(handler, log)

    async def main() -> None:
        async with Life(app) as life:
            await post(life).run()

    run(main())
    [record] = errors
    assert record.getMessage() == "the closing of uploads, handed over by POST /, failed"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], OSError)


def test_work_after_the_files_were_closed() -> None:
    """A5: Work that a request hands over when its uploads are closed already is work as ever."""
    groups: list[AppTaskGroup] = []
    log: list[str] = []

    async def work() -> None:
        log.append("work done")

    async def handler(group: AppTaskGroup, file: UploadFile) -> None:
        groups.append(group)
        group.create_task(work())

    app, files = app_with(handler, log)

    async def main() -> None:
        async with Life(app) as life:
            await post(life).run()
            await settle()
            assert closed(files) == [True]
            groups[0].create_task(work())
        assert log == ["work done"] * 2

    run(main())


def test_no_cycle_is_left() -> None:
    """A5: Uploads that were handed over go without the garbage collector, with their request."""
    log: list[str] = []
    answered = asyncio.Event()

    async def handler(group: AppTaskGroup, file: UploadFile) -> None:
        group.create_task(reads(file, answered, log))

    app, files = app_with(handler, log)

    def left() -> list[str]:
        kinds = ("Uploads", "AppTaskGroup", "FormData", "UploadFile")
        return [name for each in gc.get_objects() if (name := type(each).__name__) in kinds]

    async def main() -> None:
        async with Life(app) as life:
            await post(life).run()
            answered.clear()
            await post(life).run()  # what one request leaves to the next, such as its last frame
            files.clear()
            gc.collect()
            gc.disable()
            before = left()
            await post(life).run()
            files.clear()
            answered.set()
            await settle()
            assert len(left()) <= len(before)

    try:
        run(main())
    finally:
        gc.enable()
    assert log == ["the file"] * 3


class OtherStack(AsyncExitStack):
    """A stack that keeps its callbacks elsewhere, as that of another Python might."""

    is_hidden = False

    def __getattribute__(self, name: str) -> Any:
        if name == "_exit_callbacks" and self.is_hidden:
            self.is_hidden = False  # from whoever is the first to look
            raise AttributeError(name)
        return super().__getattribute__(name)


def test_stack_that_hides_what_it_holds() -> None:
    """A5: Where nobody can see whether there are uploads, there may be some."""
    log: list[str] = []
    answered = asyncio.Event()

    async def main() -> None:
        app = Starlette()
        install(app)
        async with Life(app) as life:
            passed = life.exchange()
            await passed.run()
            stack = OtherStack()
            stack.callback(log.append, "closed")
            passed.scope[UPLOAD_STACK] = stack
            group = app_task_group(passed.scope)
            async with stack:
                stack.is_hidden = True
                group.create_task(answered.wait())
            assert log == []
            answered.set()
            await settle()
            assert log == ["closed"]

    run(main())


def test_starlettes_form(errors: list[logging.LogRecord]) -> None:
    """A form that the handler itself reads is open for as long as the handler says: the block
    closes it, and without one the work does."""
    log: list[str] = []
    files: Files = []
    go = asyncio.Event()

    async def read(file: StarletteUploadFile) -> None:
        await go.wait()
        log.append((await file.read()).decode())

    async def in_block(request: StarletteRequest) -> Response:
        async with request.form() as fields:
            file = fields["file"]
            assert isinstance(file, StarletteUploadFile)
            app_task_group(request).create_task(read(file), name="in a block")
        return PlainTextResponse("accepted")

    async def without(request: StarletteRequest) -> Response:
        fields = await request.form()

        async def work() -> None:
            try:
                file = fields["file"]
                assert isinstance(file, StarletteUploadFile)
                files.append(file)
                await read(file)
            finally:
                await fields.close()

        app_task_group(request).create_task(work())
        return PlainTextResponse("accepted")

    app = Starlette(
        routes=[
            Route("/block", in_block, methods=["POST"]),
            Route("/without", without, methods=["POST"]),
        ]
    )
    install(app)

    async def main() -> None:
        async with Life(app) as life:
            await post(life, "/block").run()
            await post(life, "/without").run()
            go.set()

    run(main())
    assert log == ["the file"]
    assert closed(files) == [True]
    [record] = errors
    assert record.getMessage() == "in a block, handed over by POST /block, failed"
