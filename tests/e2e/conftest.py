"""The servers that the tests of this folder share."""

from collections.abc import Iterator

import pytest

from tests.support.server import Server, uvicorn

APPS = ["fastapi_app", "starlette_app"]
PROTOCOLS = ["h11", "httptools"]


@pytest.fixture(params=APPS)
def app(request: pytest.FixtureRequest) -> str:
    """The name of an app that the server is to run."""
    return f"tests.e2e.apps:{request.param}"


@pytest.fixture(scope="module", params=[(app, http) for app in APPS for http in PROTOCOLS])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A running server, the same for all tests of a module."""
    app, http = request.param
    with Server(uvicorn(f"tests.e2e.apps:{app}", "--http", http)) as server:
        yield server
        assert "Task was destroyed" not in server.log
        assert "never awaited" not in server.log
