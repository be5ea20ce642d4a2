"""How much work may be handed over, and by which name the log knows it."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, assert_type

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette

from quattro_web import AppBusyError, app_health, install
from quattro_web.fastapi import AppTaskGroup
from tests.support.apps import settle
from tests.support.asgi import run
from tests.support.clock import VirtualClockLoop
from tests.support.lifespan import Life


def app_with(**options: int) -> tuple[FastAPI, list[str]]:
    app = FastAPI()
    log: list[str] = []

    @app.get("/{number}")
    async def handler(number: str, group: AppTaskGroup) -> str:
        async def work() -> None:
            log.append(f"{number} begins")
            await asyncio.sleep(1)
            log.append(f"{number} ends")

        group.create_task(work)
        return "accepted"

    install(app, **options)  # type: ignore[arg-type]
    return app, log


def test_one_after_the_other() -> None:
    """A5: With a limit, so much handed-over work runs at once, and the rest waits its turn; at
    shutdown, too."""
    app, log = app_with(app_concurrency_limit=1)

    async def main() -> None:
        async with Life(app) as life:
            for number in "12":
                assert (await life.get(f"/{number}")).status == 200
            await settle()
            assert log == ["1 begins"]

    run(main())
    assert log == ["1 begins", "1 ends", "2 begins", "2 ends"]


def test_work_that_waits_for_work(errors: list[logging.LogRecord]) -> None:
    """A5: Where all work that runs waits by hand for work that has no room, one of the latter
    fails, and with it who waits for it: that is logged, makes room, and stops nothing else."""
    app, log = app_with(app_concurrency_limit=2)
    inners: list[asyncio.Task[None]] = []

    async def main() -> None:
        async with Life(app) as life:
            group = await life.group()

            async def inner() -> None:
                log.append("inner work")

            async def outer() -> None:
                inners.append(group.create_task(inner()))
                await inners[-1]
                log.append("outer work")

            group.create_tasks(outer, outer)
            await asyncio.sleep(60)
            failures = [inner.exception() for inner in inners]
            assert sorted(type(each).__name__ for each in failures) == [
                "LimitDeadlockError",
                "NoneType",
            ]
            assert (await life.get("/1")).status == 200
            await asyncio.sleep(2)
            health = app_health(app)
            assert (health.is_ready, health.tasks, health.failed_tasks) == (True, 0, 2)

    run(main())
    assert log == ["inner work", "outer work", "1 begins", "1 ends"]
    names = [record.getMessage().partition(", ")[0].rpartition(".")[2] for record in errors]
    assert names == ["inner", "outer"]
    assert "every slot" in logging.Formatter().format(errors[1])


def test_full_room_is_an_error_for_the_handler() -> None:
    """A5: When as much is waiting as may, the request that hands over more is answered with a 503:
    nothing is dropped in silence."""
    app, log = app_with(app_concurrency_limit=1, app_max_waiting=1)

    async def main() -> None:
        async with Life(app) as life:
            statuses = [(await life.get(f"/{number}")).status for number in "123"]
            refused = await life.get("/4")
            assert statuses == [200, 200, 503]
            assert refused.headers["retry-after"] == "1"

    run(main())
    assert log == ["1 begins", "1 ends", "2 begins", "2 ends"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"app_concurrency_limit": 0}, "must be >= 1, got 0"),
        ({"app_max_waiting": 5}, "app_max_waiting=5 needs an app_concurrency_limit"),
        ({"app_concurrency_limit": 1, "app_max_waiting": -1}, "must be >= 0, got -1"),
    ],
)
def test_bad_limits(options: dict[str, int], message: str) -> None:
    """A5: A limit that is none is an error at once, that names it."""
    with pytest.raises(ValueError, match=message):
        install(Starlette(), **options)  # type: ignore[arg-type]


def test_log_has_the_id_of_the_request(errors: list[logging.LogRecord]) -> None:
    """A5: The failure of handed-over work is logged with the route and the id of its request."""
    app = FastAPI()

    @app.post("/orders")
    async def handler(group: AppTaskGroup) -> None:
        async def work() -> None:
            raise ZeroDivisionError

        group.create_task(work, name="mail")

    install(app)

    async def main() -> None:
        async with Life(app) as life:
            headers = [("X-Request-ID", "abc-1")]
            await life.exchange("/orders", method="POST", headers=headers).run()

    run(main())
    [record] = errors
    assert record.getMessage() == ("mail, handed over by POST /orders (request id 'abc-1'), failed")


def mail(log: list[str], number: int) -> Callable[[], Any]:
    async def work() -> int:
        log.append(f"{number} begins")
        await asyncio.sleep(1)
        return number

    return work


def handed_over(
    hand_over: Callable[[AppTaskGroup], Any], *, options: dict[str, int] | None = None
) -> None:
    """Hand work over in one run of an app."""

    async def main() -> None:
        app = Starlette()
        install(app, **options or {})  # type: ignore[arg-type]
        async with Life(app) as life:
            hand_over(await life.group())

    run(main())


def test_refused_work_leaves_the_rest() -> None:
    """A5: When one hand-over of several is refused, those before it go on."""
    log: list[str] = []

    def hand_over(group: AppTaskGroup) -> None:
        group.create_task(mail(log, 1))
        told = "1 handed-over tasks .* 0 are waiting, .* for 1: .* app_max_waiting, which is 0"
        with pytest.raises(AppBusyError, match=told):
            group.create_task(mail(log, 2))

    handed_over(hand_over, options={"app_concurrency_limit": 1, "app_max_waiting": 0})
    assert log == ["1 begins"]


@pytest.mark.parametrize("before", [0, 1, 2, 3])
def test_all_or_none(before: int) -> None:
    """A5: Several pieces of work are handed over all together, or none of them is."""
    log: list[str] = []
    room = 4 - before

    def hand_over(group: AppTaskGroup) -> None:
        for _ in range(before):
            group.create_task(mail(log, 0))
        with pytest.raises(AppBusyError, match=f"room for {room} more, and not for {room + 1}"):
            group.create_tasks(*(mail(log, number)() for number in range(1, room + 2)))
        tasks = group.create_tasks(*(mail(log, 9) for _ in range(room)))
        assert len(tasks) == room

    handed_over(hand_over, options={"app_concurrency_limit": 2, "app_max_waiting": 2})
    assert log == ["0 begins"] * before + ["9 begins"] * room


@pytest.mark.parametrize("options", [{}, {"app_concurrency_limit": 1}])
def test_all_without_a_bound(options: dict[str, int]) -> None:
    """A5: Where nothing bounds how much may wait, there is room for all."""
    log: list[str] = []
    handed_over(
        lambda group: group.create_tasks(*(mail(log, number) for number in range(5))),
        options=options,
    )
    assert log == [f"{number} begins" for number in range(5)]


def test_all_have_their_results() -> None:
    """A5: What hands all over returns their tasks, in their order, and mypy knows their results."""

    async def work() -> int:
        return 5

    async def main() -> None:
        app = Starlette()
        install(app)
        async with Life(app) as life:
            group = await life.group()
            tasks = group.create_tasks(work(), work)
            assert_type(tasks, tuple[asyncio.Task[int | None], ...])
            assert [await task for task in tasks] == [5, 5]
            assert group.create_tasks() == ()

    run(main())


def test_one_of_all_is_no_work() -> None:
    """A5: If one of several is no work, none is handed over, and nothing is left of the others."""
    log: list[str] = []

    def hand_over(group: AppTaskGroup) -> None:
        with pytest.raises(TypeError, match="a coroutine was expected"):
            group.create_tasks(mail(log, 1)(), 5, mail(log, 2)())  # type: ignore[arg-type]

    handed_over(hand_over)
    assert log == []


def test_all_after_the_shutdown() -> None:
    """A5: When the app has shut down, handing several over is an error; nothing is left."""
    groups: list[AppTaskGroup] = []
    handed_over(groups.append)
    with pytest.raises(RuntimeError, match="the app has shut down"):
        groups[0].create_tasks(mail([], 1)(), mail([], 2)())


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="needs Python 3.12")
def test_eager_work_that_takes_the_room_of_the_next() -> None:
    """A5: If the first of several hands more over at once, so that there is no room any more, it is
    cancelled, and none is left."""
    log: list[str] = []

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
        app = Starlette()
        install(app, app_concurrency_limit=2, app_max_waiting=0)
        async with Life(app) as life:
            group = await life.group()

            async def greedy() -> None:
                group.create_task(mail(log, 2))
                await asyncio.Event().wait()

            with pytest.raises(AppBusyError):
                group.create_tasks(greedy(), mail(log, 3)())

    run(main())
    assert log == ["2 begins"]


async def newsletter() -> None: ...


def test_log_names_what_waits_at_a_shutdown(errors: list[logging.LogRecord]) -> None:
    """A6: Work that waits for its turn when the shutdown cancels it is named in the log by its
    function, as not started."""
    handed_over(
        lambda group: group.create_tasks(asyncio.Event().wait, newsletter(), newsletter),
        options={"app_concurrency_limit": 1},
    )
    [record] = errors
    running, *waiting = record.getMessage().split("; ")
    assert "Event.wait, handed over by GET / " in running
    assert len(waiting) == 2
    for line in waiting:
        assert line.startswith("newsletter, handed over by GET / ")
        assert line.endswith("(not started)")


def test_log_names_what_waits_when_the_event_loop_ends(errors: list[logging.LogRecord]) -> None:
    """A5: Work that waits for its turn when the event loop ends is named in the log as lost."""

    async def main() -> None:
        app = Starlette()
        install(app, app_concurrency_limit=1)
        life = Life(app)
        await life.start()
        (await life.group()).create_tasks(asyncio.Event().wait, newsletter())
        await settle()

    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        runner.run(main())
    lost = (
        "newsletter, handed over by GET /, was cancelled unfinished, because the event loop ended"
    )
    assert lost in [record.getMessage() for record in errors]


def test_asyncio_names_the_function() -> None:
    """A5: Where asyncio names a piece of handed-over work, as in its debug mode, it is by the
    function that was handed over."""
    names: list[str] = []

    def hand_over(group: AppTaskGroup) -> None:
        names.extend(map(repr, group.create_tasks(newsletter_of("ada"), asyncio.Event().wait)))

    handed_over(hand_over)
    assert "coro=<newsletter_of()" in names[0]
    assert "coro=<Event.wait()" in names[1]


async def newsletter_of(reader: str) -> None: ...
