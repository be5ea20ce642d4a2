"""How much work may be handed over, and by which name the log knows it."""

import asyncio
import logging

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette

from quattro_web import install
from quattro_web.fastapi import AppTaskGroup
from tests.app.apps import settle
from tests.support.asgi import run
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
        ({"app_concurrency_limit": 0}, "must be at least 1, got 0"),
        ({"app_max_waiting": 5}, "app_max_waiting=5 needs an app_concurrency_limit"),
        ({"app_concurrency_limit": 1, "app_max_waiting": -1}, "must be at least 0, got -1"),
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
