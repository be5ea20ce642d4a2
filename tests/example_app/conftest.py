from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import example_app.state
from example_app.probe import new_client
from example_app.settings import Settings
from tests.example_app.support import Site, answer


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A board with two targets, whose next round of probes is far away."""
    targets = tmp_path / "targets.toml"
    targets.write_text(
        '[[target]]\nname = "a"\nurl = "http://a.test/"\n'
        '[[target]]\nname = "b"\nurl = "http://b.test/"\n'
    )
    return Settings(targets=targets, database=tmp_path / "board.db", interval=3600)


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> dict[str, int | Exception]:
    """What the hosts of the world answer to the board: a status, or an error; 200 if not listed."""
    answers: dict[str, int | Exception] = {}

    def handle(request: httpx.Request) -> httpx.Response:
        said = answers.get(request.url.host, 200)
        if isinstance(said, Exception):
            raise said
        return answer(said)

    def fake_client() -> httpx.AsyncClient:
        return new_client(httpx.MockTransport(handle))

    monkeypatch.setattr(example_app.state, "new_client", fake_client)
    return answers


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    try:
        yield site
    finally:
        site.close()
