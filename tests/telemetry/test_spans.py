"""Spans: which trace the work of a request belongs to."""

from __future__ import annotations

import asyncio
import warnings
from contextvars import Context, ContextVar
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from quattro_web import Pump, install
from quattro_web._request.tasks import RequestGroup
from quattro_web._telemetry.spans import TracedGroup
from quattro_web.fastapi import AppTaskGroup, ConcurrencyLimit, RequestTaskGroup
from quattro_web.testing import AppClient
from tests.support.asgi import run
from tests.tree.looking import Stuck


class Traced:
    """An app that is traced, and its spans."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = provider.get_tracer("of the app")
        self.app = FastAPI(telemetry={"tracer_provider": provider})

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        """Those that have ended, by name."""
        found = self._exporter.get_finished_spans()
        assert len({span.name for span in found}) == len(found)
        return {span.name: span for span in found}

    def parent_of(self, name: str) -> str | None:
        """Return the name of the parent of a span, which has ended after it."""
        span = self.spans[name]
        if span.parent is None:
            return None
        [parent] = [
            other
            for other in self.spans.values()
            if other.context is not None and other.context.span_id == span.parent.span_id
        ]
        assert span.end_time is not None
        assert parent.end_time is not None
        assert span.end_time <= parent.end_time
        return parent.name

    async def work(self, name: str, stuck: Stuck | None = None) -> None:
        """Do something in a span."""
        with self.tracer.start_as_current_span(name):
            await (asyncio.sleep(1) if stuck is None else stuck.wait())


@pytest.fixture
def traced() -> Traced:
    return Traced()


def test_children_are_in_the_span_of_the_request(traced: Traced) -> None:
    """O1: The spans of children are below the request's SERVER span, which ends after them, however
    they are started, and so is the clean-up of background tasks."""

    async def helper() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            with traced.tracer.start_as_current_span("clean-up"):
                await asyncio.sleep(0)

    @traced.app.get("/x/{number}", dependencies=[ConcurrencyLimit(1)])
    async def handler(number: int, tg: RequestTaskGroup) -> list[Any]:
        tg.create_background_task(helper())
        tg.create_task(traced.work("a child"))
        tg.create_task(lambda: traced.work("a function"))
        return [
            *await tg.gather(traced.work("gathered")),
            *[each async for each in tg.map(traced.work, ["mapped"], limit=2)],
        ]

    install(traced.app)

    async def main() -> None:
        async with AppClient(traced.app) as client:
            await client.get("/x/1")
        for name in ("a child", "a function", "gathered", "mapped", "clean-up"):
            assert traced.parent_of(name) == "GET /x/{number}"

    run(main())


def test_span_of_the_apps_own_stays(traced: Traced) -> None:
    """O1: Where the app has opened a span around them, children are below that one."""

    @traced.app.get("/")
    async def handler(tg: RequestTaskGroup) -> None:
        with traced.tracer.start_as_current_span("fan-out"):
            await tg.gather(traced.work("a child"))

    install(traced.app)

    async def main() -> None:
        async with AppClient(traced.app) as client:
            await client.get("/")
        assert traced.parent_of("a child") == "fan-out"
        assert traced.parent_of("fan-out") == "fastapi.endpoint"

    run(main())


def test_context_of_the_apps_own(traced: Traced) -> None:
    """O1: A child runs in the context that it is given, also in an empty one."""
    variable: ContextVar[str] = ContextVar("variable", default="nothing")
    seen = []

    async def child() -> None:
        seen.append(variable.get())

    @traced.app.get("/")
    async def handler(tg: RequestTaskGroup) -> None:
        variable.set("the handler's")
        tg.create_task(child(), context=Context())
        tg.create_background_task(child(), context=Context())
        tg.create_task(child())
        await asyncio.sleep(1)

    install(traced.app)

    async def main() -> None:
        async with AppClient(traced.app) as client:
            await client.get("/")
        assert sorted(seen) == ["nothing", "nothing", "the handler's"]

    run(main())


def test_handed_over_work_has_its_own_trace(traced: Traced) -> None:
    """O1: Handed-over work is the root of a trace of its own, which is linked to the request."""

    async def fails() -> None:
        raise ZeroDivisionError

    @traced.app.get("/")
    async def handler(app_tg: AppTaskGroup) -> None:
        app_tg.create_task(traced.work("its own span"), name="mail")
        app_tg.create_task(fails(), name="fails")

    install(traced.app)

    async def main() -> None:
        async with AppClient(traced.app, raise_app_exceptions=False) as client:
            await client.get("/")
            await client.wait_work_done()
        assert traced.parent_of("its own span") == "mail"
        for name in ("mail", "fails"):
            span, request = traced.spans[name], traced.spans["GET /"]
            assert span.parent is None
            [link] = span.links
            assert span.context is not None
            assert request.context is not None
            assert link.context.trace_id == request.context.trace_id != span.context.trace_id
            assert dict(span.attributes or {})["quattro.task.kind"] == "handed_over"
        assert traced.spans["mail"].status.status_code is StatusCode.UNSET
        assert traced.spans["fails"].status.status_code is StatusCode.ERROR
        assert dict(traced.spans["fails"].attributes or {})["error.type"] == "ZeroDivisionError"

    run(main())


def test_pumps_are_in_no_span(traced: Traced) -> None:
    """O1: A pump is in no span, also where the program that starts the app is in one."""
    seen = []

    async def pump() -> None:
        seen.append(trace.get_current_span().get_span_context().is_valid)
        await traced.work("a round")

    install(traced.app, pumps=[Pump(pump, on_return="ok")])

    async def main() -> None:
        with traced.tracer.start_as_current_span("the program"):
            async with AppClient(traced.app):
                await asyncio.sleep(2)
        assert seen == [False]
        assert traced.parent_of("a round") is None

    run(main())


def test_a_span_for_each_child(traced: Traced) -> None:
    """O1: With ``child_spans=True`` each child has a span, which says whether it has failed or was
    cancelled."""

    async def fails() -> None:
        await asyncio.sleep(1)
        raise HTTPException(404)

    async def cancelled() -> None:
        await asyncio.Event().wait()

    async def fine() -> int:
        return 1

    @traced.app.get("/")
    async def handler(tg: RequestTaskGroup) -> None:
        tg.create_background_task(cancelled(), name="helper")
        tg.create_task(cancelled)
        await tg.gather(fine())
        tg.create_task(fails())

    install(traced.app, child_spans=True)

    async def main() -> None:
        async with AppClient(traced.app) as client:
            assert (await client.get("/")).status_code == 404
        where = f"{test_a_span_for_each_child.__name__}.<locals>"
        attributes = {name: dict(span.attributes or {}) for name, span in traced.spans.items()}
        assert attributes["helper"] == {
            "quattro.task.kind": "background",
            "quattro.task.cancelled": True,
        }
        assert attributes[f"{where}.cancelled"] == {
            "quattro.task.kind": "foreground",
            "quattro.task.cancelled": True,
        }
        assert attributes[f"{where}.fine"] == {"quattro.task.kind": "foreground"}
        assert attributes[f"{where}.fails"] == {
            "quattro.task.kind": "foreground",
            "error.type": "fastapi.exceptions.HTTPException",
        }
        for name in ("helper", *(f"{where}.{each}" for each in ("cancelled", "fine", "fails"))):
            assert traced.parent_of(name) == "GET /"
            status = traced.spans[name].status.status_code
            assert (status is StatusCode.ERROR) == name.endswith("fails")

    run(main())


def test_child_that_never_begins(traced: Traced) -> None:
    """O1: A child that is cancelled before it has begun, or is refused, leaves nothing behind."""

    async def child() -> None:
        raise AssertionError

    @traced.app.get("/", dependencies=[ConcurrencyLimit(1)])
    async def handler(tg: RequestTaskGroup) -> None:
        running = tg.create_task(asyncio.sleep(1))
        tg.create_task(child()).cancel()
        tg.create_task(child()).cancel()
        await running
        nothing: Any = 5
        with pytest.raises(TypeError, match="a coroutine was expected"):
            tg.create_task(nothing)
        tg.cancel()
        with pytest.raises(RuntimeError):
            tg.create_task(child())

    install(traced.app, child_spans=True)

    async def main() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            async with AppClient(traced.app, raise_app_exceptions=False) as client:
                await client.get("/")

    run(main())


def test_without_a_tracer() -> None:
    """O2: Without a tracer the group of a request is the plain one."""
    groups = []
    app = FastAPI()

    @app.get("/")
    async def handler(tg: RequestTaskGroup) -> None:
        groups.append(tg)

    install(app, child_spans=True)

    async def main() -> None:
        async with AppClient(app) as client:
            await client.get("/")
        assert type(groups[0]) is RequestGroup

    run(main())


@dataclass(frozen=True)
class FrozenError(Exception):
    text: str


def test_error_that_refuses_attributes(traced: Traced, caplog: pytest.LogCaptureFixture) -> None:
    """O1, A2: A span changes nothing about an error that refuses what is set on it."""

    async def fails() -> None:
        raise FrozenError("of a child")

    async def fails_later() -> None:
        raise FrozenError("handed over")

    @traced.app.get("/")
    async def handler(tg: RequestTaskGroup, app_tg: AppTaskGroup) -> str:
        app_tg.create_task(fails_later())
        try:
            await tg.create_task(fails())
        except FrozenError as exc:
            return exc.text
        return ""

    install(traced.app, child_spans=True)

    async def main() -> None:
        async with AppClient(traced.app, raise_app_exceptions=False) as client:
            await client.get("/")
            await client.wait_work_done()

    run(main())
    [record] = [record for record in caplog.records if "handed over by" in record.getMessage()]
    assert record.exc_info is not None
    assert record.exc_info[1] == FrozenError("handed over")


def test_arguments_of_a_function() -> None:
    """R12: Arguments that are given as to a thread are the same error in a request that is
    traced."""

    async def work() -> None: ...

    async def main() -> None:
        async with TracedGroup() as group:
            creates: list[Any] = [group.create_task, group.create_background_task]
            for create in creates:
                with pytest.raises(TypeError, match=r"as in create_\w+\(work\(3\)\)"):
                    create(work, 3)

    run(main())
