"""What the board does right now: its task page and its metrics, and who may see them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from example_app.settings import Settings
from tests.example_app.support import running

pytestmark = pytest.mark.anyio

PATHS = ["/tasks", "/tasks/", "/metrics"]


@pytest.mark.parametrize("path", PATHS)
async def test_who_has_the_token(settings: Settings, path: str) -> None:
    """O2: Where there is a token, it lets in, in the address or in a header, and nothing else does:
    not even to be on the same machine."""
    async with running(replace(settings, token="secret")) as app:
        assert (await app.client.get(path)).status_code == 401
        assert (await app.client.get(path, params={"token": "secre"})).status_code == 401
        wrong = await app.client.get(path, headers={"Authorization": "Bearer"})
        assert wrong.status_code == 401
        assert (await app.client.get(path, params={"token": "secret"})).status_code == 200
        headers = {"Authorization": "Bearer secret"}
        assert (await app.client.get(path, headers=headers)).status_code == 200


@pytest.mark.parametrize("path", PATHS)
async def test_without_a_token(settings: Settings, path: str) -> None:
    """O2: Without a token only this machine sees them, and not through a proxy."""
    async with running(settings) as app:
        assert (await app.client.get(path)).status_code == 200
        passed_on = await app.client.get(path, headers={"X-Forwarded-For": "192.0.2.1"})
        assert passed_on.status_code == 403
        assert "shows its tasks on its own machine only" in passed_on.json()["detail"]


async def test_what_is_seen(settings: Settings) -> None:
    """O1: The pumps of the board are on the page's snapshot, and in its metrics."""
    async with running(settings) as app:
        tasks = (await app.client.get("/tasks")).json()
        pumps = {pump["name"] for pump in tasks["pumps"]}
        assert pumps
        assert [request["route"] for request in tasks["requests"]] == ["/tasks"]
        metrics = (await app.client.get("/metrics")).text
        for name in pumps:
            assert f'quattro_pump_up{{quattro_pump_name="{name}"}}' in metrics
