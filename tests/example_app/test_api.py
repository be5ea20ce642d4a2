"""The requests of the board, in process."""

from __future__ import annotations

import httpx
import pytest

from example_app.settings import Settings
from example_app.targets import MAX_TARGETS
from tests.example_app.support import running

pytestmark = pytest.mark.anyio

Answers = dict[str, int | Exception]


async def test_check_returns_all_results(settings: Settings, web: Answers) -> None:
    """All targets that were asked for are in the answer, in that order, the failed ones too."""
    web["b.test"] = httpx.ConnectError("refused")
    async with running(settings) as app:
        response = await app.client.get("/check?target=b&target=a&target=b")
    assert response.status_code == 200
    seen = [(each["target"], each["state"], each["error"]) for each in response.json()]
    assert seen == [("b", "down", "refused"), ("a", "up", "")]


async def test_check_is_recorded(settings: Settings, web: Answers) -> None:
    """What a check has seen is in the history of the target, after a restart too."""
    async with running(settings) as app:
        checked = (await app.client.get("/check?target=a")).json()[0]
    async with running(settings) as app:
        assert checked in (await app.client.get("/history/a")).json()


@pytest.mark.parametrize(
    ("query", "status", "reason"),
    [
        ("", 422, "Field required"),
        ("target=http://10.0.0.1/", 404, "configured: 'http://10.0.0.1/'"),
        ("target=%1b[2J%c2%9b%e2%80%ae", 404, r"configured: '\\x1b[2J\\x9b\\u202e'"),
        ("target=a&target=c", 404, "no target of that name is configured: 'c'"),
        ("&".join(["target=a"] * (MAX_TARGETS + 1)), 422, "at most 100"),
    ],
)
async def test_only_configured_targets_are_checked(
    settings: Settings, web: Answers, query: str, status: int, reason: str
) -> None:
    """Whatever is no name of a target is refused with a reason."""
    async with running(settings) as app:
        response = await app.client.get(f"/check?{query}")
    assert response.status_code == status
    assert reason in response.text


@pytest.mark.parametrize(
    ("path", "status"),
    [("/history/c", 404), ("/history/a?limit=0", 422), ("/history/a?limit=1001", 422)],
)
async def test_history_refuses(settings: Settings, web: Answers, path: str, status: int) -> None:
    """There is a history of targets alone, in bounded pieces."""
    async with running(settings) as app:
        assert (await app.client.get(path)).status_code == status


async def test_healthz(settings: Settings, web: Answers) -> None:
    """The board says that it is alive."""
    async with running(settings) as app:
        assert (await app.client.get("/healthz")).json() == {"status": "ok"}


async def test_the_page_may_load_from_the_board_alone(settings: Settings, web: Answers) -> None:
    """The page forbids itself every other address, and being framed; no file of it names one."""
    async with running(settings) as app:
        page = await app.client.get("/")
        files = [(await app.client.get(f"/static/board.{kind}")) for kind in ("css", "js")]
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    for file in (page, *files):
        assert file.status_code == 200
        assert "://" not in file.text.replace("http://www.w3.org/2000/svg", "").replace(
            'placeholder="https://"', ""
        )


async def test_the_slow_service(
    settings: Settings, web: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slow demo service takes its time, and answers."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async with running(settings) as app:
        monkeypatch.setattr("example_app.demo.asyncio.sleep", sleep)
        assert (await app.client.get("/demo/slow")).status_code == 200
        monkeypatch.undo()
    assert max(slept) >= 0.2


@pytest.mark.parametrize(("clock", "status"), [(5.0, 503), (50.0, 200)])
async def test_the_flaky_service(
    settings: Settings, web: Answers, monkeypatch: pytest.MonkeyPatch, clock: float, status: int
) -> None:
    """The flaky demo service fails for some seconds of every ninety."""
    async with running(settings) as app:
        monkeypatch.setattr("example_app.demo.time.time", lambda: clock)
        response = await app.client.get("/demo/flaky")
        monkeypatch.undo()
    assert response.status_code == status
