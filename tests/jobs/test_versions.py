"""Two releases side by side: what web and worker say of the versions of a job that they know."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import warnings
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

pytest.importorskip("docket", reason="pydocket is missing: pip install 'quattro-web[docket]'")

from pydantic import BaseModel, Field

from quattro_web._jobs.docket_engine import _DocketConnection
from quattro_web._jobs.wire import FunctionTypes
from quattro_web.jobs import Job, RemoteError, UnknownJobError
from tests.jobs.functions import Functions, log, until
from tests.jobs.test_children import working

Function = Callable[..., Coroutine[Any, Any, Any]]


class Cover(BaseModel):
    """A cover."""

    title: str
    tags: set[str] = Field(default={"a", "b", "c", "d"}, description="A default has no order.")


async def render(page: int) -> str:
    return f"page {page}"


async def render_with_more(page: int, size: int = 4) -> str:
    return f"page {page} of {size}"


async def render_with_need(page: int, size: int) -> str: ...  # type: ignore[empty-body]


async def render_number(page: int) -> int: ...  # type: ignore[empty-body]


async def render_cover(cover: Cover) -> str: ...  # type: ignore[empty-body]


async def render_odd(call: Callable[[int], int]) -> str: ...  # type: ignore[empty-body]


class Partly(BaseModel):
    """Of this, a schema says a part."""

    what: int | Callable[[int], int] = 3
    default: Any = object()


async def render_partly(what: Partly) -> None: ...


class Releases:
    """A web process of one release, and a worker of another."""

    def __init__(self, url: str, name: str) -> None:
        self.web, self.worker = Functions(url, name), Functions(url, name)

    def job(self, web: Function, worker: Function, *versions: str | None) -> Job[..., Any]:
        of_web, of_worker = versions or (None, None)
        self.worker.jobs.job(name="render", version=of_worker, max_attempts=1)(worker)
        return self.web.jobs.job(name="render", version=of_web, max_attempts=1)(web)

    def play(self, scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            async with self.web.jobs.open(), working(self.worker):
                await scene()

        asyncio.run(main())


@pytest.fixture
def releases(url: str, name: str) -> Releases:
    return Releases(url, name)


def test_change_that_fits(releases: Releases, errors: list[logging.LogRecord]) -> None:
    """D3: An argument more, with a default, is no error between two releases, and the worker says
    once that there are two."""
    job = releases.job(render, render_with_more)

    async def scene() -> None:
        assert [await job.remote(n) for n in range(3)] == [f"page {n} of 4" for n in range(3)]

    releases.play(scene)
    (said,) = [e.getMessage() for e in errors if " version " in e.getMessage()]
    assert "render" in said
    assert job.version in said
    assert releases.worker.jobs._jobs["render"].version in said


def test_same_version_says_nothing(releases: Releases, errors: list[logging.LogRecord]) -> None:
    """D3: Where web and worker know the same version, nothing is said of it."""
    job = releases.job(render, render, "2", "2")

    async def scene() -> None:
        assert await job.remote(1) == "page 1"

    releases.play(scene)
    assert job.version.startswith("2/")
    assert not [e for e in errors if " version " in e.getMessage()]


@pytest.mark.parametrize(
    ("web", "args", "what"),
    [
        (render_with_more, (1, 2), "size"),
        (render_cover, (Cover(title="x"),), "cover"),
    ],
)
def test_arguments_of_another_version(
    releases: Releases, web: Function, args: tuple[Any, ...], what: str
) -> None:
    """D3: Arguments that do not fit are a 503 which names the two versions, and what is wrong."""
    job = releases.job(web, render)

    async def scene() -> None:
        with pytest.raises(UnknownJobError) as caught:
            await job.remote(*args)
        text = str(caught.value)
        assert "has another version of render" in text
        assert job.version in text
        assert releases.worker.jobs._jobs["render"].version in text
        assert what in text
        assert caught.value.status_code == 503
        assert await releases.web.double.remote(1) == 2

    releases.play(scene)


def test_argument_that_is_missing(releases: Releases) -> None:
    """D3: An argument that only the worker needs is a 503 which names it."""
    job = releases.job(render, render_with_need)

    async def scene() -> None:
        with pytest.raises(UnknownJobError, match=r"another version of render.*'size'"):
            await job.remote(1)

    releases.play(scene)


def test_result_of_another_version(releases: Releases) -> None:
    """D3: A result that does not fit is a RemoteError that names the two versions."""
    job = releases.job(render_number, render)

    async def scene() -> None:
        with pytest.raises(RemoteError, match="has another version of render") as caught:
            await job.remote(1)
        assert job.version in str(caught.value)
        assert "valid integer" in str(caught.value)

    releases.play(scene)


@pytest.mark.parametrize("versions", [("2", "1"), ("2", None), (None, "2")])
def test_version_that_was_given(releases: Releases, versions: tuple[str | None, ...]) -> None:
    """D3: A version that was given is another job: it is not run where the worker has another."""
    job = releases.job(render, render, *versions)

    async def scene() -> None:
        with pytest.raises(UnknownJobError, match="another version of render"):
            await job.remote(1)

    releases.play(scene)


def test_handed_over_for_another_version(
    releases: Releases, errors: list[logging.LogRecord]
) -> None:
    """D4: Workers of another release, which can't run a job, take none of its attempts."""

    async def done(page: int, size: int) -> None:
        log.append(f"page {page} of {size}")

    job = releases.job(done, render)

    async def scene() -> None:
        await releases.web.jobs.hand_over(job.call(1, 2))
        await until(lambda: sum("another version" in e.getMessage() for e in errors) >= 3)

    async def main() -> None:
        async with releases.web.jobs.open():
            async with working(releases.worker):
                await scene()
            async with working(releases.web):
                await until(lambda: log == ["page 1 of 2"])
            assert await releases.web.jobs.failed() == []

    asyncio.run(main())


