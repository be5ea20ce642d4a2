"""Children of requests that wait for children under a limit."""

from __future__ import annotations

import asyncio

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from quattro_web import install, request_task_group
from quattro_web.testing import AppClient, VirtualClockLoop

Options = dict[str, int]


async def leaf() -> int:
    await asyncio.sleep(1)
    return 1


async def branch(request: Request) -> int:
    return sum(await request_task_group(request).gather(leaf(), leaf()))


async def gathers(request: Request) -> Response:
    group = request_task_group(request)
    return JSONResponse(sum(await group.gather(branch(request), branch(request))))


async def awaits(request: Request) -> Response:
    async def child() -> int:
        return await request_task_group(request).create_task(leaf())

    return JSONResponse(await request_task_group(request).create_task(child()))


async def statuses(requests: int, path: str, options: Options) -> list[tuple[int, str]]:
    """Make some requests at once; return what is answered."""
    app = Starlette(routes=[Route("/gathers", gathers), Route("/awaits", awaits)])
    install(app, **options)  # type: ignore[arg-type]
    async with AppClient(app, raise_app_exceptions=False) as client:
        responses = await asyncio.gather(*[client.get(path) for _ in range(requests)])
        return [(response.status_code, response.text) for response in responses]


@pytest.mark.parametrize(
    ("requests", "options"),
    [(3, {"total_limit": 3}), (1, {"concurrency_limit": 2}), (3, {"total_limit": 1})],
)
def test_children_that_gather_children(requests: int, options: Options) -> None:
    """C4: Requests whose children gather children are answered under any limit."""
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        answers = runner.run(statuses(requests, "/gathers", options))
    assert answers == [(200, "4")] * requests


def test_children_that_wait_by_hand(caplog: pytest.LogCaptureFixture) -> None:
    """C4, R4: A request whose children wait by hand for others that never get a slot is answered
    with a 500, and the log tells why; the other one goes on."""
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        answers = runner.run(statuses(2, "/awaits", {"total_limit": 2}))
    assert sorted(status for status, _ in answers) == [200, 500]
    assert "LimitDeadlockError: every slot of SharedLimit(2) is taken" in caplog.text
