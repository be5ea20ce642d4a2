"""Adding a target to the board: who may, and what is refused."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import pytest

from example_app.board import Board
from example_app.limits import MAX_BODY
from example_app.probe import Result, probe
from example_app.settings import Settings
from example_app.targets import MAX_TARGETS, Target
from tests.example_app.support import Running, running

pytestmark = pytest.mark.anyio

Answers = dict[str, int | Exception]


async def first_result(board: Board, name: str) -> Result:
    """Return the first result of a target, as soon as it is there."""
    seen: list[Result] = []
    with board.subscribe() as subscription:
        while not seen:
            await subscription.next()
            seen = next(row.recent for row in board.snapshot().rows if row.target.name == name)
    return seen[0]


async def post(app: Running, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
    target = {"name": "new", "url": "http://new.test/", **body}
    return await app.client.post("/targets", json=target, headers=headers)


async def test_a_target_is_added(settings: Settings, web: Answers) -> None:
    """A new target is answered at once, probed soon, and there after a restart."""
    async with running(settings) as app:
        response = await post(app)
        assert response.status_code == 201
        assert response.json()["url"] == "http://new.test/"
        first = await first_result(app.state["board"], "new")
        assert first.state == "up"
    async with running(settings) as app:
        history = (await app.client.get("/history/new")).json()
    assert first.id in [each["id"] for each in history]


async def test_the_first_probe_outlives_the_response(
    settings: Settings, web: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The response does not wait for the first probe; the shutdown does, and its result is kept."""
    gate, begun = asyncio.Event(), asyncio.Event()

    async def slow_probe(client: httpx.AsyncClient, target: Target) -> Any:
        if target.name == "new":
            begun.set()
            await gate.wait()
        return await probe(client, target)

    monkeypatch.setattr("example_app.state.probe", slow_probe)
    async with running(settings) as app:
        assert (await post(app)).status_code == 201
        await begun.wait()
        asyncio.get_running_loop().call_later(0.01, gate.set)
    async with running(settings) as app:
        assert len((await app.client.get("/history/new")).json()) >= 1


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ({"url": "ftp://new.test/"}, 422, "only http and https"),
        ({"url": "http://u:p@new.test/"}, 422, "password"),
        ({"name": "x/y"}, 422, "without a slash"),
        ({"timeout": 1e9}, 422, "less than or equal to 30"),
        ({"extra": 1}, 422, "not permitted"),
        ({"name": "a"}, 409, "that name already: a"),
    ],
)
async def test_a_bad_target_is_refused(
    settings: Settings, web: Answers, body: dict[str, Any], status: int, reason: str
) -> None:
    """A target that can't be is refused with a reason, and changes nothing."""
    async with running(settings) as app:
        response = await post(app, **body)
        assert response.status_code == status
        assert reason in response.text
        assert list(app.state["board"].targets) == ["a", "b"]


async def test_one_of_two_at_the_same_time_gets_the_name(settings: Settings, web: Answers) -> None:
    """Of two clients that add the same name at once, one is refused."""
    async with running(settings) as app:
        responses = await asyncio.gather(post(app), post(app))
    assert sorted(each.status_code for each in responses) == [201, 409]


async def test_a_board_is_full_at_some_point(settings: Settings, web: Answers) -> None:
    """The number of targets is bounded."""
    async with running(settings) as app:
        for n in range(MAX_TARGETS - 2):
            await app.state["store"].add_target(Target(name=f"t{n}", url="http://t.test/"))
        response = await post(app)
    assert response.status_code == 409
    assert "at most 100 targets" in response.text


async def test_a_board_is_not_filled_by_many_at_once(settings: Settings, web: Answers) -> None:
    """Nor do clients that add targets at the same time put more onto it than it holds."""
    async with running(settings) as app:
        board = app.state["board"]
        for n in range(MAX_TARGETS - len(board.targets) - 1):
            await app.state["store"].add_target(Target(name=f"t{n}", url="http://t.test/"))
        responses = await asyncio.gather(*(post(app, name=name) for name in "xyz"))
        assert sorted(each.status_code for each in responses) == [201, 409, 409]
        assert len(board.targets) == MAX_TARGETS


async def test_a_long_body_is_refused(settings: Settings, web: Answers) -> None:
    """No more of a request body is read than a target needs."""
    read = 0

    async def endless() -> Any:
        nonlocal read
        while True:
            read += 1024
            yield b"x" * 1024

    async with running(settings) as app:
        response = await app.client.post(
            "/targets", content=endless(), headers={"Content-Type": "application/json"}
        )
    assert response.status_code == 413
    assert read <= MAX_BODY + 1024


async def test_a_page_elsewhere_can_not_add_targets(settings: Settings, web: Answers) -> None:
    """Neither by a request to this machine, nor when its own name points to this machine."""
    async with running(settings) as app:
        assert (await post(app, {"Origin": "http://evil.test"})).status_code == 403
        assert (await post(app, {"Origin": "http://127.0.0.1:3000"})).status_code == 403
        assert (await post(app, {"Origin": "http://["})).status_code == 403  # is no origin
        assert (await post(app, {"Origin": "http://127.0.0.1"})).status_code == 201
    async with running(replace(settings, hosts=("*",)), host="evil.test") as app:
        assert (await post(app, {"Origin": "http://evil.test"})).status_code == 403


@pytest.mark.parametrize("header", ["Forwarded", "Via", "X-Forwarded-For", "X-Real-IP"])
async def test_others_behind_a_proxy_can_not_add_targets(
    settings: Settings, web: Answers, header: str
) -> None:
    """A proxy of this machine passes on what others have asked for: that takes the token."""
    async with running(settings) as app:
        assert (await post(app, {header: "192.0.2.1"})).status_code == 403
    async with running(replace(settings, token="secret")) as app:
        headers = {header: "192.0.2.1", "Authorization": "Bearer secret"}
        assert (await post(app, headers)).status_code == 201


async def test_a_public_board_needs_a_token(settings: Settings, web: Answers) -> None:
    """A board that listens for others takes no targets, unless a token is set."""
    async with running(replace(settings, host="0.0.0.0")) as app:
        response = await post(app)
    assert response.status_code == 403
    assert "BOARD_TOKEN" in response.text


async def test_the_token_opens_the_board(settings: Settings, web: Answers) -> None:
    """With a token set, it is what counts: without it 401, with it 201, wherever from."""
    public = replace(settings, host="0.0.0.0", hosts=("board.test",), token="sésame")
    async with running(public, host="board.test") as app:
        assert (await post(app)).status_code == 401
        assert (await post(app, {"Authorization": "Bearer wrong"})).status_code == 401
        right = {b"Authorization": "Bearer sésame".encode("latin-1")}
        response = await post(app, right)  # type: ignore[arg-type]
        assert response.status_code == 201
