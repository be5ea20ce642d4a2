"""Changing, pausing and deleting a target: who may, and what follows from it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

import example_app.pumps
from example_app.settings import Settings
from example_app.state import show_targets
from example_app.targets import Target
from tests.example_app.support import result, running

pytestmark = pytest.mark.anyio

Answers = dict[str, int | Exception]

CHANGED = {"url": "http://other.test/", "slow_after": 2.0}
EVERY_CHANGE = [("POST", "/targets"), ("PUT", "/targets/a"), ("DELETE", "/targets/a")]


async def test_a_target_is_changed(settings: Settings, web: Answers) -> None:
    """A change is answered, is on the board at once, counts for the next probe, and stays."""
    web["other.test"] = 503
    async with running(settings) as app:
        response = await app.client.put("/targets/a", json=CHANGED)
        assert response.json() == (await app.client.get("/targets")).json()[0]["target"]
        [seen] = (await app.client.get("/check?target=a")).json()
        assert seen["status"] == 503
    async with running(settings) as app:
        first, second = (await app.client.get("/targets")).json()
        assert first["target"] == {
            "name": "a", "url": "http://other.test/", "timeout": 5.0, "slow_after": 2.0,
            "failures": 3, "group": "", "paused": False,
        }  # fmt: skip
        assert second["target"]["name"] == "b"


async def test_a_target_is_paused(settings: Settings, web: Answers) -> None:
    """A paused target is not probed, whoever asks; its history stays."""
    async with running(settings) as app:
        kept = result("a", at=time.time())
        await app.state["store"].save([kept])
        await app.client.put("/targets/a", json={**CHANGED, "paused": True})
        response = await app.client.get("/check?target=b&target=a")
        assert (response.status_code, response.json()["detail"]) == (
            409,
            "this target is paused: a",
        )
        assert kept.id in [each["id"] for each in (await app.client.get("/history/a")).json()]
        await app.client.put("/targets/a", json=CHANGED)
        assert (await app.client.get("/check?target=a")).status_code == 200


async def test_a_target_that_begins_paused(settings: Settings, web: Answers) -> None:
    """One that is added as paused is not probed by that either."""
    async with running(settings) as app:
        new = {"name": "new", "url": "http://new.test/", "paused": True}
        assert (await app.client.post("/targets", json=new)).status_code == 201
    async with running(settings) as app:
        assert (await app.client.get("/history/new")).json() == []


async def test_a_target_is_deleted(settings: Settings, web: Answers) -> None:
    """It is gone from the board, with its history, also after a restart."""
    async with running(settings) as app:
        response = await app.client.delete("/targets/a")
        assert (response.status_code, response.content) == (204, b"")
        assert list(app.state["board"].targets) == ["b"]
        assert (await app.client.get("/history/a")).status_code == 404
        assert (await app.client.delete("/targets/a")).status_code == 404
    async with running(settings) as app:
        assert list(app.state["board"].targets) == ["b"]


@pytest.mark.parametrize(
    ("name", "body", "status", "reason"),
    [
        ("a", {"url": "ftp://a.test/"}, 422, "only http and https"),
        ("a", {"url": "http://u:p@a.test/"}, 422, "password"),
        ("a", {"url": "http://a.test/", "name": "b"}, 422, "not permitted"),
        ("c", CHANGED, 404, "configured: 'c'"),
    ],
)
async def test_a_bad_change_is_refused(
    settings: Settings, web: Answers, name: str, body: dict[str, object], status: int, reason: str
) -> None:
    """What can't be is refused with a reason, and changes nothing."""
    async with running(settings) as app:
        before = (await app.client.get("/targets")).json()
        response = await app.client.put(f"/targets/{name}", json=body)
        assert response.status_code == status
        assert reason in response.text
        assert (await app.client.get("/targets")).json() == before


async def test_a_target_that_is_just_gone(settings: Settings, web: Answers) -> None:
    """A target that another process has deleted is not made anew by a change."""
    async with running(settings) as app:
        await app.state["store"].delete_target("a")
        assert (await app.client.put("/targets/a", json=CHANGED)).status_code == 404
        assert [target.name for target in await app.state["store"].targets()] == ["b"]


async def test_what_was_read_first_is_not_shown_last(
    settings: Settings, web: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list of targets that is late puts nothing back that was changed meanwhile."""
    monkeypatch.setattr(example_app.pumps, "FOLLOW_EVERY", 3600)
    async with running(settings) as app:
        store = app.state["store"]
        read, go_on = asyncio.Event(), asyncio.Event()
        targets = store.targets

        async def late() -> list[Target]:
            found = await targets()
            read.set()
            await go_on.wait()
            return found

        with monkeypatch.context() as patch:
            patch.setattr(store, "targets", late)
            first = asyncio.create_task(show_targets(app.state))
            await read.wait()
        await store.delete_target("a")
        second = asyncio.create_task(show_targets(app.state))
        await store.last_number()  # whatever the second one has read is there, too
        go_on.set()
        await asyncio.gather(first, second)
        assert list(app.state["board"].targets) == ["b"]


async def test_other_processes_follow(
    settings: Settings, web: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another process has changed or deleted is on the board of this one soon."""
    monkeypatch.setattr(example_app.pumps, "FOLLOW_EVERY", 0.01)
    changed = Target(name="b", url="http://b.test/", paused=True)
    async with running(settings) as app:
        with app.state["board"].subscribe() as subscription:
            await app.state["store"].delete_target("a")
            await app.state["store"].change_target(changed)
            while app.state["board"].targets != {"b": changed}:
                await subscription.next()


@pytest.mark.parametrize(("method", "path"), EVERY_CHANGE)
async def test_who_may_change(settings: Settings, web: Answers, method: str, path: str) -> None:
    """Every change is for those with the token; without one, for this machine and the board's own
    page alone, and by no other name."""
    body = {"url": "http://new.test/", **({"name": "new"} if method == "POST" else {})}

    async def status(settings: Settings, host: str = "127.0.0.1", **headers: str) -> int:
        async with running(settings, host=host) as app:
            headers = {name.replace("_", "-"): value for name, value in headers.items()}
            content = {} if method == "DELETE" else {"json": body}
            response = await app.client.request(method, path, headers=headers, **content)  # type: ignore[arg-type]
            assert response.is_success or [*app.state["board"].targets] == ["a", "b"]
            return response.status_code

    assert await status(settings, Origin="http://evil.test") == 403
    assert await status(settings, Origin="http://127.0.0.1:3000") == 403
    assert await status(settings, X_Forwarded_For="192.0.2.1") == 403
    assert await status(settings, host="evil.test") == 400
    assert await status(replace(settings, hosts=("*",)), host="evil.test") == 403
    assert await status(replace(settings, host="0.0.0.0")) == 403
    closed = replace(settings, token="secret")
    assert await status(closed) == 401
    assert await status(closed, Authorization="Bearer wrong") == 401
    assert await status(closed, Authorization="Bearer secret") in {200, 201, 204}