def test_handed_over_for_no_version(
    url: str, name: str, monkeypatch: pytest.MonkeyPatch, errors: list[logging.LogRecord]
) -> None:
    """D4: A job that no worker has known for a day after it was handed over has failed for good."""
    submit = _DocketConnection.submit

    async def submit_of_yesterday(self: Any, calls: Any) -> Any:
        for call in calls:
            header, _, body = call.payload.partition(b"\n")
            at = float(header.partition(b'"at": ')[2].partition(b",")[0].rstrip(b"}"))
            earlier = header.replace(str(at).encode(), str(at - 25 * 3600).encode())
            assert earlier != header
            object.__setattr__(call, "payload", earlier + b"\n" + body)
        return await submit(self, calls)

    monkeypatch.setattr(_DocketConnection, "submit", submit_of_yesterday)

    async def main() -> None:
        new, old = Functions(url, name), Functions(url, name)
        job = new.jobs.job(name="new", max_attempts=5)(render)
        async with new.jobs.open(), working(old):
            await new.jobs.hand_over(job.call(1))
            async with asyncio.timeout(60):
                while not (failed := await new.jobs.failed()):
                    await asyncio.sleep(0.01)
        assert failed[0].error.endswith("knows no job new")

    asyncio.run(main())


def test_versions_tell_what_travels() -> None:
    """D3: A version says which arguments there are and of which types, and is another one when
    one of them changes, or is needed; the name of the function and its texts are not part of it."""
    functions: list[Function] = [
        render,
        render_with_more,
        render_with_need,
        render_number,
        render_cover,
    ]
    assert len({FunctionTypes(each).version for each in functions}) == len(functions)

    async def another(page: int) -> str:  # type: ignore[empty-body]
        """Return something else."""

    assert FunctionTypes(another).version == FunctionTypes(render).version


def test_version_says_nothing_to_users() -> None:
    """D3: What has no schema, or not for all of it, has a version without a word about that."""

    with warnings.catch_warnings(record=True, action="always") as said:
        assert len({FunctionTypes(each).version for each in (render_partly, render_odd)}) == 2
    assert not said


def test_versions_are_the_same_everywhere() -> None:
    """D3: Each process comes to the same version of a function, also where pydantic has no schema
    for a type, and where a default has no order."""
    code = (
        "from tests.jobs.test_versions import *\n"
        "print(*[FunctionTypes(f).version for f in (render_cover, render_odd, render_with_more)])"
    )
    said = set()
    for seed in "123":
        env = {"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        said.add(done.stdout.strip())
    assert len(said) == 1
    assert len(set(said.pop().split())) == 3
