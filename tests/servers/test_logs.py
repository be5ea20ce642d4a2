"""How the entries of this package come out of each server."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.server import Server, granian, gunicorn, hypercorn, uvicorn
from tests.support.wire import Wire

APP = "tests.servers.logging_app:app"
TIME = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
OTHERS = ["console", "access"]
CONFIG = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": FORMAT}},
    "handlers": {
        name: {"class": "logging.StreamHandler", "formatter": "plain"}
        for name in ("stderr", *OTHERS)
    },
    "loggers": {
        name: {"level": "INFO", "handlers": ["stderr"], "propagate": False}
        for name in ("gunicorn.error", "gunicorn.access")
    },
    "root": {"level": "INFO", "handlers": ["stderr"]},
}


def check(server: Server) -> None:
    with Wire(server.port) as wire:
        assert wire.get("/").text == "served"
    server.wait_for(rf"{TIME} INFO quattro_web: an info entry$")
    server.wait_for(rf"{TIME} ERROR quattro_web: fails, handed over by GET /, failed$")
    server.wait_for("^ZeroDivisionError$")
    assert len(re.findall("an info entry", server.log)) == 1


@pytest.mark.parametrize("kind", [uvicorn, hypercorn, granian, gunicorn])
def test_app_that_configures_logging(kind: Callable[..., list[str]]) -> None:
    """O1: Where the app says how entries look, those of this package have a level and a time under
    each server, once."""
    with Server(kind(APP)) as server:
        check(server)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (uvicorn, ["--log-config", "{}"]),
        (hypercorn, ["--log-config", "json:{}"]),
        (granian, ["--log-config", "{}"]),
        (gunicorn, ["--log-config-json", "{}"]),
    ],
)
def test_server_that_configures_logging(
    kind: Callable[..., list[str]], options: list[str], tmp_path: Path
) -> None:
    """O1: So it is where a file that the server reads says so."""
    file = tmp_path / "log.json"
    file.write_text(json.dumps(CONFIG), encoding="utf-8")
    command = kind(APP, *(option.format(file) for option in options))
    with Server(command, env={"LOG_CONFIG": "a file"}) as server:
        check(server)
